"""Random rotation, scaling, shift, flips and changes in tone of training images."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import AugmentConfig

MIN_WINDOW = 0.1
"""The smallest side of a window, as a fraction of the image's."""

Move = tuple[np.ndarray, np.ndarray]
"""Two (2, 3) affine maps in [-1, 1] coordinates: target to source for images, and its inverse for points."""


def identity_maps(count: int) -> np.ndarray:
    """Identity affine maps (count, 2, 3)."""
    return np.tile(np.array([[1.0, 0, 0], [0, 1.0, 0]]), (count, 1, 1))


def resample(images: Tensor, moves: np.ndarray, size: list[int], *, padding: str = "zeros") -> Tensor:
    """Resample (B, C, H, W) to `size` under affine maps (B, 2, 3) from target to source, in [-1, 1]."""
    grid = F.affine_grid(torch.from_numpy(moves).float(), size, align_corners=False)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def similarity(rng: np.random.Generator, ranges: AugmentConfig, aspect: float) -> Move:
    """A random rotation, scaling, shift and flip in native pixels of an image `aspect` wide by 1 high.

    Returns two (2, 3) affine maps in [-1, 1] coordinates: target to source for images, and its inverse.
    """
    turn = np.deg2rad(rng.uniform(-ranges.rotate, ranges.rotate))
    zoom = np.exp(rng.uniform(-ranges.scale, ranges.scale))
    flips = [-1.0 if on and rng.random() < 0.5 else 1.0 for on in (ranges.flip_x, ranges.flip_y)]
    shift = rng.uniform(-ranges.shift, ranges.shift, 2) * 2
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    native = np.diag([aspect, 1.0])
    linear = np.linalg.inv(native) @ (rotation * zoom) @ np.diag(flips) @ native
    inverse = np.linalg.inv(linear)
    return (
        np.concatenate([linear, -(linear @ shift)[:, None]], axis=1),
        np.concatenate([inverse, shift[:, None]], axis=1),
    )


def crop(
    move: Move, rim: np.ndarray, *, fill: float, off_centre: Sequence[float] | np.ndarray = (0, 0)
) -> Move:
    """A `similarity`, then a crop of what it shows about the object with the rim (N, 2), as two maps again.

    The window has the image's aspect and lies inside it. The object's box, as far as it shows, fills `fill`
    of the window in width or in height; where that window would be larger than the image, it is the image.
    """
    pull, push = move
    seen = (rim @ push[:, :2].T + push[:, 2]).clip(-1, 1)
    low, high = seen.min(0), seen.max(0)
    side = min(1.0, max(float((high - low).max()) / 2 / fill, MIN_WINDOW))
    centre = ((low + high) / 2 + 2 * side * np.asarray(off_centre)).clip(side - 1, 1 - side)
    return (
        np.concatenate([pull[:, :2] * side, (pull[:, :2] @ centre + pull[:, 2])[:, None]], axis=1),
        np.concatenate([push[:, :2], (push[:, 2] - centre)[:, None]], axis=1) / side,
    )


def tone(image: Tensor, rng: np.random.Generator, ranges: AugmentConfig) -> Tensor:
    """Random gamma, gain and offset (plus a gain and an offset per channel) and pixel noise."""
    c, strength = len(image), ranges.tone
    gamma = float(np.exp(rng.uniform(-strength, strength)))
    gain = np.exp(rng.uniform(-strength, strength) + rng.uniform(-strength, strength, c) / 3)
    offset = rng.uniform(-strength, strength) / 2 + rng.uniform(-strength, strength, c) / 6
    noise = torch.from_numpy(rng.standard_normal(image.shape, np.float32)) * float(
        rng.uniform(0, ranges.noise)
    )
    level = ((image + 1) / 2).clamp_min(0).pow(gamma) * torch.from_numpy(gain).float()[:, None, None]
    return (2 * level - 1 + torch.from_numpy(offset).float()[:, None, None] + noise).clamp(-1, 1)
