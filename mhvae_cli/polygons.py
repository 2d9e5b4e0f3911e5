"""Closed polygons: rings of points (n, 2) xy, whose last point is joined to the first."""

from collections.abc import Sequence

import numpy as np


def edges(rings: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every edge's ends (n, 2) and (n, 2), and twice the signed area (n,) that it sweeps about the origin."""
    a = np.concatenate(rings)
    b = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    return a, b, a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def signed_area(ring: np.ndarray) -> float:
    """The shoelace formula: positive for a ring that is clockwise to the eye where y points down."""
    return float(edges([ring - ring[0]])[2].sum()) / 2


def contains(rings: Sequence[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Whether each point (n, 2) lies inside an odd number of rings: bool (n,)."""
    x, y = points.T[:, :, None]
    (ax, ay), (bx, by) = (end.T for end in edges(rings)[:2])
    spans = (ay > y) != (by > y)
    rise = np.where(by == ay, 1.0, by - ay)
    inside: np.ndarray = (spans & (x < ax + (y - ay) * (bx - ax) / rise)).sum(axis=1) % 2 == 1
    return inside
