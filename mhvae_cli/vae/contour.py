"""Section 3.2: the outline of the warped reference as exact polygons.

The mask is the set {p : level(p) >= 0} of a function of position, so its outline needs no pixels: marching
squares finds which cell edges the outline crosses, and the crossings are then roots of `level` itself.

Frame: points are xy in [-1, 1], the image edge to edge, y down.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..polygons import signed_area

Points = NDArray[np.float64]
Level = Callable[[Points], np.ndarray]

VERTICES = 360  # of an ellipse
BLOCKS = 32  # per side of the grid; a block far from the outline is decided as a whole
MARGIN = 0.75
"""Half a block's diagonal over its side, rounded up: no point is farther from its nearest corner."""
TOLERANCE = 1e-12  # of a root, relative to its edge's length and to the level's change along the edge


def contours(level: Level, *, cells: int = 128) -> list[Points]:
    """The outline of {p : level(p) >= 0}, clipped exactly to the square [-1, 1]^2.

    `level` maps points (N, 2) float64 to values (N,), positive inside; it is called on the nodes of a grid of
    `cells` x `cells`, except those far from the outline (`near_zero`), and then on a few hundred points at a
    time.

    Returns closed polygons, each (n, 2) float64, n >= 3, the last vertex connected to the first and not
    repeated; an empty list if nothing is inside. Every vertex is a root of `level` on a grid line, or is on
    the square's border where it cuts the object (its corners exactly). Rings have a consistent orientation:
    the shoelace area in (x, y) is positive for an outer ring (visually clockwise, as y points down) and
    negative for a hole. Rings never cross; in a saddle cell the level at its centre decides which sides are
    connected.

    Between vertices the outline is a chord, with an error of at most about (2 / cells)^2 / (4 r) at a radius
    of curvature r. A part, gap or hole that contains no grid node (narrower than 2 / cells) can be missed:
    use more cells if that matters.
    """
    axis = np.linspace(-1.0, 1.0, cells + 1)
    values = _nodes(level, axis)
    # A duplicate of the border's nodes, all outside and at distance 0, closes every ring along the border.
    axis = np.pad(axis, 1, mode="edge")
    values = np.pad(values, 1, constant_values=-np.inf)
    if not (values >= 0).any():
        return []
    edges, following = _segments(level, values >= 0, axis)
    vertices = _crossings(level, values.ravel(), axis, edges)
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


def near_zero(nodes: np.ndarray) -> NDArray[np.bool_]:
    """Which blocks (m - 1, n - 1) the outline may enter, judged by the level (m, n) at their corners.

    Those where the level has both signs, or is no farther from zero than it changes over half a diagonal, in
    the block itself or its neighbours.
    """
    corners = np.stack([nodes[:-1, :-1], nodes[:-1, 1:], nodes[1:, :-1], nodes[1:, 1:]])
    low, high = corners.min(0), corners.max(0)
    change = np.pad(high - low, 1, mode="edge")
    change = np.maximum(np.maximum(change[:, :-2], change[:, 1:-1]), change[:, 2:])
    change = np.maximum(np.maximum(change[:-2], change[1:-1]), change[2:])
    near: NDArray[np.bool_] = (low <= 0) & (high >= 0) | (np.abs(corners).min(0) <= MARGIN * change)
    return near


def _nodes(level: Level, axis: Points) -> Points:
    """The level (n, n) at the nodes; far from the outline that of a nearby node, which has the same sign."""
    step = max(1, (len(axis) - 1) // BLOCKS)
    marks = np.unique([*range(0, len(axis), step), len(axis) - 1])
    x, y = np.meshgrid(axis[marks], axis[marks])
    corners = np.asarray(level(np.stack([x.ravel(), y.ravel()], axis=1)), dtype=np.float64).reshape(x.shape)
    if step == 1:
        return corners
    near, index = near_zero(corners), np.arange(len(axis))
    # A node between two blocks belongs to both.
    left, right = np.maximum(-(-index // step) - 1, 0), np.minimum(index // step, len(marks) - 2)
    values = corners[right][:, right]
    beside = near[left] | near[right]
    row, column = np.nonzero(beside[:, left] | beside[:, right])
    values[row, column] = level(np.stack([axis[column], axis[row]], axis=1))
    return values


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


def _crossings(level: Level, values: np.ndarray, axis: Points, edges: np.ndarray) -> Points:
    """Where the outline crosses each edge: (E, 2), roots of `level`, or the node itself at the border."""
    side = len(axis)
    first = edges % side**2
    second = np.where(edges < side**2, first + 1, first + side)
    swap = ~(values[first] >= 0)
    inner, outer = np.where(swap, second, first), np.where(swap, first, second)
    a = np.stack([axis[inner % side], axis[inner // side]], axis=1)
    b = np.stack([axis[outer % side], axis[outer // side]], axis=1)
    seek = (a != b).any(axis=1) & (values[inner] > 0)
    a[seek] = _roots(level, a[seek], b[seek], values[inner[seek]], values[outer[seek]])
    return a


def _roots(level: Level, a: Points, b: Points, at_a: np.ndarray, at_b: np.ndarray) -> Points:
    """Roots of `level` between a (N, 2), where it is positive, and b (N, 2), where it is negative.

    Ridders' method on all edges at once: the bracket at least halves in each iteration, so it also converges
    for levels with kinks or jumps. An edge is done when its value or its bracket is within TOLERANCE.
    """
    found = a.copy()
    todo = np.arange(len(a))
    low, high, at_low, at_high = np.zeros(len(a)), np.ones(len(a)), at_a, at_b
    small = TOLERANCE * (at_a - at_b)
    while todo.size:
        origin, along = a[todo], b[todo] - a[todo]
        middle = (low + high) / 2
        at_middle = np.asarray(level(origin + middle[:, None] * along), dtype=np.float64)
        t = middle + (middle - low) * at_middle / np.sqrt(at_middle**2 - at_low * at_high)
        found[todo] = origin + t[:, None] * along
        at_t = np.asarray(level(found[todo]), dtype=np.float64)
        # Both evaluations shrink the bracket, which keeps a positive level at `low` and a negative at `high`.
        for at, value in ((middle, at_middle), (t, at_t)):
            up = value >= 0
            low, at_low = np.where(up, at, low), np.where(up, value, at_low)
            high, at_high = np.where(up, high, at), np.where(up, at_high, value)
        open_ = (np.abs(at_t) > small[todo]) & (high - low > TOLERANCE)
        todo, low, high, at_low, at_high = (each[open_] for each in (todo, low, high, at_low, at_high))
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
