"""Section 3.4 and appendix A: log-cosh reconstruction, soft Dice, contour distance, and KL warm-up."""

import math

import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 10.0
"""log-cosh is quadratic below and linear above an error of 1 / SHARPNESS (a in Chen et al. 2019)."""

COARSE = (1, 8, 32)
"""Sides in pixels of the thumbnails that `coarse_miss` compares."""


def log_cosh(recon: Tensor, image: Tensor) -> Tensor:
    """Mean over pixels of log(cosh(a d)) / a, per sample (B,); stable for any d."""
    d = SHARPNESS * (recon - image)
    return ((d + F.softplus(-2 * d) - math.log(2.0)) / SHARPNESS).flatten(1).mean(1)


def coarse_miss(recon: Tensor, image: Tensor) -> Tensor:
    """Mean squared error of thumbnails of COARSE pixels per side, per sample (B,), of (B, C, S, S).

    `log_cosh` is close to the absolute error, which the median of speckle minimises: the mean tone gets lost.
    """
    total = sum(
        (F.adaptive_avg_pool2d(recon, side) - F.adaptive_avg_pool2d(image, side)).square().flatten(1).mean(1)
        for side in COARSE
    )
    assert isinstance(total, Tensor)
    return total


def soft_dice(mask_pred: Tensor, mask: Tensor) -> Tensor:
    """Dice of a soft (B, h, w) prediction in [0, 1] and the true mask, per sample (B,); 1 is perfect."""
    overlap = (mask_pred * mask).flatten(1).sum(1)
    total = mask_pred.flatten(1).sum(1) + mask.flatten(1).sum(1)
    return (2 * overlap + 1) / (total + 1)


def contour_miss(level: Tensor, slope: Tensor, weight: Tensor) -> Tensor:
    """Mean saturated squared distance from the true contour to the warp's, per sample (B,), in [0, 1).

    `level` (B, N) is the reference's signed distance at the sources of N points of the true contour, `slope`
    (B, 2, N) its gradient there in the image: level / |slope| is the distance in the image to first order
    (Sampson). Without the slope a warp could reduce the level by squeezing everything onto the rim. Half an
    image side (a distance of 1) gives 0.5. `weight` (B, N) is 0 where the image's border cuts the object.
    """
    squared = level.square() / (slope.square().sum(1) + 1e-3)
    return (squared / (squared + 1) * weight).sum(1) / weight.sum(1).clamp_min(1)


def warmup(progress: float, share: float) -> float:
    """The factor of the KL weights at `progress` (0-1) of the run: linear from 0 to 1 over `share` of it."""
    return 1.0 if share <= 0 else min(1.0, progress / share)
