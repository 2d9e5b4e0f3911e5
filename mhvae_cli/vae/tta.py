"""Section 3.2: theta of a mirrored image mapped back, to average over several views of one image.

The disc is symmetric, so a warp followed by any rotation or reflection of the disc gives the same mask:
thetas are averaged only after that rotation is removed (`aligned`).
"""

import numpy as np
import torch
from torch import Tensor

from .warp import RADIUS, Warp

FLIPS = ((-1, 1), (1, -1), (-1, -1))
"""The signs (x, y) of the three reflections."""


def unflipped(warp: Warp, theta: Tensor, signs: tuple[int, int]) -> Tensor:
    """theta (B, P) of images mirrored by `signs` -> theta (B, P) of the original images."""
    flip = torch.tensor(signs, dtype=theta.dtype, device=theta.device)
    parameters = warp.parameters_of(theta)
    if warp.points is None:
        moved = parameters * torch.cat([flip, flip.new_ones(1)])
    else:  # both layouts of control points are their own mirror images
        order = ((warp.points[:, None] * signs - warp.points) ** 2).sum(-1).argmin(1)
        moved = parameters[:, :, torch.from_numpy(np.asarray(order)).to(theta.device)]
    return warp.theta_of(moved * flip[:, None])


def aligned(warp: Warp, theta: Tensor, to: Tensor) -> Tensor:
    """theta (B, P) with the disc rotated or reflected so that its sources are closest to those of `to`.

    The orthogonal Procrustes problem, solved by a singular value decomposition.
    """
    parameters, goal = warp.parameters_of(theta), warp.parameters_of(to)
    weights = parameters.new_ones(parameters.shape[-1])
    if warp.points is None:
        weights[:2] = (
            RADIUS  # the columns of x and y, whose spread over the object is RADIUS to the constant's 1
        )
    u, _, v = torch.linalg.svd(goal * weights**2 @ parameters.mT)
    return warp.theta_of(u @ v @ parameters)
