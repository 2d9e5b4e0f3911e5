"""Equation 10 at any size: the pixels of {p : level(p) >= 0}, evaluated only near the outline."""

from collections.abc import Callable

import numpy as np

from .contour import near_zero
from .warp import pixel_centres

Level = Callable[[np.ndarray], np.ndarray]
BLOCK = 8
"""Side in pixels of the blocks, which are decided as a whole far from the outline."""


def rasterise(level: Level, size: tuple[int, int]) -> np.ndarray:
    """The mask bool (h, w) of `level`, which maps points (N, 2) in [-1, 1] to values (N,), positive inside.

    A block's pixels are evaluated individually unless the level at its corners is farther from zero than it
    changes over half a diagonal, in the block itself and its neighbours (`contour.near_zero`).
    """
    h, w = size
    if min(h, w) < 4 * BLOCK:
        return (level(pixel_centres(size)) >= 0).reshape(size)
    rows, columns = (np.unique([*range(0, n, BLOCK), n - 1]) for n in size)
    nodes = level(_centres(np.repeat(rows, len(columns)), np.tile(columns, len(rows)), size))
    nodes = nodes.reshape(len(rows), len(columns))
    near = near_zero(nodes)
    row_of, column_of = (np.minimum(np.arange(n) // BLOCK, -(-(n - 1) // BLOCK) - 1) for n in size)
    mask = (nodes[:-1, :-1] > 0)[row_of][:, column_of]
    ys, xs = np.nonzero(near[row_of][:, column_of])
    mask[ys, xs] = level(_centres(ys, xs, size)) >= 0
    return mask


def _centres(ys: np.ndarray, xs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.stack([(2 * xs + 1) / size[1] - 1, (2 * ys + 1) / size[0] - 1], axis=1)
