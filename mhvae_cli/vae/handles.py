"""Section 3.2: edit a spline's position code by moving handles, which are points of the outline.

Handle k is the point of the image whose source is point k of the reference's rim: for the disc, the one at
the angle 2 pi k / 20, starting at the right and visually clockwise. Handles are in native pixels of the
edited image (xy, the frame 0..w by 0..h); they may be outside the image.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from ..errors import InputError, ModelError, UsageError
from .contour import contours
from .decoder import SegmentationHead
from .editing import HANDLES, LatentCode
from .model import MultiHeadedVAE
from .newton import Map, derivatives
from .warp import RADIUS, Warp

BETWEEN = 4
"""Points of the outline per handle that constrain it: with the handles alone it would sway between them."""
WEIGHTS = {"handle": 1.0, "between": 0.03, "along": 1e-4}
"""Weights of squared distances: across the rim, at a handle or between, and along it, which hardly shows."""
RIDGES = (1e-4, 1e-5, 1e-6, 1e-7)
"""Weights of the squared change of theta, in standard deviations; tried in turn until `NEAR` is met."""
NEAR = 0.25
"""A distance in pixels between the outline and the handles that counts as zero."""


def handles(model: MultiHeadedVAE, code: LatentCode) -> np.ndarray:
    """The positions of a latent code's 20 handles, float64 (20, 2).

    Raises UsageError for an affine model, InputError if the outline is folded over itself.
    """
    warp = _spline(model)
    return _to_pixels(_inverse(_sources(warp, code.theta), _rim(model.segmentation_head, HANDLES)), code)


def move_handles(
    model: MultiHeadedVAE, code: LatentCode, moves: Mapping[int, tuple[float, float]]
) -> tuple[LatentCode, float]:
    """The latent code with handle k moved by `moves[k]`, (x, y) pixels, and the other handles kept in place.

    The outline passes through all handles as closely as the spline can bend: the second value is its largest
    distance from one, in pixels. A small object far from the control points is stiff. theta changes no more
    than necessary, so handles may slide along the outline.
    Raises UsageError for an affine model, a handle that is not 0 to 19, or a move that is not finite;
    InputError if the outline is folded over itself, or would be.
    """
    warp, head = _spline(model), model.segmentation_head
    by = np.zeros((HANDLES, 2))
    for number, move in moves.items():
        if not 0 <= number < HANDLES:
            raise UsageError(f"no handle {number}", hint=f"handles are numbered 0 to {HANDLES - 1}")
        if not np.isfinite(move).all():
            raise UsageError(f"handle {number}: the move {move[0]},{move[1]} is not finite")
        by[number] = move
    rim = _rim(head, HANDLES * BETWEEN)
    found = _inverse(_sources(warp, code.theta), rim)
    outline = _to_pixels(found, code) + _spread(by)
    _, inward = _distances(warp, head, code, _to_pixels(found, code))
    best, off = code, np.inf
    for ridge in RIDGES:
        theta = _fitted(warp, head, code.theta, _from_pixels(outline, code), rim, ridge)
        tried = replace(code, theta=theta.astype(np.float32))
        away, slopes = _distances(warp, head, tried, outline)
        folded = ((slopes * inward).sum(1) <= 0).any()  # a point may end up on the rim of a new hole
        # A weaker ridge must at least halve the distance: otherwise theta would change a lot for little.
        if not folded and away[::BETWEEN].max() < off / 2:
            best, off = tried, float(away[::BETWEEN].max())
        if off <= NEAR:
            break
    if best is code:
        raise InputError(
            "the handles cannot be moved that far: the outline would fold over itself",
            hint="move them less, or move their neighbours too",
        )
    return best, off


def _spline(model: MultiHeadedVAE) -> Warp:
    if model.warp is None:
        raise ModelError("a single-headed VAE cannot find objects")
    if model.warp.points is None:
        raise UsageError("an affine model has no handles", hint="use --rotate, --scale, --shift")
    return model.warp


def _sources(warp: Warp, theta: np.ndarray) -> Map:
    """The warp of theta (P,), which maps image points to reference points, both in [-1, 1]."""
    at = torch.from_numpy(theta).to(warp.identity)[None]
    parameters = warp.parameters_of(at)[0].cpu().double().numpy()
    return lambda points: warp.sources(points, parameters)


def _level(head: SegmentationHead) -> Map:
    """The signed distance (N,) of source points to the reference's rim, positive inside."""
    return lambda points: head.level(torch.from_numpy(points.T.copy())[None, :, None])[0, 0].numpy()


def _rim(head: SegmentationHead, count: int) -> np.ndarray:
    """`count` evenly spaced points on the reference's rim, starting at the right, visually clockwise."""
    if head.reference is None:
        angles = 2 * np.pi * np.arange(count) / count
        return RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ring = max(contours(_level(head)), key=len)
    x, y = (ring - ring.mean(0)).T
    ring = np.roll(ring, -np.abs(np.arctan2(y, x)).argmin(), axis=0)
    ring = np.concatenate([ring, ring[:1]])
    length = np.concatenate([[0], np.linalg.norm(np.diff(ring, axis=0), axis=1).cumsum()])
    places = length[-1] * np.arange(count) / count
    return np.stack([np.interp(places, length, axis) for axis in ring.T], axis=1)


def _inverse(sources: Map, rim: np.ndarray) -> np.ndarray:
    """The image points (N, 2) in [-1, 1] whose sources are `rim` (N, 2); InputError if one has none.

    Newton's method, continued from the point whose source is the rim's centroid outward along the rays to the
    rim: where the warp folds, that stays on the object's own side. A ray that meets a fold is restarted from
    the nearest point of a mesh.
    """
    ticks = np.linspace(-1.5, 1.5, 61)
    mesh = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    at_mesh = sources(mesh)
    middle = rim.mean(0)
    found = np.repeat(mesh[((at_mesh - middle) ** 2).sum(1).argmin()][None], len(rim), axis=0)
    for share in np.linspace(0, 1, 9):
        found, error = _newton(sources, found, middle + share * (rim - middle))
    lost = np.flatnonzero(error > 1e-8)
    if lost.size:
        nearest = ((at_mesh[None] - rim[lost, None]) ** 2).sum(-1).argmin(1)
        found[lost], error[lost] = _newton(sources, mesh[nearest], rim[lost])
    if (error > 1e-8).any():
        raise InputError("the object's outline is folded over itself, so its handles are ambiguous")
    return found


def _newton(sources: Map, points: np.ndarray, goals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots (N, 2) of sources(p) = goals near `points`, and their distances from the goals (N,)."""
    gap = sources(points) - goals
    for _ in range(30):
        if np.abs(gap).max() < 1e-11:
            break
        slope = derivatives(sources, points)
        transposed = slope.transpose(0, 2, 1)
        step = transposed @ np.linalg.solve(slope @ transposed + 1e-12 * np.eye(2), gap[..., None])
        # Line search: halve each point's step until it reduces that point's distance.
        size = np.ones(len(points))
        for _ in range(12):
            tried = points - size[:, None] * step[..., 0]
            left = sources(tried) - goals
            worse = (left**2).sum(1) > (gap**2).sum(1).clip(1e-24)
            if not worse.any():
                break
            size[worse] /= 2
        points, gap = np.where(worse[:, None], points, tried), np.where(worse[:, None], gap, left)
    return points, np.linalg.norm(gap, axis=1)


def _spread(by: np.ndarray) -> np.ndarray:
    """The handles' moves (20, 2), interpolated smoothly to the points between them: (20 BETWEEN, 2)."""
    share = np.sin(np.pi / 2 * np.arange(BETWEEN) / BETWEEN)[:, None] ** 2
    points: np.ndarray = (by[:, None] * (1 - share) + np.roll(by, -1, axis=0)[:, None] * share).reshape(-1, 2)
    return points


def _fitted(
    warp: Warp, head: SegmentationHead, theta: np.ndarray, points: np.ndarray, rim: np.ndarray, ridge: float
) -> np.ndarray:
    """The theta (P,) closest to `theta` whose warp maps image points (N, 2) onto the rim.

    Iterated least squares, linear in theta, towards each point's last projection on the rim (first `rim`).
    """
    modes = warp.modes.cpu().double().numpy().reshape(2, warp.parameters_per_axis, -1)
    per_theta = np.einsum("nm,amp->nap", warp.basis(points), modes)
    start = _sources(warp, theta)(points)
    level = _level(head)
    handle = np.arange(len(points)) % BETWEEN == 0
    firmness = np.sqrt(np.where(handle, WEIGHTS["handle"], WEIGHTS["between"]))
    goals = rim
    for _ in range(4):
        across = derivatives(level, goals)
        across /= np.linalg.norm(across, axis=1, keepdims=True).clip(1e-9)
        along = across[:, ::-1] * [-1, 1]
        normals = np.concatenate([across * firmness[:, None], along * WEIGHTS["along"] ** 0.5])
        rows = np.einsum("na,nap->np", normals, np.concatenate([per_theta, per_theta]))
        gaps = (normals * np.concatenate([goals - start, rim - start])).sum(1)
        change = np.linalg.solve(rows.T @ rows + ridge * np.eye(len(theta)), rows.T @ gaps)
        landed = start + per_theta @ change
        inward = derivatives(level, landed)
        goals = landed - (level(landed) / (inward**2).sum(1).clip(1e-9))[:, None] * inward
    return theta + change


def _distances(
    warp: Warp, head: SegmentationHead, code: LatentCode, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The outline's distance from pixel points (N, 2), in pixels (N,), to first order.

    Also returns the level's gradient at the points, (N, 2), which points into the object.
    """
    level, sources = _level(head), _sources(warp, code.theta)

    def at(pixels: np.ndarray) -> np.ndarray:
        return level(sources(_from_pixels(pixels, code)))

    slopes = derivatives(at, points, step=1e-4)
    return np.abs(at(points)) / np.linalg.norm(slopes, axis=1).clip(1e-9), slopes


def _from_pixels(points: np.ndarray, code: LatentCode) -> np.ndarray:
    """Points of the edited image in pixels -> of the unedited one in [-1, 1]."""
    units = points * 2 / [code.size[1], code.size[0]] - 1
    return units if code.pose is None else units @ code.pose[:, :2].T + code.pose[:, 2]


def _to_pixels(points: np.ndarray, code: LatentCode) -> np.ndarray:
    """The inverse of `_from_pixels`."""
    if code.pose is not None:
        points = np.linalg.solve(code.pose[:, :2], (points - code.pose[:, 2]).T).T
    return (points + 1) / 2 * [code.size[1], code.size[0]]
