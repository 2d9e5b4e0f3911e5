"""Closed polygons: rings of points (n, 2) xy, whose last point is connected to the first."""

from collections.abc import Sequence

import numpy as np


def edges(rings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends of every edge, (n, 2) each, and twice the signed area (n,) it spans with the origin."""
    a = np.concatenate(rings)
    b = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    return a, b, a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def signed_area(ring: np.ndarray) -> float:
    """The shoelace formula: positive for a ring that looks clockwise where y points down."""
    # Relative to the first point: far from the origin the products would cancel.
    return float(edges([ring - ring[0]])[2].sum()) / 2


def contains(rings: Sequence[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Whether each point (n, 2) lies inside an odd number of rings: bool (n,)."""
    x, y = points.T[:, :, None]
    (ax, ay), (bx, by) = (end.T for end in edges(rings)[:2])
    # Even-odd rule: count the edges that a ray from the point towards larger x crosses.
    spans = (ay > y) != (by > y)
    rise = np.where(by == ay, 1.0, by - ay)  # horizontal edges never span: only the division needs a 1
    inside: np.ndarray = (spans & (x < ax + (y - ay) * (bx - ax) / rise)).sum(axis=1) % 2 == 1
    return inside


def overlaps_box(rings: Sequence[np.ndarray], low: np.ndarray, high: np.ndarray) -> bool:
    """Whether the inside or the border of rings and a box, from its corner `low` xy to `high`, overlap."""
    a, b, _ = edges(rings)
    step = np.where(a == b, 1e-12, b - a)
    # The part of an edge inside the box, from its start at 0 to its end at 1, is that between both its sides.
    near, far = np.sort([(low - a) / step, (high - a) / step], axis=0)
    crossed = np.maximum(near.max(axis=1), 0) <= np.minimum(far.min(axis=1), 1)
    return bool(crossed.any() or contains(rings, low[None]).any())
