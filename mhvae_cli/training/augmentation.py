"""Augmentation: random rotation, scaling, shift, flips, crops and intensity changes of training images."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import AugmentConfig

MIN_CROP = 0.1
"""Minimum side of a crop, as a fraction of the image's side."""


class Affine(NamedTuple):
    """Two (2, 3) affine maps in [-1, 1] coordinates, each the inverse of the other.

    `backward` maps output to input coordinates and resamples images; `forward` maps input to output
    coordinates and moves points.
    """

    backward: np.ndarray
    forward: np.ndarray


def identity_maps(count: int) -> np.ndarray:
    """Identity affine maps (count, 2, 3)."""
    return np.tile(np.array([[1.0, 0, 0], [0, 1.0, 0]]), (count, 1, 1))


def resample(images: Tensor, backward: np.ndarray, size: list[int], *, padding: str = "zeros") -> Tensor:
    """Resample images (B, C, H, W) to `size` under `Affine.backward` maps (B, 2, 3)."""
    grid = F.affine_grid(torch.from_numpy(backward).float(), size, align_corners=False)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=False)


def similarity(rng: np.random.Generator, ranges: AugmentConfig, aspect: float) -> Affine:
    """A random rotation, scaling, shift and flip, shape-preserving in images of width / height `aspect`."""
    angle = np.deg2rad(rng.uniform(-ranges.rotate, ranges.rotate))
    scale = np.exp(rng.uniform(-ranges.scale, ranges.scale))
    flips = [-1.0 if on and rng.random() < 0.5 else 1.0 for on in (ranges.flip_x, ranges.flip_y)]
    shift = rng.uniform(-ranges.shift, ranges.shift, 2) * 2
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    native = np.diag([aspect, 1.0])
    linear = np.linalg.inv(native) @ (rotation * scale) @ np.diag(flips) @ native
    inverse = np.linalg.inv(linear)
    return Affine(
        np.concatenate([linear, -(linear @ shift)[:, None]], axis=1),
        np.concatenate([inverse, shift[:, None]], axis=1),
    )


def crop(
    affine: Affine, rim: np.ndarray, *, fill: float, offset: Sequence[float] | np.ndarray = (0, 0)
) -> Affine:
    """Compose a transform with a crop around the object whose contour is `rim` (N, 2).

    The crop has the aspect ratio of the image and lies within it. The bounding box of the visible part of
    the object spans the fraction `fill` of the crop's width or height, and its centre is `offset` crop sides
    off the crop's centre. A crop that would be larger than the image is the whole image.
    """
    backward, forward = affine
    visible = (rim @ forward[:, :2].T + forward[:, 2]).clip(-1, 1)
    low, high = visible.min(0), visible.max(0)
    side = min(1.0, max(float((high - low).max()) / 2 / fill, MIN_CROP))
    centre = ((low + high) / 2 + 2 * side * np.asarray(offset)).clip(side - 1, 1 - side)
    return Affine(
        np.concatenate(
            [backward[:, :2] * side, (backward[:, :2] @ centre + backward[:, 2])[:, None]], axis=1
        ),
        np.concatenate([forward[:, :2], (forward[:, 2] - centre)[:, None]], axis=1) / side,
    )


def tone(image: Tensor, rng: np.random.Generator, ranges: AugmentConfig) -> Tensor:
    """Apply random gamma, gain, offset and pixel noise to an image (C, H, W) in [-1, 1].

    Gain and offset have a part that all channels share, and a smaller one per channel.
    """
    channels, strength = len(image), ranges.tone
    gamma = float(np.exp(rng.uniform(-strength, strength)))
    gain = np.exp(rng.uniform(-strength, strength) + rng.uniform(-strength, strength, channels) / 3)
    offset = rng.uniform(-strength, strength) / 2 + rng.uniform(-strength, strength, channels) / 6
    noise = torch.from_numpy(rng.standard_normal(image.shape, np.float32)) * float(
        rng.uniform(0, ranges.noise)
    )
    level = ((image + 1) / 2).clamp_min(0).pow(gamma) * torch.from_numpy(gain).float()[:, None, None]
    return (2 * level - 1 + torch.from_numpy(offset).float()[:, None, None] + noise).clamp(-1, 1)
