"""Which point of a source image each point of an edited image shows: one warp after the inverse of the other.

Both images' warps map their points to the reference, so a point p of the target corresponds to the point
D_source^-1(D_target(p)) of the source. Points are xy, an image spans [-1, 1] edge to edge, y down.
"""

import numpy as np
import torch

from .editing import LatentCode
from .newton import Map, derivatives, trace_back
from .warp import Warp

MESH = np.linspace(-1.5, 1.5, 61)
"""Ticks of the mesh from which a spline is inverted: objects may extend beyond the image."""
NEAR = 1e-6
"""Largest distance in the reference at which a point counts as found."""


def correspondence(warp: Warp, source: LatentCode, target: LatentCode) -> Map:
    """The map from points (N, 2) float64 of `target` to the points of `source` that show the same part of the
    object.

    Exact for edits by a pose alone and for affine warps. Splines are inverted by Newton's method; the map is
    NaN where they fold.
    """
    if np.array_equal(source.theta, target.theta):
        return _linear(np.linalg.inv(_square(source.pose)) @ _square(target.pose))
    if warp.points is None:
        return _linear(np.linalg.inv(_affine(warp, source)) @ _affine(warp, target))
    forth, back = _spline(warp, target), _inverse(warp, source)
    return lambda points: back(forth(points))


def _linear(matrix: np.ndarray) -> Map:
    return lambda points: points @ matrix[:2, :2].T + matrix[:2, 2]


def _square(pose: np.ndarray | None) -> np.ndarray:
    """A pose (2, 3), or none, as (3, 3)."""
    return np.eye(3) if pose is None else np.vstack([pose, [0, 0, 1]])


def _parameters(warp: Warp, code: LatentCode) -> np.ndarray:
    theta = torch.from_numpy(code.theta).to(warp.identity)[None]
    parameters: np.ndarray = warp.parameters_of(theta)[0].cpu().double().numpy()
    return parameters


def _affine(warp: Warp, code: LatentCode) -> np.ndarray:
    matrix: np.ndarray = np.vstack([_parameters(warp, code), [0, 0, 1]]) @ _square(code.pose)
    return matrix


def _spline(warp: Warp, code: LatentCode) -> Map:
    """The warp of a latent code, after its pose."""
    parameters, pose = _parameters(warp, code), _square(code.pose)
    return lambda points: warp.sources(_linear(pose)(points), parameters)


def _inverse(warp: Warp, code: LatentCode) -> Map:
    """The inverse of `_spline`: points of the reference to points of the image."""
    from scipy.spatial import cKDTree  # slow to import, and needed for splines only

    parameters, unposed = _parameters(warp, code), _linear(np.linalg.inv(_square(code.pose)))
    mesh = np.stack(np.meshgrid(MESH, MESH), axis=-1).reshape(-1, 2)
    tree = cKDTree(warp.sources(mesh, parameters))

    def sources(points: np.ndarray) -> np.ndarray:
        return warp.sources(points, parameters)

    def evaluate(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return sources(points), derivatives(sources, points)

    def inverse(goals: np.ndarray) -> np.ndarray:
        points, missed, slope = trace_back(evaluate, mesh[tree.query(goals)[1]], goals)
        # On the far side of a fold the warp is a mirror image: no part of the object lies there.
        points[(missed > NEAR) | (np.linalg.det(slope) * _side(warp, parameters) <= 0)] = np.nan
        return unposed(points)

    return inverse


def _side(warp: Warp, parameters: np.ndarray) -> float:
    """The sign of the warp's orientation, of its affine part."""
    linear = warp.affine_part(torch.from_numpy(parameters)[None])[0, :, :2].numpy()
    return float(np.sign(np.linalg.det(linear)))
