"""The device and the dtype to compute with: `auto`, or exactly what was requested, never a substitute."""

from typing import TYPE_CHECKING

from .errors import DeviceError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> "torch.device":
    """auto: CUDA, else MPS, else CPU. DeviceError if a device requested by name is not available."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(f"unknown device {name!r}", hint="use auto, cpu, cuda, cuda:N or mps") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"unknown device {name!r}", hint="use auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise DeviceError(f"{name}: not available, found {count} CUDA devices", hint="use --device auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps: not available on this machine", hint="use --device auto")
    return device


def layout(device: "torch.device") -> "torch.memory_format":
    """The memory format of image tensors: channels last is faster, but MPS has computed parts of such tensors
    incorrectly (pytorch issues 169342, 180984)."""
    import torch

    return torch.contiguous_format if device.type == "mps" else torch.channels_last


def resolve_dtype(name: str, device: "torch.device") -> "torch.dtype":
    """auto: bfloat16 where the hardware supports it (float16 on older CUDA devices), float32 elsewhere."""
    import torch

    if name == "auto":
        if device.type == "cuda":
            return (
                torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
            )
        if device.type == "cpu" and _cpu_has_bfloat16():
            return torch.bfloat16
        return torch.float32
    if name == "float16" and device.type == "cpu":
        raise DeviceError("float16 is not supported on a CPU", hint="use --dtype bfloat16 or float32")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def _cpu_has_bfloat16() -> bool:
    import torch

    flags = torch.cpu.get_capabilities()
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
