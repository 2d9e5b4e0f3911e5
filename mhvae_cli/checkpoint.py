"""A model's folder, which is also its repository on the Hub: config.json, *.safetensors, README.md.

The only place that reads or writes safetensors. Names, folders, configurations and headers need neither torch
nor the network. Pickled weights are never opened, whatever their name: unpickling runs code.
"""

import difflib
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .config import ModelConfig, check_model, from_dict
from .errors import ModelError, UsageError
from .files import write_atomic
from .hub import fetch

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KIND = "mhvae"
MODELS = Path(__file__).parent / "models"
FIELDS = {"format": int, "kind": str, "name": str} | dict.fromkeys(
    ("model", "training", "card", "figures"), dict
)
OPTIONAL = {"cddpm": dict}
CONFIG_CAP = 2**20
HEADER_CAP = 2**24
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)


def bundled() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json"))


def resolve(ref: str | Path, *, offline: bool = False) -> Path:
    """The folder that `ref` means: a bundled name, a folder on disk, or ORG/NAME[@REVISION] on the Hub.

    A Hub model is downloaded into the Hub's usual cache (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT as
    its users know them) and served from there later; with `offline` no socket is opened. ModelError if none.
    """
    ref = os.fspath(ref)
    names = bundled()
    if ref in names:
        return MODELS / ref
    path = Path(os.path.expanduser(ref))
    if ref and os.path.isdir(path):
        return _with_config(path, ref)
    if ref and os.path.exists(path):
        raise ModelError(f"{ref}: a file, not a model", hint=f"a model is a folder: --model {path.parent}")
    if _HUB_ID.fullmatch(ref):
        return _with_config(fetch(ref, ["config.json", "*.safetensors", "README.md"], offline=offline), ref)
    near = difflib.get_close_matches(ref, names, 1)
    known = f"bundled models: {', '.join(names) or 'none'}; or give a folder, or ORG/NAME on the Hub"
    raise ModelError(f"no model {ref!r}", hint=f"did you mean {near[0]!r}?" if near else known)


def _with_config(folder: Path, ref: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{ref}: no config.json in it, so not a model", hint="train-vae makes models")
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json: strict JSON with exactly the keys of FIELDS. ModelError says what is wrong."""
    path = Path(folder) / "config.json"
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_CAP + 1)
        if len(data) > CONFIG_CAP:
            raise ValueError("too large")
        config = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except FileNotFoundError:
        raise ModelError(f"{folder}: no config.json in it, so not a model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable configuration: {error}") from error
    _check_config(config, str(path))
    return config


def model_config(content: Mapping[str, Any], folder: Path) -> ModelConfig:
    """The model that a folder's config.json describes. ModelError if it describes none."""
    try:
        config = from_dict(ModelConfig, content["model"], where="model.")
        check_model(config)
    except UsageError as error:
        raise ModelError(f"{folder}: {error}") from error
    return config


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice")
    return values


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _check_config(config: Any, where: str) -> None:
    if not isinstance(config, dict) or config.get("kind") != KIND:
        raise ModelError(f"{where}: not the configuration of an mhvae model")
    if config.get("format") != FORMAT:
        newer = "it was written by another version: pip install --upgrade mhvae"
        raise ModelError(f"{where}: format {config.get('format')!r}, this version reads {FORMAT}", hint=newer)
    for key in {**FIELDS, **config}:
        kind = {**FIELDS, **OPTIONAL}.get(key)
        if kind is None:
            raise ModelError(f"{where}: unknown key {key!r}")
        if type(config.get(key)) is not kind:
            raise ModelError(f"{where}: {key!r} is missing or of the wrong type")


def digest(folder: Path, components: Sequence[str] | None = None) -> str:
    """A model's SHA-256 in hexadecimal: what `sha256sum FILES | sha256sum` prints in its folder.

    FILES, by name: config.json and all weights (cddpm.safetensors if there); or those of `components` alone,
    which another name, card or cDDPM leaves as they are. ModelError if one is missing.
    """
    names = [f"{name}.safetensors" for name in components or ()]
    if components is None:
        names = ["config.json", "vae.safetensors", *(path.name for path in folder.glob("cddpm.safetensors"))]
    lines = ""
    for path in sorted(folder / name for name in names):
        try:
            with path.open("rb") as file:
                lines += f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n"
        except OSError as error:
            raise ModelError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    return hashlib.sha256(lines.encode()).hexdigest()


def read_header(path: Path) -> dict[str, Any]:
    """A safetensors file's header; the file is as long as it says. ModelError otherwise."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if length > HEADER_CAP and (first[:4] == b"PK\x03\x04" or first[:1] == b"\x80"):
                raise _pickled(path)
            if length > HEADER_CAP:
                raise ValueError(f"its header claims {length} bytes, at most {HEADER_CAP} are read")
            if size < 8 or 8 + length > size:
                raise ValueError("it is cut short in its header")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
        if any(type(side) is not int or side < 0 for entry in tensors for side in entry["shape"]):
            raise ValueError("a tensor has an impossible shape")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        cause = error if type(error) is ValueError else "its header is damaged"
        raise ModelError(f"{path}: not a usable safetensors file: {cause}") from error
    if size < end:
        raise ModelError(f"{path}: cut short, {size} of {end} bytes", hint="copy or download it again")
    return header


def _pickled(path: Path) -> ModelError:
    return ModelError(f"{path}: pickled weights are never loaded: they can run code", hint="use safetensors")


def read_metadata(path: Path) -> dict[str, str]:
    """The text that `save_state` put beside the tensors; reads the header alone, without torch."""
    metadata = read_header(Path(path)).get("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(text) is not str for text in metadata.values()):
        raise ModelError(f"{path}: not a usable safetensors file: its metadata is damaged")
    return metadata


def load_state(
    folder: Path,
    component: str = "vae",
    *,
    device: str = "cpu",
    expected: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, "Tensor"]:
    """The tensors of `folder`/`component`.safetensors, all finite, in their stored dtypes.

    On the CPU they are a private mapping of the file, not a copy. `expected`: the names and shapes that it
    must hold, no more and no fewer. ModelError otherwise, or if the file is missing, damaged or pickled.
    """
    path = Path(folder) / f"{component}.safetensors"
    if not path.is_file():
        pickled = sorted(other for other in Path(folder).glob("*") if other.suffix in PICKLED)
        raise _pickled(pickled[0]) if pickled else ModelError(f"{folder}: no {path.name} in it")
    return load_tensors(path, device=device, expected=expected)


def load_pretrained(ref: str | Path, *, offline: bool = False) -> dict[str, "Tensor"]:
    """The tensors, as stored, of a .safetensors file, or of model.safetensors of ORG/NAME[@REVISION].

    ModelError if there is none.
    """
    ref = os.fspath(ref)
    path = Path(os.path.expanduser(ref))
    if path.suffix in PICKLED:
        raise _pickled(path)
    if not os.path.isfile(path):
        if path.suffix == ".safetensors" or not _HUB_ID.fullmatch(ref):
            raise ModelError(f"no weights {ref!r}", hint="give a .safetensors file, or ORG/NAME on the Hub")
        path = fetch(ref, ["model.safetensors"], offline=offline) / "model.safetensors"
        if not path.is_file():
            raise ModelError(f"{ref}: no model.safetensors in it", hint="pickled weights are never loaded")
    return load_tensors(path)


def load_tensors(
    path: Path, *, device: str = "cpu", expected: Mapping[str, Sequence[int]] | None = None
) -> dict[str, "Tensor"]:
    header = read_header(path)
    found = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    wanted = found if expected is None else {name: tuple(shape) for name, shape in expected.items()}
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            shapes = f"{found.get(name, 'absent')} in the file, {wanted.get(name, 'absent')} in the model"
            raise ModelError(f"{path}: does not fit its config.json: {name} is {shapes}")

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=device) as file:
            state = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a usable safetensors file: {error}") from error
    for name, tensor in state.items():
        if not _is_finite(tensor):
            raise ModelError(f"{path}: {name} holds NaN or infinity")
    return state


def _is_finite(tensor: "Tensor") -> bool:
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)  # NaN spreads to both; some 15 x faster than isfinite().all()
    return bool(torch.isfinite(low) & torch.isfinite(high))


def save_state(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> None:
    """Write tensors (any device and layout, none sharing memory) and texts as one file, whole or not at all.

    Structured metadata, such as a training's place in its schedule, is one JSON text. OutputError on failure.
    """
    write_atomic(Path(path), encode_state(tensors, metadata))


def encode_state(tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> bytes:
    """The bytes that `save_state` writes; equal tensors and texts make equal bytes."""
    from safetensors.torch import save

    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return _in_order(save(ready, metadata={"format": "pt", **metadata}))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata, whose order is random, sorted: equal tensors make equal bytes."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]


def save_model(
    folder: Path,
    *,
    config: Mapping[str, Any],
    states: Mapping[str, Mapping[str, "Tensor"]],
    card: str,
    dtype: Literal["float16"] | None = None,
) -> None:
    """Write a model folder: `states` by component ("vae"), `card` as README.md; config.json last seals it.

    With `dtype` the tensors of two and more dimensions are stored so; vectors weigh nothing and keep theirs.
    Numbers of `config` that are not finite become null. ModelError if a tensor is not finite (in `dtype`), or
    for a config that `read_config` would refuse; OutputError if a file cannot be written.
    """
    config = _plain(config)
    _check_config(config, "config.json")
    for component, state in states.items():
        ready = {name: _halved(tensor) if dtype else tensor for name, tensor in state.items()}
        for name, tensor in ready.items():
            if not _is_finite(tensor):
                raise ModelError(f"{component}: {name} is not finite" + (f" as {dtype}" if dtype else ""))
        save_state(Path(folder) / f"{component}.safetensors", ready, {"kind": KIND, "component": component})
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(Path(folder) / "README.md", card.encode())
    write_atomic(Path(folder) / "config.json", text.encode())


def _halved(tensor: "Tensor") -> "Tensor":
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
