"""Warps of every family, their codes, and the masks they give."""

import numpy as np
import torch

from mhvae_cli.config import WarpConfig
from mhvae_cli.vae.decoder import SegmentationHead
from mhvae_cli.vae.warp import Warp, pixel_centres

LAYOUTS = ("circular", "uniform")
FAMILIES = [WarpConfig("affine"), *(WarpConfig("tps", points) for points in LAYOUTS)]


def theta_of_affine(warp: Warp, matrix: np.ndarray) -> torch.Tensor:
    """The code under which `warp` is the affine map `matrix` (2, 3)."""
    if warp.points is None:
        parameters = torch.tensor(matrix)
    else:
        parameters = torch.tensor((warp.points @ matrix[:, :2].T + matrix[:, 2]).T)
    return warp.theta_of(parameters.to(warp.loc)[None])


def random_theta(warp: Warp, spread: float, count: int = 1) -> torch.Tensor:
    rng = torch.Generator().manual_seed(warp.theta_dim)
    return spread * torch.randn(count, warp.theta_dim, generator=rng, dtype=warp.loc.dtype)


def mask_of(
    warp: Warp, theta: torch.Tensor, size: tuple[int, int], pose: torch.Tensor | None = None
) -> np.ndarray:
    return (SegmentationHead(0.02, 0).level(warp(theta, size, pose))[0] >= 0).numpy()


def moments(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (2,) and covariance (2, 2) in [-1, 1] xy, of the pixels' centres."""
    h, w = mask.shape
    points = pixel_centres((h, w))[mask.ravel()]
    return points.mean(0), np.cov(points.T, bias=True)
