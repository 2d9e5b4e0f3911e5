"""Sections 3.2-3.3: the segmentation head warps the reference, the image head half of its channels."""

from math import gcd, prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
from .tones import Level, join
from .warp import RADIUS

FEATURE_SIZE = 32
"""Side in pixels of the features that are warped (section 3.3)."""


class SegmentationHead(nn.Module):
    """T_theta(R), equation 10: the reference seen through the warp, as a level function and as a mask.

    The reference is the centred disc, or any shape as the (N, N) signed distance map `reference` (positive
    inside, in [-1, 1] units), resampled bilinearly.
    """

    reference: Tensor | None

    def __init__(self, edge: float, reference: int) -> None:
        super().__init__()
        self.edge = edge
        self.register_buffer("reference", torch.zeros(reference, reference) if reference else None)

    def level(self, source: Tensor) -> Tensor:
        """Signed distance (B, h, w) of source points (B, 2, h, w) to the reference's rim, positive inside."""
        if self.reference is None:
            # Not norm(dim=1), which is 15 x slower on a CPU; the floor makes the gradient at the centre 0,
            # not NaN.
            return RADIUS - (source[:, 0].square() + source[:, 1].square()).clamp_min(1e-24).sqrt()
        grid = source.permute(0, 2, 3, 1)
        maps = self.reference.to(source).expand(len(source), 1, -1, -1)
        inside = F.grid_sample(maps, grid, padding_mode="border", align_corners=False)[:, 0]
        # Outside [-1, 1] there is background: the border's value less the distance to the border.
        return inside - (source.abs().amax(1) - 1).clamp_min(0)

    def level_at(self, source: np.ndarray) -> np.ndarray:
        """`level` of single source points (N, 2) float64, as (N,), without torch's overhead for the disc."""
        if self.reference is None:
            distance: np.ndarray = np.hypot(*source.T)
            return RADIUS - distance
        return self.level(torch.from_numpy(source.T)[None, :, None])[0, 0].numpy()

    def forward(self, source: Tensor) -> Tensor:
        """Soft mask (B, h, w) in (0, 1) from source points (B, 2, h, w): 0.5 on the object's boundary."""
        return torch.sigmoid(self.level(source) / self.edge)


class ImageHead(nn.Module):
    """Section 3.3: z (B, Z), half of its channels warped at 32 x 32 -> image (B, C, S, S).

    Beyond the paper, with `config.tones`, the two layers of `tones`, linear in z, are joined and added.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.image_size = config.image_size
        c = config.decoder.channels
        self.project = nn.Linear(config.z_dim, 4 * 4 * 2 * c)
        self.up = nn.Sequential(_stage(2 * c, 2 * c), _stage(2 * c, 2 * c), _stage(2 * c, c))
        stages, size = [_block(c, c)], FEATURE_SIZE
        while size * 2 <= min(config.image_size, config.decoder.max_size):
            stages.append(_stage(c, max(8, c // 2)))
            c, size = max(8, c // 2), size * 2
        self.out = nn.Sequential(*stages)
        self.last = nn.Conv2d(c, config.channels, 3, padding=1)
        self.layers_shape = (2, config.channels, config.tones, config.tones)
        self.tones = nn.Linear(config.z_dim, prod(self.layers_shape)) if config.tones else None

    def forward(self, z: Tensor, source: Tensor | None, level: Level) -> Tensor:
        """The blurry image x_hat, about [-1, 1].

        `source` (B, 2, 32, 32) are the warp's source points, None for no warp; `level` is that of the
        segmentation head.
        """
        features = self.up(self.project(z).unflatten(1, (-1, 4, 4)))
        if source is not None:
            half = features.shape[1] // 2
            grid = source.permute(0, 2, 3, 1)
            moved = F.grid_sample(features[:, :half].to(grid.dtype), grid, align_corners=False)
            features = torch.cat([moved.to(features.dtype), features[:, half:]], dim=1)
        image = self.last(self.out(features)).float()
        if self.tones is not None and source is not None:
            layers = self.tones(z).float().unflatten(1, self.layers_shape)
            image = image + resized(join(layers, source.float(), level), image.shape[-1])
        return resized(image, self.image_size)


def resized(image: Tensor, side: int) -> Tensor:
    """Images (B, C, S, S) at the side `side`, bilinear and antialiased."""
    smaller = side < image.shape[-1]
    return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False, antialias=smaller)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(gcd(4, outputs), outputs), nn.LeakyReLU(0.1)
    )


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(up, *_block(inputs, outputs))
