"""Derivatives at many points of the plane, and Newton's method, to trace points back through a warp."""

from collections.abc import Callable

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]
"""Points (N, 2) to values (N, ...)."""

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Points (..., 2) to their images (..., 2), and the derivatives (..., 2, 2): [image axis, point axis]."""

STEPS, NEAR = 8, 1e-6
"""The largest number of steps, and the length of a step that is taken for none."""
LONGEST = 0.1
"""The longest step along an axis: no step jumps across a fold."""


def trace_back(evaluate: Evaluate, points: np.ndarray, goals: np.ndarray) -> tuple[np.ndarray, ...]:
    """Points (..., 2) whose images are `goals` (..., 2), from first guesses `points`.

    Also returns how far their images miss the goals (...), by the larger coordinate, and the derivatives
    (..., 2, 2) there.
    """
    for _ in range(STEPS):
        image, slope = evaluate(points)
        gap, determinant = image - goals, np.linalg.det(slope)
        safe = np.where(np.abs(determinant) < 1e-9, np.inf, determinant)
        step = np.stack(
            [
                (slope[..., 1, 1] * gap[..., 0] - slope[..., 0, 1] * gap[..., 1]) / safe,
                (slope[..., 0, 0] * gap[..., 1] - slope[..., 1, 0] * gap[..., 0]) / safe,
            ],
            axis=-1,
        )
        points = points - step.clip(-LONGEST, LONGEST)
        if np.abs(step).max(initial=0) < NEAR:
            break
    image, slope = evaluate(points)
    return points, np.abs(image - goals).max(-1), slope


def derivatives(function: Map, points: np.ndarray, *, step: float = 1e-6) -> np.ndarray:
    """The derivatives (N, ..., 2) of `function` at points (N, 2), by central differences."""
    ways = step * np.eye(2)
    return np.stack([(function(points + way) - function(points - way)) / (2 * step) for way in ways], axis=-1)
