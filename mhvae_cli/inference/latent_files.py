"""Latent codes as files: NAME.safetensors holds one image's latent code (section 5.2.2), NAME.json is for
human readers.

The tensors z, theta and pose are authoritative; nothing is read from the JSON file. A latent code is only
valid for one model's VAE, identified by `folder.digest(folder, ["vae"])`; with a texture code, at the end of
z, it is for its cDDPM, too.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack

import numpy as np

from ..checkpoints.tensors import encode_state, load_tensors, read_metadata
from ..errors import InputError, ModelError
from ..filesystem import open_regular, write_atomic
from ..images.scan import MAX_PIXELS
from ..vae.editing import LatentCode
from .provenance import embed

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "1"
KIND = "mhvae-latents"
SIZE_CAP = 2**20


class About(TypedDict):
    model: str
    vae_sha256: str
    record: Mapping[str, object]
    handles: NotRequired[np.ndarray | None]


def encode_latents(
    code: LatentCode,
    *,
    model: str,
    vae_sha256: str,
    record: Mapping[str, object],
    handles: np.ndarray | None = None,
) -> tuple[bytes, bytes]:
    """The bytes of NAME.safetensors and of NAME.json.

    `model` is the model's name, `record` from `provenance.make_record`; `handles` (20, 2) are a spline's
    handles in native pixels, for NAME.json. InputError for a latent code that is not finite.
    """
    import torch

    arrays = {"z": code.z, "theta": code.theta} | ({} if code.pose is None else {"pose": code.pose})
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError("its latent code is not finite")
    facts = {"kind": KIND, "version": VERSION, "model": model, "vae_sha256": vae_sha256}
    size = [int(side) for side in code.size]
    tensors = {name: torch.tensor(array) for name, array in arrays.items()}
    whole = encode_state(tensors, {**facts, "size": json.dumps(size), **embed(record)})
    shown: dict[str, object] = {**facts, "size": size}
    shown |= {name: arrays[name].tolist() for name in ("theta", "pose") if name in arrays}
    if handles is not None:
        shown["handles"] = handles.round(3).tolist()
    shown["mhvae"] = dict(record)
    lines = (f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in shown.items())
    return whole, ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def save_latents(stem: Path, code: LatentCode, **about: Unpack[About]) -> list[Path]:
    """Write STEM.safetensors and STEM.json, each atomically; `about`: the keywords of `encode_latents`.

    OutputError if a file cannot be written.
    """
    paths = [Path(f"{stem}{suffix}") for suffix in (".safetensors", ".json")]
    for path, data in zip(paths, encode_latents(code, **about), strict=True):
        write_atomic(path, data)
    return paths


def is_latents(path: Path) -> bool:
    """Whether a file is one of a latent code's two; without torch, and without reading tensors.

    A damaged .safetensors file counts, so that `load_latents` reports what is wrong with it.
    """
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", ".json") or not path.is_file():
        return False
    try:
        if suffix == ".safetensors":
            return read_metadata(path).get("kind") == KIND
        with open_regular(path) as file:
            content = json.loads(file.read(SIZE_CAP))
        return isinstance(content, dict) and content.get("kind") == KIND
    except ModelError:
        return True
    except (OSError, ValueError, RecursionError):
        return False


def load_latents(path: Path, *, vae_sha256: str, z_dim: int, theta_dim: int) -> LatentCode:
    """The latent code, from either of its two files.

    InputError if the file is missing, damaged, of another shape, or made by another model than the one whose
    VAE has `vae_sha256`.
    """
    file = path.with_suffix(".safetensors") if path.suffix.lower() == ".json" else path
    if not file.is_file():
        raise InputError(f"{path}: {file.name} is missing", hint="the JSON file alone holds no latent code")
    try:
        metadata = read_metadata(file)
        size = _checked(file, metadata, vae_sha256)
        tensors = load_tensors(file)
    except ModelError as error:
        raise InputError(str(error), hint=error.hint) from error
    _check_tensors(file, tensors, {"z": (z_dim,), "theta": (theta_dim,)})
    # Copies: the tensors are a mapping of the file, which may be overwritten.
    arrays = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    pose = arrays.get("pose")
    if pose is not None and not np.linalg.det(pose[:, :2]) > 0:
        raise InputError(f"{file}: its pose is not a valid rotation and scaling")
    return LatentCode(z=arrays["z"], theta=arrays["theta"], pose=pose, size=size)


def _checked(file: Path, metadata: Mapping[str, str], vae_sha256: str) -> tuple[int, int]:
    """The image's size (h, w) from the metadata; InputError for any other file or model."""
    if metadata.get("kind") != KIND:
        raise InputError(f"{file}: not a latent code")
    version = metadata.get("version")
    if version != VERSION:
        hint = "it was written by another release of mhvae: pip install --upgrade mhvae"
        raise InputError(f"{file}: file version {version!r} is not supported, only {VERSION!r}", hint=hint)
    if metadata.get("vae_sha256") != vae_sha256:
        name = metadata.get("model", "")
        raise InputError(f"{file}: latent code of another model, {name!r}", hint="name it with --model")
    if file.stat().st_size > SIZE_CAP:
        raise InputError(f"{file}: too large for a latent code")
    try:
        height, width = json.loads(metadata["size"])
        if type(height) is not int or type(width) is not int or min(height, width) < 1:
            raise ValueError("no size")
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: its image size is damaged") from error
    if height * width > MAX_PIXELS:
        raise InputError(f"{file}: its image has more than {MAX_PIXELS // 1_000_000} million pixels")
    return height, width


def _check_tensors(
    file: Path, tensors: Mapping[str, "Tensor"], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    import torch

    wanted = {name: (shape, torch.float32) for name, shape in shapes.items()}
    if "pose" in tensors:
        wanted["pose"] = ((2, 3), torch.float64)
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            raise InputError(f"{file}: its {name} does not have the shape and dtype of this model")
