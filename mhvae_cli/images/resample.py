"""Pixels of an image at any points, for images that are moved, not generated."""

from collections.abc import Callable
from typing import Any

import numpy as np

STRIP = 1 << 18
"""Points that are resampled together: memory beyond the image and the result stays small."""


def levels_of(pixels: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Pixels (h, w) or (h, w, 3) as float32 planes (C, h, w), `limits` mapped to -1 and 1, not clipped."""
    low, high = limits
    planes = np.moveaxis(np.atleast_3d(pixels), 2, 0).astype(np.float32)
    planes -= np.float32(low)
    planes *= np.float32(2 / max(high - low, 1e-6))
    planes -= np.float32(1)
    return planes


def pixels_of(levels: np.ndarray, limits: tuple[float, float], dtype: np.dtype[Any]) -> np.ndarray:
    """The inverse of `levels_of`: rounded, and clipped to the range of `dtype`."""
    low, high = limits
    numbers = np.rint((levels.astype(np.float64) + 1) / 2 * (high - low) + low)
    pixels = np.clip(numbers, 0, np.iinfo(dtype).max).astype(dtype)
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, 2))


def resample(
    levels: np.ndarray,
    points: Callable[[int, int], np.ndarray],
    size: tuple[int, int],
    *,
    shrink: float = 1.0,
) -> np.ndarray:
    """Planes (C, h, w) at the points of a target of `size` (h', w'), float32 (C, h', w').

    `points(begin, end)` are those of the target's rows begin to end - 1, (n w', 2) xy in [-1, 1] of the
    planes, the image edge to edge; beyond the edge the outermost pixels continue, and NaN is read as the
    centre. Cubic spline interpolation, exact at pixel centres; `shrink`: the number of pixels of the planes
    per pixel of the target, above 1 they are low-passed first.
    """
    from scipy.ndimage import gaussian_filter, map_coordinates, spline_filter  # slow to import

    height, width = levels.shape[1:]
    if shrink > 1.05:
        # A pixel of the target averages `shrink` of the source: the sd of that box less the pixel's own.
        levels = gaussian_filter(levels, (0, *[np.sqrt((shrink**2 - 1) / 12)] * 2), mode="nearest")
    coefficients = [spline_filter(plane, order=3, output=np.float32, mode="nearest") for plane in levels]
    made = np.empty((len(levels), *size), np.float32)
    rows = max(1, STRIP // size[1])
    for begin in range(0, size[0], rows):
        end = min(begin + rows, size[0])
        x, y = (np.nan_to_num(points(begin, end)).T + 1) / 2 * [[width], [height]] - 0.5
        for plane, out in zip(coefficients, made, strict=True):
            found = map_coordinates(plane, [y, x], order=3, mode="nearest", prefilter=False)
            out[begin:end] = found.reshape(end - begin, size[1])
    return made
