"""Equation 10 at any size: the pixels of {p : level(p) >= 0}, evaluated only near the outline."""

from collections.abc import Callable

import numpy as np

from .contour import near_points
from .warp import pixel_centres

Level = Callable[[np.ndarray], np.ndarray]
BLOCK = 8
"""Side in pixels of the blocks, which are decided as a whole far from the outline."""


def rasterise(level: Level, size: tuple[int, int]) -> np.ndarray:
    """The mask bool (h, w) of `level`, which maps points (N, 2) in [-1, 1] to values (N,), positive inside.

    A block far from the outline is decided as a whole; in the others the level is interpolated, and evaluated
    where that leaves a pixel's sign uncertain (`contour.near_points`).
    """
    h, w = size
    if min(h, w) < 4 * BLOCK:
        return (level(pixel_centres(size)) >= 0).reshape(size)
    rows, columns = (np.unique([*range(0, n, BLOCK), n - 1]) for n in size)
    nodes = level(_centres(np.repeat(rows, len(columns)), np.tile(columns, len(rows)), size))
    nodes = nodes.reshape(len(rows), len(columns))
    row_of, column_of = (np.minimum(np.arange(n) // BLOCK, -(-(n - 1) // BLOCK) - 1) for n in size)
    mask = (nodes[:-1, :-1] > 0)[row_of][:, column_of]
    ys, xs, values, certain = near_points(nodes, rows, columns)
    mask[ys, xs] = values >= 0
    ys, xs = ys[~certain], xs[~certain]
    mask[ys, xs] = level(_centres(ys, xs, size)) >= 0
    return mask


def _centres(ys: np.ndarray, xs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.stack([(2 * xs + 1) / size[1] - 1, (2 * ys + 1) / size[0] - 1], axis=1)
