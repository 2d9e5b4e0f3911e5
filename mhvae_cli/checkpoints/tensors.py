"""Safetensors files, which only this module reads and writes; their headers are fully validated.

Pickled weights are never loaded, whatever their file name: unpickling runs code.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, os_error_text
from ..filesystem import open_regular, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

HEADER_CAP = 2**24
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1}
_BYTES |= {"I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4}
_BYTES |= {"I64": 8, "U64": 8, "F64": 8}


def read_header(path: Path) -> dict[str, Any]:
    """A safetensors file's header. ModelError unless its tensors fill the rest of the file exactly."""
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if length > HEADER_CAP and (first[:4] == b"PK\x03\x04" or first[:1] == b"\x80"):
                raise pickled(path)
            if length > HEADER_CAP:
                raise ValueError(f"its header claims {length} bytes, more than the limit of {HEADER_CAP}")
            if size < 8 or 8 + length > size:
                raise ValueError("it is truncated in its header")
            text = file.read(length).decode("utf-8")
            header: dict[str, Any] = json.loads(text, object_pairs_hook=unique)
        end = 8 + length + _extent(header)
    except OSError as error:
        raise ModelError(f"{path}: {os_error_text(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        cause = error if type(error) is ValueError else "its header is damaged"
        raise ModelError(f"{path}: invalid safetensors file: {cause}") from error
    if size < end:
        raise ModelError(f"{path}: truncated, {size} of {end} bytes", hint="copy or download it again")
    if size > end:
        raise ModelError(f"{path}: invalid safetensors file: {size - end} bytes too long")
    return header


def _extent(header: dict[str, Any]) -> int:
    """The number of bytes that the tensors take in sequence; ValueError for a gap or an overlap."""
    spans = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if any(type(number) is not int or number < 0 for number in entry["shape"]):
            raise ValueError("a tensor has an impossible shape")
        if [type(number) for number in entry["data_offsets"]] != [int, int]:
            raise TypeError
        start, end = entry["data_offsets"]
        if entry["dtype"] not in _BYTES:
            raise ValueError(f"a tensor has the unsupported dtype {str(entry['dtype'])[:20]!r}")
        if math.prod(entry["shape"]) * _BYTES[entry["dtype"]] != end - start:
            raise ValueError("a tensor's shape does not match its size in bytes")
        spans.append((start, end))
    covered = 0
    for start, end in sorted(spans):
        if start != covered:
            raise ValueError("tensors overlap or leave a gap")
        covered = end
    return covered


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object from `pairs`; ValueError for a duplicate key."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("duplicate key")
    return values


def pickled(path: Path) -> ModelError:
    """The error for a file of pickled weights."""
    return ModelError(f"{path}: pickled weights are not loaded: they can run code", hint="use safetensors")


def read_metadata(path: Path) -> dict[str, str]:
    """The texts stored with the tensors; reads only the header, without torch."""
    metadata = read_header(Path(path)).get("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(text) is not str for text in metadata.values()):
        raise ModelError(f"{path}: invalid safetensors file: its metadata is damaged")
    return metadata


def load_tensors(
    path: Path, *, device: str = "cpu", expected: Mapping[str, Sequence[int]] | None = None
) -> dict[str, "Tensor"]:
    """The tensors of a file, all finite, in their stored dtypes; on the CPU a private mapping, not a copy.

    `expected`: exactly the names and shapes that it must contain. ModelError otherwise.
    """
    header = read_header(path)
    found = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    wanted = found if expected is None else {name: tuple(shape) for name, shape in expected.items()}
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            shapes = f"{found.get(name, 'absent')} in the file, {wanted.get(name, 'absent')} in the model"
            raise ModelError(f"{path}: does not match its config.json: {name} is {shapes}")

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=device) as file:
            state = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, OSError, RuntimeError, OverflowError) as error:
        raise ModelError(f"{path}: invalid safetensors file: {error}") from error
    for name, tensor in state.items():
        if not is_finite(tensor):
            raise ModelError(f"{path}: {name} contains NaN or infinity")
    return state


def is_finite(tensor: "Tensor") -> bool:
    """Whether a tensor has neither NaN nor infinity."""
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)  # NaN propagates to both; about 15 x faster than isfinite().all()
    return bool(torch.isfinite(low) & torch.isfinite(high))


def save_state(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> None:
    """Write tensors (any device and layout, none sharing memory) and texts to one file, atomically.

    Structured metadata, such as the state of a training schedule, is one JSON text. OutputError on failure.
    """
    write_atomic(Path(path), encode_state(tensors, metadata))


def encode_state(tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> bytes:
    """The bytes that `save_state` writes; equal tensors and texts give equal bytes."""
    from safetensors.torch import save

    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return _in_order(save(ready, metadata={"format": "pt", **metadata}))


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes it in random order."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[end:]
