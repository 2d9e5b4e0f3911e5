"""The area of polygons."""

import numpy as np


def area(ring: np.ndarray) -> float:
    """By the shoelace formula, with its sign."""
    x, y = np.asarray(ring).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
