"""Whether a generated image is closer to a training image than new images are: a check for memorisation.

A model folder may contain audit.safetensors, made by `train-cddpm`: a fingerprint of each training image,
in float16, and the distance from new images to the nearest of them. A fingerprint is the
mean of the encoder's features and a random projection of the style code. No image can be decoded from it, but
whoever has an image can find out whether the model was trained on it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.folder import load_state
from ..errors import ModelError
from ..images.read import read_scan
from ..images.scan import Scan
from .networks import Networks
from .qc import EncoderOutputs

COMPONENT = "audit"
MAX_IMAGES = 1000
"""Largest number of training images in an index."""
PROJECTED = 32
"""Numbers of a fingerprint that come from the style code; the others are features."""
NEAR = 0.01
"""Share of new images that are nearer to a training image than `Audit.limit`."""
BATCH = 16


@dataclass(frozen=True)
class Audit:
    """`index` float32 (N, D): fingerprints of training images, in units of their sd; `scale` float32 (D,) is
    one over that sd; `limit`: the distance to the nearest one that a share NEAR of new images falls below."""

    index: np.ndarray
    scale: np.ndarray
    limit: float

    def distance(self, networks: Networks, scan: Scan) -> float:
        """The distance from an image to the nearest training image, in units of the limit."""
        [outputs] = networks.examine(networks.prepare(scan)[None], style=True)
        return float(nearest(_fingerprint(networks, outputs)[None] * self.scale, self.index)[0] / self.limit)


def make_index(
    networks: Networks, train: Sequence[Path], new: Sequence[Path], *, seed: int = 0
) -> dict[str, torch.Tensor]:
    """The tensors of audit.safetensors, for training images and images that were not trained on.

    Of more than MAX_IMAGES training images, that many are drawn at random. InputError for a file that cannot
    be read.
    """
    rng = np.random.default_rng(seed)
    chosen = [train[i] for i in sorted(rng.permutation(len(train))[:MAX_IMAGES])]
    known, others = (np.stack(list(_fingerprints(networks, paths))) for paths in (chosen, new))
    sd = known.std(0)
    scale = (1 / np.maximum(sd, max(1e-6, 0.05 * float(np.median(sd))))).astype(np.float32)
    index = (known * scale).astype(np.float16)
    limit = np.quantile(nearest(others * scale, index.astype(np.float32)), NEAR)
    tensors = {"index": index, "scale": scale, "limit": np.array([limit], np.float32)}
    return {name: torch.from_numpy(value) for name, value in tensors.items()}


def load_audit(networks: Networks) -> Audit:
    """The index of a model's training images; ModelError if it has none, or one that does not fit."""
    folder = networks.folder
    if not (folder / f"{COMPONENT}.safetensors").is_file():
        hint = "train-cddpm makes one"
        raise ModelError(f"{networks.name}: has no index of its training images for --audit", hint=hint)
    state = {name: value.float().numpy() for name, value in load_state(folder, COMPONENT).items()}
    length = networks.config.encoder.reduce + PROJECTED
    index, scale, limit = (state.get(name, np.empty(0)) for name in ("index", "scale", "limit"))
    if index.shape[1:] != (length,) or not len(index) or scale.shape != (length,) or limit.shape != (1,):
        raise ModelError(f"{folder / COMPONENT}.safetensors: does not fit the model")
    if limit[0] <= 0:
        raise ModelError(f"{folder / COMPONENT}.safetensors: the limit is not positive")
    return Audit(index, scale, float(limit[0]))


def nearest(fingerprints: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The root mean square difference (N,) of fingerprints (N, D) and the nearest of an index (M, D)."""
    squares = [np.square(each - index).mean(1).min() for each in fingerprints]
    return np.sqrt(squares)


def _fingerprints(networks: Networks, paths: Sequence[Path]) -> Iterator[np.ndarray]:
    for i in range(0, len(paths), BATCH):
        squares = np.stack([networks.prepare(read_scan(path)) for path in paths[i : i + BATCH]])
        yield from (_fingerprint(networks, outputs) for outputs in networks.examine(squares, style=True))


def _fingerprint(networks: Networks, outputs: EncoderOutputs) -> np.ndarray:
    """Float32 (R + PROJECTED,), of the encoder's own R features: what a boundary head adds is no trait."""
    assert outputs.z is not None
    # Always the same directions: what a model tells of one image does not add up over its versions.
    directions = np.random.default_rng(0).standard_normal((PROJECTED, len(outputs.z)))
    projected = directions @ outputs.z / np.sqrt(len(outputs.z))
    own = outputs.features[-networks.config.encoder.reduce :]
    return np.concatenate([own, projected]).astype(np.float32)
