"""Sections 3.2-3.3: the segmentation head warps the reference, the image head half of its channels."""

from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import ModelConfig
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

    def forward(self, source: Tensor) -> Tensor:
        """Soft mask (B, h, w) in (0, 1) from source points (B, 2, h, w): 0.5 on the object's boundary."""
        return torch.sigmoid(self.level(source) / self.edge)


class ImageHead(nn.Module):
    """Section 3.3: z (B, Z), half of its channels warped at 32 x 32 -> image (B, C, S, S).

    Beyond the paper, with `config.decoder.tones`, two coarse images that are linear in z are added, one of
    them warped: the group norms between z and the result erase the mean and contrast of each image.
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
        tones = config.decoder.tones
        self.tones = nn.Linear(config.z_dim, 2 * config.channels * tones**2) if tones else None
        self.tones_shape = (2, config.channels, tones, tones)

    def forward(self, z: Tensor, grid: Tensor | None) -> Tensor:
        """The blurry image x_hat, about [-1, 1]; `grid` (B, 32, 32, 2) is the warp's, None for no warp."""
        features = self.up(self.project(z).unflatten(1, (-1, 4, 4)))
        if grid is not None:
            half = features.shape[1] // 2
            moved = F.grid_sample(features[:, :half].to(grid.dtype), grid, align_corners=False)
            features = torch.cat([moved.to(features.dtype), features[:, half:]], dim=1)
        image = self.last(self.out(features)).float()
        if self.tones is not None:
            image = image + _resized(self._coarse(self.tones(z), grid), image.shape[-1])
        return _resized(image, self.image_size)

    def _coarse(self, tones: Tensor, grid: Tensor | None) -> Tensor:
        """The sum (B, C, 32, 32) of the two coarse images, the first one warped."""
        moved, still = tones.float().unflatten(1, self.tones_shape).unbind(1)
        if grid is None:
            return _resized(moved + still, FEATURE_SIZE)
        return F.grid_sample(moved, grid.float(), align_corners=False) + _resized(still, FEATURE_SIZE)


def _resized(image: Tensor, side: int) -> Tensor:
    return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(gcd(4, outputs), outputs), nn.LeakyReLU(0.1)
    )


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(up, *_block(inputs, outputs))
