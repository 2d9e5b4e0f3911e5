"""Beyond section 3.2: the outline that theta gives is moved to the boundary that the image shows.

Theta comes from a coarse map of the whole image. The boundary head looks at the encoder's fine maps and the
image itself along the outline's normals, and says how far the boundary lies from the outline, and how sure
that is; theta is then refitted, which keeps the object one warped disc.

`theta` is float32 (B, P), points are xy, an image spans [-1, 1] edge to edge, y down. The reference must be
the disc. There are POINTS points on an outline, equally spaced along the disc's rim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .newton import trace_back
from .warp import RADIUS, Warp

POINTS = 64
ANGLES = 2 * np.pi * np.arange(POINTS) / POINTS
RIM = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
"""The points of the disc's rim (POINTS, 2)."""
OFFSETS, STEP = 13, 0.03
"""At each point the maps are sampled at so many offsets along the normal, and their distance."""
REDUCED, HIDDEN = 24, 48
DILATIONS = (1, 2, 4, 6)
FARTHEST = 0.25
"""The largest distance of the boundary that is learnt."""
STIFFNESS = 6e-5
"""How strongly theta is held where it was, as a weight of its squared change beside the mean squared distance
in reference units. Chosen on validation images of lesions: with less, more of the warps fold; with five times
as much, the Dice is lower."""
MIN_FOUND = 0.75
"""Theta stays as it is if less of its outline can be traced, since the warp folds."""
NUDGES = 17
"""Standard normal numbers per sample that move the outlines in training."""


@dataclass(frozen=True)
class Outlines:
    """Points on the outlines of a batch of thetas, and their outward unit normals: float64 (B, POINTS, 2).

    `slope` (B, POINTS) is how fast the distance from the reference's centre grows along the normal; `found`
    bool (B, POINTS), where the point is on the outline.
    """

    points: np.ndarray
    normals: np.ndarray
    slope: np.ndarray
    found: np.ndarray


class BoundaryHead(nn.Module):
    """From `channels` channels, of the encoder's maps and the image, to the distance of the boundary.

    Circular convolutions along the outline compare what its points see.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(channels, REDUCED)
        self.enter = nn.Conv1d(REDUCED * OFFSETS, HIDDEN, 1)
        self.blocks = nn.ModuleList(
            nn.Conv1d(HIDDEN, HIDDEN, 5, padding=2 * d, dilation=d, padding_mode="circular")
            for d in DILATIONS
        )
        self.leave = nn.Conv1d(HIDDEN, 2, 1)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, maps: Sequence[Tensor], points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """The signed distance outward from each point to the boundary, and the log of its expected error,
        both (B, K), at `points` (B, K, 2) with unit `normals`; `maps` are (B, C, h, w) of any size."""
        offsets = STEP * (torch.arange(OFFSETS, device=points.device) - OFFSETS // 2)
        grid = points[:, :, None] + offsets[:, None] * normals[:, :, None]
        seen = torch.cat([_sampled(each, grid) for each in maps], dim=1).permute(0, 2, 3, 1)
        y = F.relu(self.reduce(F.layer_norm(seen, seen.shape[2:]))).flatten(2).transpose(1, 2)
        y = F.relu(self.enter(y))
        for block in self.blocks:
            y = y + F.relu(block(y))
        distance, log_error = self.leave(y).unbind(1)
        return 0.1 * distance, (log_error - 3).clamp(-6, 0)


def outlines(warp: Warp, theta: Tensor) -> Outlines:
    """The outlines of thetas: the rim's points are traced back through the warp by Newton's method, from the
    affine map that is nearest to it."""
    parameters = warp.parameters_of(theta.detach().float()).cpu().double()
    affine = warp.affine_part(parameters).numpy()
    linear, sides = affine[:, :, :2], np.linalg.det(affine[:, :, :2])
    linear = np.where(np.abs(sides)[:, None, None] > 1e-9, linear, np.eye(2))
    guesses = np.linalg.solve(linear, RIM.T - affine[:, :, 2:]).swapaxes(1, 2)
    evaluate = partial(_sources, warp, parameters.numpy())
    points, missed, slopes = trace_back(evaluate, guesses, np.broadcast_to(RIM, guesses.shape))
    outward = np.einsum("bkij,ki->bkj", slopes, RIM / RADIUS)
    slope = np.linalg.norm(outward, axis=2).clip(1e-6)
    found = (missed < 1e-3) & (np.linalg.det(slopes) * sides[:, None] > 0)
    return Outlines(points, outward / slope[..., None], slope, found)


def refitted(warp: Warp, theta: Tensor, found: Outlines, distance: Tensor, log_error: Tensor) -> Tensor:
    """The thetas whose outlines go through the boundary: a weighted ridge regression, linear in theta.

    A point on the old outline moves along its normal by `distance` (B, POINTS), with the weight of its
    expected error, and along the outline freely.
    """
    parameters = warp.parameters_of(theta.detach().float()).cpu().double().numpy()
    moved = found.points + distance.detach().cpu().double().numpy()[..., None] * found.normals
    m = warp.parameters_per_axis
    modes = warp.modes.cpu().double().numpy()
    basis = warp.basis(moved.reshape(-1, 2)).reshape(*moved.shape[:2], m)
    source = np.einsum("bkm,bam->bka", basis, parameters)
    direction = RIM / RADIUS
    radial = direction[:, :1] * (basis @ modes[:m]) + direction[:, 1:] * (basis @ modes[m:])
    missed = RADIUS - np.einsum("bka,ka->bk", source, direction)
    weight = found.found * np.exp(-2 * log_error.detach().cpu().double().numpy()) / found.slope**2
    weight /= weight.mean(1, keepdims=True).clip(1e-300)
    normal = np.einsum("bkp,bk,bkq->bpq", radial, weight, radial) / POINTS
    right = np.einsum("bkp,bk,bk->bp", radial, weight, missed) / POINTS
    change = np.linalg.solve(normal + STIFFNESS * np.eye(radial.shape[2]), right[..., None])[..., 0]
    change = np.where(found.found.mean(1, keepdims=True) >= MIN_FOUND, change, 0.0)
    return theta + torch.from_numpy(change).to(theta)


def relative_error(found: Outlines, log_error: Tensor) -> Tensor:
    """The logarithm (B,) of the mean expected error over the object's radius: a root mean square."""
    spread = found.points - found.points.mean(1, keepdims=True)
    radius = np.sqrt((spread**2).sum(2).mean(1)).clip(1e-6)
    return log_error.exp().mean(1).log() - torch.from_numpy(np.log(radius)).to(log_error)


def nudged(found: Outlines, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Points and normals, float32 (B, POINTS, 2), of outlines that are wrong at random by NUDGES standard
    normal `numbers` (B, NUDGES): scaled, shifted and dented, more or less."""
    points, normals = (torch.from_numpy(each).float() for each in (found.points, found.normals))
    size, scale, shift, waves = numbers.split([1, 2, 2, 12], dim=1)
    size = 0.6 * size.abs()[..., None]
    centre = points.mean(1, keepdim=True)
    orders = torch.arange(2, 8)
    angles = orders[:, None] * torch.from_numpy(ANGLES).float()
    heights = 0.02 * waves.unflatten(1, (2, 6)) / (orders / 2).sqrt()
    dents = heights[:, 0] @ angles.cos() + heights[:, 1] @ angles.sin()
    moved = centre + (points - centre) * (1 + 0.05 * size * scale[:, None]) + 0.03 * size * shift[:, None]
    moved = moved + size * dents[..., None] * normals
    along = moved.roll(-1, 1) - moved.roll(1, 1)
    turned = torch.stack([along[..., 1], -along[..., 0]], dim=-1)
    turned = turned * (turned * normals).sum(-1, keepdim=True).sign()
    return moved, F.normalize(turned, dim=-1)


def true_distance(mask: Tensor, points: Tensor, normals: Tensor) -> Tensor:
    """The signed distance (B, K) outward along the normals to the nearest boundary of a mask (B, S, S) in
    [0, 1], at most FARTHEST; where there is none, FARTHEST inside and -FARTHEST outside."""
    ticks = torch.linspace(-FARTHEST, FARTHEST, 51, device=points.device)
    grid = points[:, :, None] + ticks[:, None] * normals[:, :, None]
    values = _sampled(mask[:, None].to(points), grid)[:, 0] - 0.5
    here, beyond = values[..., :-1], values[..., 1:]
    crossed = (here > 0) & (beyond <= 0)
    share = here / (here - beyond).clamp_min(1e-6)
    where = ticks[:-1] + share * (ticks[1] - ticks[0])
    nearest = torch.where(crossed, where.abs(), torch.inf).argmin(2, keepdim=True)
    none = torch.where(values[..., 25] > 0, FARTHEST, -FARTHEST)
    return torch.where(crossed.any(2), where.gather(2, nearest)[..., 0], none)


def boundary_miss(distance: Tensor, log_error: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The negative log-likelihood (B,) of true distances `target` (B, K) under Laplace distributions, less a
    constant; `weight` (B, K) is 0 where the boundary is not known."""
    miss = (distance - target).abs() * torch.exp(-log_error) + log_error
    return (miss * weight).sum(1) / weight.sum(1).clamp_min(1)


def _sampled(values: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(values.to(grid.dtype), grid, align_corners=False, padding_mode="border")


def _sources(warp: Warp, parameters: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The source points (B, K, 2) of points (B, K, 2), and the warp's derivatives there (B, K, 2, 2)."""
    step = 1e-6
    right, down = step * np.eye(2)
    three = np.stack([points, points + right, points + down])
    basis = warp.basis(three.reshape(-1, 2)).reshape(*three.shape[:3], -1)
    here, *beside = np.einsum("sbkm,bam->sbka", basis, parameters)
    return here, np.stack([each - here for each in beside], axis=-1) / step
