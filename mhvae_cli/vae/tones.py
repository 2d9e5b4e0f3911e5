"""Beyond the paper: an image as two coarse layers, the object in the reference's frame and the ground.

The style head sees only these layers, so that the style code holds nothing of the position, and the image
head joins them again by the warp. Both are linear in z. Without them an image's mean, contrast and colours
are lost: the image head's group norms erase them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .warp import pixel_centres

SEEN_SIZE = 64
"""Side in pixels of the image that the layers are sampled from."""
EDGE = 0.04
"""Softness of the object's rim between the layers, in reference units."""
MARGIN = 0.05
"""How far beyond the rim the object's layer is taken from the image, in reference units."""
SPREADS = (0.1, 0.35)
"""Standard deviations, in [-1, 1] units, of the blurs that fill what a layer does not see: near, far."""
LEAST = 1e-3
"""Least weight of a pixel in a layer, and least determinant of a warp that is inverted."""

Level = Callable[[Tensor], Tensor]


def split(image: Tensor, affine: Tensor, source: Tensor, level: Level, side: int) -> Tensor:
    """The layers (B, 2, C, side, side) of an image (B, C, S, S): the object, then the ground.

    `affine` (B, 2, 3) is the warp's affine part (`Warp.affine_part`), `source` (B, 2, side, side) its source
    points, `level` that of the segmentation head. Each layer is filled smoothly where it is not visible.
    """
    seen = F.adaptive_avg_pool2d(image.float(), min(SEEN_SIZE, image.shape[-1]))
    grid = F.affine_grid(_inverse(affine), [len(image), 1, side, side], align_corners=False)
    frame = torch.from_numpy(pixel_centres((side, side)).T.copy()).view(1, 2, side, side).to(grid)
    visible = (grid.abs() <= 1).all(-1)
    inside = torch.sigmoid((level(frame) + MARGIN) / EDGE) * visible
    outside = torch.sigmoid(-(level(source.float()) + MARGIN / 2) / EDGE)
    moved = F.grid_sample(seen, grid, padding_mode="border", align_corners=False)
    return torch.stack([_filled(moved, inside), _filled(F.adaptive_avg_pool2d(seen, side), outside)], dim=1)


def join(layers: Tensor, source: Tensor, level: Level) -> Tensor:
    """The image (B, C, h, w) of layers (B, 2, C, t, t), seen through source points (B, 2, h, w)."""
    moved, ground = layers.unbind(1)
    with torch.autocast(layers.device.type, enabled=False):
        grid = source.permute(0, 2, 3, 1)
        object_ = F.grid_sample(moved, grid, padding_mode="border", align_corners=False)
        behind = F.interpolate(ground, size=source.shape[2:], mode="bilinear", align_corners=False)
        return torch.lerp(behind, object_, torch.sigmoid(level(source) / EDGE)[:, None])


def _inverse(affine: Tensor) -> Tensor:
    """The inverse (B, 2, 3) of affines; near-singular ones are kept finite."""
    (a, b), (c, d) = (row.unbind(1) for row in affine[:, :, :2].unbind(1))
    determinant = a * d - b * c
    sign = (determinant >= 0).to(determinant) * 2 - 1
    determinant = sign * determinant.abs().clamp_min(LEAST)
    turned = torch.stack([torch.stack([d, -b], 1), torch.stack([-c, a], 1)], 1) / determinant[:, None, None]
    return torch.cat([turned, -turned @ affine[:, :, 2:]], dim=2)


def _filled(layer: Tensor, weight: Tensor) -> Tensor:
    """A layer (B, C, t, t), blended by the known share `weight` (B, t, t) with blurs of what is known."""
    known = weight[:, None].clamp_min(LEAST)
    ticks = (2 * torch.arange(layer.shape[-1]).to(layer.device) + 1) / layer.shape[-1] - 1
    near, far = (torch.exp(-((ticks[:, None] - ticks) ** 2) / (2 * sd**2)) for sd in SPREADS)
    close = near @ known @ near
    share = (4 * close / near.sum(0) / near.sum(1)[:, None]).clamp(max=1)
    distant = (far @ (known * layer) @ far) / (far @ known @ far)
    blurred = torch.lerp(distant, (near @ (known * layer) @ near) / close, share)
    return torch.lerp(blurred, layer, weight[:, None])
