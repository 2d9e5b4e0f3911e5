"""Section 3.2: theta of a mirrored image brought back, so that several sights of one image can be averaged.

The disc is the same from every side, so a warp followed by any turn or mirroring of the disc gives the same
mask: thetas are averaged only after that turn is taken out (`aligned`).
"""

import numpy as np
import torch
from torch import Tensor

from .warp import RADIUS, Warp

FLIPS = ((-1, 1), (1, -1), (-1, -1))
"""The signs (x, y) of the three mirrorings."""


def unflipped(warp: Warp, theta: Tensor, signs: tuple[int, int]) -> Tensor:
    """theta (B, P) of images mirrored by `signs`, as of the images themselves: of mirrored masks."""
    flip = torch.tensor(signs, dtype=theta.dtype, device=theta.device)
    parameters = warp.parameters_of(theta)
    if warp.points is None:
        moved = parameters * torch.cat([flip, flip.new_ones(1)])
    else:  # both layouts of control points are their own mirror images
        order = ((warp.points[:, None] * signs - warp.points) ** 2).sum(-1).argmin(1)
        moved = parameters[:, :, torch.from_numpy(np.asarray(order)).to(theta.device)]
    return warp.theta_of(moved * flip[:, None])


def aligned(warp: Warp, theta: Tensor, to: Tensor) -> Tensor:
    """theta (B, P), the disc turned or mirrored so that its sources lie nearest to those of `to` (B, P)."""
    parameters, goal = warp.parameters_of(theta), warp.parameters_of(to)
    weights = parameters.new_ones(parameters.shape[-1])
    if warp.points is None:
        weights[:2] = RADIUS  # of where the object is, x and y have this spread beside the constant 1
    u, _, v = torch.linalg.svd(goal * weights**2 @ parameters.mT)
    return warp.theta_of(u @ v @ parameters)
