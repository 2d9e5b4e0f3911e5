"""Equation 10 at any size: the pixels of {p : level(p) >= 0}, evaluated only near the outline."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Level = Callable[[np.ndarray], np.ndarray]
BLOCK = 8
"""Side in pixels of the blocks, which are decided as a whole far from the outline."""
MARGIN = 0.75
"""Half a block's diagonal over its side, rounded up: no point is farther from its nearest corner."""
SAFETY = 12.0
"""For the sign of an interpolated level: the least ratio to its error, by second differences."""


def rasterise(level: Level, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask bool (h, w) of `level`: points (N, 2) in [-1, 1] -> values (N,), positive inside."""
    ys, xs = ((2 * np.arange(n) + 1) / n - 1 for n in size)
    if min(size) < 4 * BLOCK:
        return _at_nodes(level, xs, ys) >= 0
    return inside_at(level, xs, ys, BLOCK)


def inside_at(level: Level, xs: np.ndarray, ys: np.ndarray, block: int) -> NDArray[np.bool_]:
    """Where level >= 0, bool (h, w), at the points of a grid with coordinates `xs` (w,) and `ys` (h,).

    A block of that many points a side, far from the outline, is decided as a whole; in the others the level
    is interpolated, and evaluated where that leaves a point's sign uncertain (`_near_points`).
    """
    rows, columns = (np.unique([*range(0, len(axis), block), len(axis) - 1]) for axis in (ys, xs))
    nodes = _at_nodes(level, xs[columns], ys[rows])
    row_of, column_of = (
        np.minimum(np.arange(len(axis)) // block, len(marks) - 2)
        for axis, marks in ((ys, rows), (xs, columns))
    )
    inside: NDArray[np.bool_] = (nodes[:-1, :-1] > 0)[row_of][:, column_of]
    row, column, values, certain = _near_points(nodes, rows, columns)
    inside[row, column] = values >= 0
    row, column = row[~certain], column[~certain]
    inside[row, column] = level(np.stack([xs[column], ys[row]], axis=1)) >= 0
    return inside


def near_zero(nodes: np.ndarray) -> NDArray[np.bool_]:
    """Which blocks (m - 1, n - 1) the outline may enter, judged by the level (m, n) at their corners.

    Those where the level has both signs, or is no farther from zero than it changes over half a diagonal, in
    the block itself or its neighbours.
    """
    corners = np.stack([nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, :-1], nodes[1:, 1:]])
    low, high = corners.min(0), corners.max(0)
    change = _framed(high - low)
    change = np.maximum(np.maximum(change[:, :-2], change[:, 1:-1]), change[:, 2:])
    change = np.maximum(np.maximum(change[:-2], change[1:-1]), change[2:])
    near: NDArray[np.bool_] = (low <= 0) & (high >= 0) | (np.abs(corners).min(0) <= MARGIN * change)
    return near


def _at_nodes(level: Level, xs: np.ndarray, ys: np.ndarray) -> np.ndarray:
    """The level (h, w) at every point of a grid."""
    return level(np.stack([np.tile(xs, len(ys)), np.repeat(ys, len(xs))], axis=1)).reshape(len(ys), len(xs))


def _framed(values: np.ndarray, rows: int = 1, columns: int = 1) -> np.ndarray:
    """An array (m, n) with its outermost rows and columns repeated; np.pad takes ten times as long."""
    row, column = (
        np.arange(-more, count + more).clip(0, count - 1)
        for more, count in zip((rows, columns), values.shape, strict=True)
    )
    framed: np.ndarray = values[row][:, column]
    return framed


def _near_points(
    nodes: np.ndarray, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The points of the blocks that the outline may enter, those between two blocks twice.

    The level `nodes` (m, n) is known at the blocks' corners, the points' `rows` (m,) and `columns` (n,).
    Returns row, column, level (interpolated in the block), and whether that level's sign is certain: it is
    farther from zero than SAFETY times the error that the second differences of the nodes allow.
    """
    y, x = np.nonzero(near_zero(nodes))
    down, across = (np.abs(np.diff(nodes, 2, axis=axis)) for axis in (0, 1))
    bend = _framed(down, columns=0) + _framed(across, rows=0)
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
