"""Test-time augmentation of section 3.2's theta: the mean over an image and its three mirror images.

The disc is symmetric, so a warp followed by any rotation or reflection of the disc gives the same mask:
thetas are averaged only after that rotation is removed (`aligned`).
"""

import numpy as np
import torch
from torch import Tensor

from .model import MultiHeadedVAE
from .warp import RADIUS, Warp

FLIPS = ((-1, 1), (1, -1), (-1, -1))
"""The signs (x, y) of the three reflections."""


def average_theta(model: MultiHeadedVAE, image: Tensor, theta: Tensor) -> Tensor:
    """The mean of theta (B, P), the one of each image (B, C, S, S), and those of its mirror images.

    The model's reference must be the disc.
    """
    warp, found = model.warp, [theta]
    assert warp is not None
    for signs in FLIPS:
        axes = [axis for axis, sign in zip((3, 2), signs, strict=True) if sign < 0]
        seen = model.locate(image.flip(axes)).mean
        found.append(aligned(warp, unflipped(warp, seen, signs), theta))
    return torch.stack(found).mean(0)


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
        # The columns of x and y, whose spread over the object is RADIUS to the constant's 1.
        weights[:2] = RADIUS
    u, _, v = torch.linalg.svd(goal * weights**2 @ parameters.mT)
    return warp.theta_of(u @ v @ parameters)
