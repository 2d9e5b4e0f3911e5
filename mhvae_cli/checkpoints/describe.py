"""A model folder's metadata. Needs no torch."""

import math
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..hashing import sha256_of
from .folder import FILES, digest, model_config, read_config
from .model_card import INTENDED_USE
from .tensors import read_header


def describe(folder: Path) -> dict[str, Any]:
    """A model folder's metadata, as JSON values. `parameters` counts all stored numbers, including buffers.

    `sha256` is the model_sha256 of the provenance records of its images; no checksum is verified.
    """
    content = read_config(folder)
    config = model_config(content, folder)
    present = components(folder)
    return {
        "kind": "model",
        "name": content["name"],
        "folder": str(folder),
        "sha256": digest(folder),
        "components": present,
        "parameters": {name: _count(folder / f"{name}.safetensors") for name in present},
        "image_size": config.image_size,
        "channels": config.channels,
        "warp": None if config.single_head else config.warp.family,
        "licence": content["card"].get("license"),
        "attribution": content["card"].get("attribution"),
        "data": content["card"].get("data"),
        "intended_use": content["card"].get("intended_use") or INTENDED_USE,
        "figures": content["figures"],
        "files": {name: _size_and_sha256(folder / name) for name in FILES if (folder / name).is_file()},
    }


def components(folder: Path) -> list[str]:
    """The components whose weights a model folder has: "vae", "cddpm"."""
    return [name for name in ("vae", "cddpm") if (folder / f"{name}.safetensors").is_file()]


def _size_and_sha256(path: Path) -> dict[str, int | str]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path, error=ModelError)}


def _count(path: Path) -> int:
    header = read_header(path)
    return sum(math.prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")
