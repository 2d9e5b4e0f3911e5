"""Equation 10: the object of a position code, as a mask and as an exact outline, at any size.

`theta` is a float32 (P,) position code, `size` the image's (h, w), and `pose` float64 (2, 3) the user's edit
(see `editing.LatentCode`). The model must have a warp: a single-headed VAE cannot find objects.
"""

import numpy as np
import torch

from .contour import contours, ellipse
from .model import MultiHeadedVAE
from .raster import Level, rasterise
from .warp import RADIUS


def mask(
    model: MultiHeadedVAE, theta: np.ndarray, size: tuple[int, int], pose: np.ndarray | None = None
) -> np.ndarray:
    """The mask bool (h, w), evaluated at that size, not resized."""
    return rasterise(_level(model, theta, pose), size)


def outline(
    model: MultiHeadedVAE, theta: np.ndarray, size: tuple[int, int], pose: np.ndarray | None = None
) -> list[np.ndarray]:
    """The exact outline: closed polygons float64 (n, 2) xy in pixels, in the frame 0..w by 0..h.

    Pixel centres are at +0.5; outer rings have a positive shoelace area, holes a negative one.
    """
    level = _level(model, theta, pose)
    # A small object may lie between the nodes of the coarse grid.
    polygons = _ellipse(model, theta, pose) or contours(level) or contours(level, cells=512)
    return [(polygon + 1) / 2 * [size[1], size[0]] for polygon in polygons]


def _level(model: MultiHeadedVAE, theta: np.ndarray, pose: np.ndarray | None) -> Level:
    level = model.level_of(torch.from_numpy(theta)[None])
    return level if pose is None else lambda points: level(points @ pose[:, :2].T + pose[:, 2])


def _ellipse(model: MultiHeadedVAE, theta: np.ndarray, pose: np.ndarray | None) -> list[np.ndarray]:
    """The outline in closed form, for an affine warp of the disc; empty for any other."""
    warp = model.warp
    if warp is None or warp.points is not None or model.segmentation_head.reference is not None:
        return []
    matrix = warp.parameters_of(torch.from_numpy(theta)[None].to(warp.identity))[0].cpu().double().numpy()
    if pose is not None:
        matrix = matrix @ np.concatenate([pose, [[0, 0, 1]]])
    return ellipse(matrix, RADIUS)
