"""Section 3.2: the outline of the warped reference as exact polygons.

The mask is the set {p : level(p) >= 0} of a function of position, so its outline needs no pixels: marching
squares finds which cell edges the outline crosses, and the crossings are then roots of `level` itself.

Frame: points are xy in [-1, 1], the image edge to edge, y down.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ..polygons import signed_area
from .raster import Level, inside_at

Points = NDArray[np.float64]

VERTICES = 360  # of an ellipse
BLOCKS = 32  # per side of the grid; a block far from the outline is decided as a whole
TOLERANCE = 1e-12  # of a root, relative to its edge's length and to the level's change along the edge


def contours(level: Level, *, cells: int = 128) -> list[Points]:
    """The outline of {p : level(p) >= 0}, clipped exactly to the square [-1, 1]^2.

    `level` maps points (N, 2) float64 to values (N,), positive inside. Which nodes of a grid of `cells` x
    `cells` are inside is found from few of them (`raster.inside_at`); then it is called on a few hundred
    points at a time.

    Returns closed polygons, each (n, 2) float64, n >= 3, the last vertex connected to the first and not
    repeated; an empty list if nothing is inside. Every vertex is a root of `level` on a grid line, or is on
    the square's border where it cuts the object (its corners exactly). Rings have a consistent orientation:
    the shoelace area in (x, y) is positive for an outer ring (visually clockwise, as y points down) and
    negative for a hole. Rings never cross; in a saddle cell the level at its centre decides which sides are
    connected.

    Between vertices the outline is a chord, with an error of at most about (2 / cells)^2 / (4 r) at a radius
    of curvature r. A part, gap or hole that is narrower than a block (2 / BLOCKS) and whose level is not
    smooth, or that contains no grid node (narrower than 2 / cells), can be missed: use more cells if that
    matters.
    """
    axis = np.linspace(-1.0, 1.0, cells + 1)
    # A duplicate of the border's nodes, all outside and at distance 0, closes every ring along the border.
    inside = np.pad(inside_at(level, axis, axis, max(1, cells // BLOCKS)), 1)
    axis = np.pad(axis, 1, mode="edge")
    if not inside.any():
        return []
    edges, following = _segments(level, inside, axis)
    vertices = _crossings(level, inside.ravel(), axis, edges)
    rings = (_simplified(vertices[ring]) for ring in _cycles(following))
    return [ring for ring in rings if ring is not None]


def ellipse(matrix: Points, radius: float) -> list[Points]:
    """The outline of {p : |A p + b| <= radius} with `matrix` = [A b] (2, 3), in the form of `contours`.

    VERTICES points of the ellipse at equal steps of the angle about A p + b = 0, without the many calls of
    `contours`. An empty list, so that the caller uses `contours`, if the outline is not an ellipse or not
    entirely inside the square.
    """
    turn = 2 * np.pi * np.arange(VERTICES) / VERTICES
    determinant = float(np.linalg.det(matrix[:, :2]))
    if not abs(determinant) > TOLERANCE:
        return []
    # A reflection would reverse the ring: the sign keeps the outer ring's area positive, as in `contours`.
    circle = np.stack([np.cos(turn), np.sin(turn) * np.sign(determinant)])
    ring: np.ndarray = np.linalg.solve(matrix[:, :2], radius * circle - matrix[:, 2:]).T
    return [ring] if (np.abs(ring) < 1).all() else []


def _segments(level: Level, inside: NDArray[np.bool_], axis: Points) -> tuple[np.ndarray, np.ndarray]:
    """The outline as crossed edges (E,), ascending, and for each the index of the next crossed edge (E,).

    With `side` nodes per side, edge n connects nodes n and n + 1, edge side^2 + n nodes n and n + side.
    """
    side = len(axis)
    corners = np.stack([inside[:-1, :-1], inside[:-1, 1:], inside[1:, 1:], inside[1:, :-1]])
    row, column = np.nonzero((corners != corners[0]).any(0))
    corners = corners[:, row, column].T
    node = row * side + column
    ids = np.stack([node, side**2 + node + 1, node + side, side**2 + node], axis=1)

    following = np.roll(corners, -1, axis=1)
    leaves, enters = corners & ~following, ~corners & following  # going round the cell, from x towards y
    apart = leaves.sum(1) == 2  # saddle cells, whose inside corners are opposite: connected or apart?
    if apart.any():
        centre = (axis[:-1] + axis[1:]) / 2
        middle = np.stack([centre[column[apart]], centre[row[apart]]], axis=1)
        apart[apart] = ~(np.asarray(level(middle)) >= 0)
    cell, start = np.nonzero(leaves)
    near = enters[cell, (start + 1) % 4] & ~apart[cell]
    opposite = enters[cell, (start + 2) % 4]
    end = (start + np.where(near, 1, np.where(opposite, 2, 3))) % 4

    begin, target = ids[cell, start], ids[cell, end]
    order = np.argsort(begin)
    edges = begin[order]
    return edges, np.searchsorted(edges, target[order])


def _crossings(level: Level, inside: NDArray[np.bool_], axis: Points, edges: np.ndarray) -> Points:
    """Where the outline crosses each edge: (E, 2), roots of `level`, or the node itself at the border."""
    side = len(axis)
    first = edges % side**2
    second = np.where(edges < side**2, first + 1, first + side)
    inner, outer = np.where(inside[first], [first, second], [second, first])
    ends = np.concatenate([inner, outer])
    a, b = np.split(np.stack([axis[ends % side], axis[ends // side]], axis=1), 2)
    at_a, at_b = np.split(np.asarray(level(np.concatenate([a, b])), dtype=np.float64), 2)
    seek = (a != b).any(axis=1) & (at_a > 0)
    a[seek] = _roots(level, a[seek], b[seek], at_a[seek], at_b[seek])
    return a


def _roots(level: Level, a: Points, b: Points, at_a: np.ndarray, at_b: np.ndarray) -> Points:
    """Roots of `level` between a (N, 2), where it is positive, and b (N, 2), where it is negative.

    Chandrupatla's method (Adv. Eng. Softw. 28, 1997) on all edges at once: inverse quadratic interpolation
    where three values allow it, else bisection, so it also converges for levels with kinks or jumps. An edge
    is done when its value or its bracket is within TOLERANCE.
    """
    found = a.copy()
    todo = np.arange(len(a))
    # The root lies between x1, the newest, and x2; x3 was an end before. All are fractions of the edge.
    x1, x2, x3 = np.ones(len(a)), np.zeros(len(a)), np.zeros(len(a))
    f1, f2, f3 = at_b, at_a, at_a
    small = TOLERANCE * (at_a - at_b)
    t = f1 / (f1 - f2)
    while todo.size:
        x = x1 + t * (x2 - x1)
        found[todo] = a[todo] + x[:, None] * (b[todo] - a[todo])
        f = np.asarray(level(found[todo]), dtype=np.float64)
        same = (f >= 0) == (f1 >= 0)
        x2, f2, x3, f3 = np.where(same, [x2, f2, x1, f1], [x1, f1, x2, f2])
        x1, f1 = x, f
        open_ = (np.abs(f1) > small[todo]) & (np.abs(x2 - x1) > TOLERANCE)
        todo, x1, x2, x3, f1, f2, f3 = (each[open_] for each in (todo, x1, x2, x3, f1, f2, f3))
        apart, change = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
        smooth = (change**2 < apart) & ((1 - change) ** 2 < 1 - apart)
        with np.errstate(all="ignore"):
            t = f1 / (f2 - f1) * f3 / (f2 - f3) + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
        t = np.where(smooth, t.clip(0, 1), 0.5)
    return found


def _cycles(following: np.ndarray) -> Iterator[list[int]]:
    """The cycles of the permutation `following`."""
    after = following.tolist()
    for start in range(len(after)):
        ring = []
        at = start
        while after[at] >= 0:
            ring.append(at)
            after[at], at = -1, after[at]
        if ring:
            yield ring


def _simplified(ring: Points) -> Points | None:
    """The ring without repeated points and points along the square's sides; None if nothing is left."""
    ring = ring[np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1) > TOLERANCE]
    before, after = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
    along = (np.abs(ring) == 1) & (ring == before) & (ring == after)
    ring = ring[~along.any(axis=1)]
    return ring if len(ring) and signed_area(ring) else None
