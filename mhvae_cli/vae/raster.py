"""Equation 10 at any size: the pixels of {p : level(p) >= 0}, evaluated only near the outline."""

from collections.abc import Callable

import numpy as np

from .contour import near_zero
from .warp import pixel_centres

Level = Callable[[np.ndarray], np.ndarray]
BLOCK = 8
"""Side in pixels of the blocks, which are decided as a whole far from the outline."""
SAFETY = 12.0
"""For the sign of an interpolated level: the least ratio to its error, by second differences."""


def rasterise(level: Level, size: tuple[int, int]) -> np.ndarray:
    """The mask bool (h, w) of `level`, which maps points (N, 2) in [-1, 1] to values (N,), positive inside.

    A block far from the outline is decided as a whole; in the others the level is interpolated, and evaluated
    where that leaves a pixel's sign uncertain (`_near_pixels`).
    """
    h, w = size
    if min(h, w) < 4 * BLOCK:
        return (level(pixel_centres(size)) >= 0).reshape(size)
    rows, columns = (np.unique([*range(0, n, BLOCK), n - 1]) for n in size)
    nodes = level(_centres(np.repeat(rows, len(columns)), np.tile(columns, len(rows)), size))
    nodes = nodes.reshape(len(rows), len(columns))
    row_of, column_of = (np.minimum(np.arange(n) // BLOCK, -(-(n - 1) // BLOCK) - 1) for n in size)
    mask = (nodes[:-1, :-1] > 0)[row_of][:, column_of]
    ys, xs, values, certain = _near_pixels(nodes, rows, columns)
    mask[ys, xs] = values >= 0
    ys, xs = ys[~certain], xs[~certain]
    mask[ys, xs] = level(_centres(ys, xs, size)) >= 0
    return mask


def _near_pixels(
    nodes: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pixels of the blocks that the outline may enter, those between two blocks twice.

    The level `nodes` (m, n) is known at the blocks' corners, the pixels' `rows` (m,) and `columns` (n,).
    Returns row, column, level (interpolated in the block), and whether that level's sign is certain: it is
    farther from zero than SAFETY times the error that the second differences of the nodes allow.
    """
    y, x = np.nonzero(near_zero(nodes))
    down, across = (np.abs(np.diff(nodes, 2, axis=axis)) for axis in (0, 1))
    bend = np.pad(down, ((1, 1), (0, 0)), mode="edge") + np.pad(across, ((0, 0), (1, 1)), mode="edge")
    offset = np.arange(max(np.diff(rows).max(), np.diff(columns).max()) + 1)
    height, width = (rows[y + 1] - rows[y])[:, None, None], (columns[x + 1] - columns[x])[:, None, None]
    below, right = offset[:, None] / height, offset / width
    corners = ((y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1))
    nw, ne, sw, se = (nodes[corner][:, None, None] for corner in corners)
    top, bottom = nw + (ne - nw) * right, sw + (se - sw) * right
    value = top + (bottom - top) * below
    error = np.maximum.reduce([bend[corner] for corner in corners]) / 8
    certain = np.abs(value) > SAFETY * error[:, None, None]
    within = (offset[:, None] <= height) & (offset <= width)
    row, column = rows[y][:, None, None] + offset[:, None], columns[x][:, None, None] + offset
    shape = value.shape
    return (
        np.broadcast_to(row, shape)[within],
        np.broadcast_to(column, shape)[within],
        value[within],
        certain[within],
    )


def _centres(ys: np.ndarray, xs: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.stack([(2 * xs + 1) / size[1] - 1, (2 * ys + 1) / size[0] - 1], axis=1)
