"""A device that is not there: tensors that say they are on MPS, hold their numbers on the CPU, and are as
strict as MPS is: no float64, no complex numbers, no operand on another device.

    with Shim() as shim:
        Pipeline.load(..., device="mps").segment(...)
    shim.seen  # the operators that ran on it, as "aten::mm" or "aten::add.Tensor"

What it cannot show is whether Apple's kernels compute the right numbers: `mhvae doctor` does, on a Mac.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

PLACE = torch.device("mps")
REFUSED = (torch.float64, torch.complex64, torch.complex128)
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


class OnMPS(Tensor):
    """A tensor on the shim; `inner` has its numbers. The operators that run on it are counted by `Shim`."""

    inner: Tensor
    shim: "Shim"

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnMPS":
        if inner.dtype in REFUSED:
            raise TypeError(f"MPS has no {inner.dtype}")
        like = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made = Tensor._make_wrapper_subclass(cls, inner.shape, device=PLACE, **like)
        made.inner = inner
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    # What Python's bindings do with a device before any operator runs, and no MPS being linked, cannot.

    def cpu(self) -> Tensor:
        return self.inner

    def tolist(self) -> Any:
        return self.inner.tolist()

    def contiguous(self, **layout: Any) -> "OnMPS":
        return OnMPS(self.inner.contiguous(**layout))

    def __getitem__(self, index: Any) -> "OnMPS":
        return OnMPS(self.inner[tree_map(_off, index)])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
        if composite and func.name() != "aten::scaled_dot_product_attention":  # which asks the device
            return func._op_dk(COMPOSITE, *args, **kwargs)  # of other operators, which come here in turn
        leaves = tree_leaves((args, kwargs))
        others = [leaf for leaf in leaves if isinstance(leaf, Tensor) and not isinstance(leaf, OnMPS)]
        if any(other.dim() for other in others) and func is not torch.ops.aten.copy_.default:
            raise RuntimeError(f"{func.name()}: operands on two devices")
        made = func(*tree_map(_off, args), **tree_map(_off, kwargs))
        if Shim.active is not None:
            made = Shim.active.note(func.name(), made)
        if func._schema.is_mutable:
            return args[0]
        target = kwargs.get("device")
        leaves_it = target is not None and not _names_mps(target)
        return made if leaves_it else tree_map(lambda x: OnMPS(x) if isinstance(x, Tensor) else x, made)


class Shim(TorchFunctionMode):
    """While it is active `device="mps"` is this device. `broken`: operators and what they do to results."""

    active: "Shim | None" = None

    def __init__(self, broken: Mapping[str, Callable[[Tensor], Tensor]] | None = None) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.broken = dict(broken or {})

    def note(self, name: str, made: Any) -> Any:
        """Count an operator, and spoil its result if it is a broken one."""
        self.seen.add(name)
        spoil = self.broken.get(name)
        return made if spoil is None else tree_map(lambda x: spoil(x) if isinstance(x, Tensor) else x, made)

    def __enter__(self) -> "Shim":
        Shim.active = self
        self._overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)  # parameters of another class
        self._available = torch.backends.mps.is_available
        torch.backends.mps.is_available = lambda: True
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.backends.mps.is_available = self._available
        torch.__future__.set_overwrite_module_params_on_conversion(self._overwrite)
        Shim.active = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What is made on, or moved to, this device."""
        kwargs = kwargs or {}
        first = args[0] if args else None
        if func is torch._C._nn._parse_to:
            return func(*args, **kwargs)
        if func is Tensor.to and any(isinstance(arg, OnMPS) for arg in args[1:]):
            return OnMPS(first.to(args[1].inner)) if not isinstance(first, OnMPS) else first.to(args[1].dtype)
        moves = _names_mps(kwargs.get("device")) or (func is Tensor.to and any(map(_names_mps, args[1:])))
        if moves and not isinstance(first, OnMPS):
            return OnMPS(func(*tree_map(_off, args), **tree_map(_off, kwargs)))
        return func(*args, **kwargs)


def _names_mps(value: Any) -> bool:
    return isinstance(value, str | torch.device) and str(value).startswith("mps")


def _off(value: Any) -> Any:
    """An argument as the CPU takes it."""
    if isinstance(value, OnMPS):
        return value.inner
    return torch.device("cpu") if _names_mps(value) else value
