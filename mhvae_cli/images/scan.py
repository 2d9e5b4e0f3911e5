"""One image as an array, upright and with its file's values, and which values are black and white
(section 5.1)."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ..errors import InputError

MAX_PIXELS = 100_000_000
_NO_DATA = 3.4e38
"""Floats as large as the largest of 32 bits, 3.4028e38, mark pixels without data, as infinity does."""
_FAR = 8

Window = Literal["auto", "full"] | tuple[float, float]
"""Which values of a file are black and white: "auto" or "full" (see `read.read_scan`), or LO and HI."""


class Spacing(NamedTuple):
    """Width `x` and height `y` of a pixel, in mm."""

    x: float
    y: float

    @property
    def transposed(self) -> "Spacing":
        """The spacing of the same image rotated by 90 degrees."""
        return Spacing(self.y, self.x)


class Region(NamedTuple):
    """A box of an ultrasound image, from x0, y0 to x1, y1 in pixels, with a spacing of its own, None if
    unknown."""

    x0: float
    y0: float
    x1: float
    y1: float
    spacing: Spacing | None


@dataclass(frozen=True)
class Scan:
    """One image: `pixels` (H, W) or (H, W, 3), uint8 or uint16, upright (EXIF orientation applied).

    `orientation` is the file's EXIF orientation, 1-8: `stored(pixels, orientation)` is the array as stored in
    the file. `page` counts from 0. `name` identifies the image in messages. `window` (low, high) are the
    values of `pixels` that are black and white; None means 0 and 255 for 8 bits, the 0.1 and 99.9 percentiles
    for 16. `spacing` is that of the whole upright image; None if the file does not state it, never a guess.
    An ultrasound image may have `regions` with a spacing each instead.
    """

    pixels: np.ndarray
    orientation: int = 1
    page: int = 0
    name: str = "array"
    window: tuple[float, float] | None = None
    spacing: Spacing | None = None
    regions: tuple[Region, ...] = ()

    @property
    def bits(self) -> int:
        """Bits per channel, 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


def scan_of(array: np.ndarray, *, name: str = "array", window: Window = "auto") -> Scan:
    """A Scan of an upright array, bool or real: (H, W) or (H, W, C), C = 1 or 3, or 2 or 4 with alpha last.

    Values, alpha and `window` are treated as in `read.read_scan`. Raises InputError for any other shape or
    dtype, and for floats of which none is finite.
    """
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4))
    if not shaped or array.size == 0 or array.dtype.kind not in "buif":
        raise InputError(f"{name}: an array of {array.dtype} {array.shape} is not an image")
    if array.dtype.kind == "f" and not np.isfinite(array).any():
        raise InputError(f"{name}: no pixel has a finite value")
    pixels, limits = _to_integers(array, window, name)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        colour, alpha = pixels[..., :-1], pixels[..., -1:]
        top = np.iinfo(pixels.dtype).max
        opaque = alpha.min() == top
        pixels = colour if opaque else np.rint(colour * (alpha / np.float64(top))).astype(pixels.dtype)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Scan(np.ascontiguousarray(pixels), name=name, window=limits)


def orientation_of(value: Any) -> int:
    """An EXIF orientation, 1 to 8; 1 for any other value."""
    return value if value in range(1, 9) else 1


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W, ...) as stored in a file of this EXIF orientation upright."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """The inverse of `upright`: an upright array (H, W, ...) as stored in a file of this EXIF orientation."""
    # All orientations are their own inverses but the two quarter turns, which are each other's.
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def stored_points(points: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Points (n, 2) xy in pixels of an upright image of `size` (h, w), in the frame of the stored image."""
    (height, width), turn = size, {6: 8, 8: 6}.get(orientation, orientation)
    moved = points.copy()
    if turn >= 5:
        moved, height, width = points[:, ::-1].copy(), width, height
    if turn in (2, 3, 6, 7):
        moved[:, 0] = width - moved[:, 0]
    if turn in (3, 4, 7, 8):
        moved[:, 1] = height - moved[:, 1]
    return moved


def _to_integers(
    array: np.ndarray, window: Window, name: str
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Any real values as uint8 or uint16, and their `Scan.window`, as documented at `read.read_scan`."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255, None
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        limits = None if window == "auto" else (0.0, 65535.0) if window == "full" else window
        return native, limits if array.dtype.itemsize == 2 else None
    if array.dtype.kind == "f" and array.dtype.itemsize > 2:
        array = np.where(np.abs(array) >= _NO_DATA, np.copysign(np.inf, array), array)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    numbers = np.nan_to_num(array.astype(np.float64), nan=low, posinf=high, neginf=low)
    limits = None if window == "auto" else (low, high) if window == "full" else window
    if low >= 0 and high <= 65535 and (finite == np.rint(finite)).all():
        return numbers.astype(np.uint16), limits
    begin, end = limits or _without_outliers(finite, low, high)
    levels = _levels(numbers, begin, end)  # clipped, so that all 65536 are spent inside the window
    if limits is None and _look_alike(finite, begin, end):
        hint = "say which values are black and white, for example --window 0,1"
        raise InputError(f"{name}: some values are so large that the others would look alike", hint=hint)
    return levels, None if limits is None else (0.0, 65535.0)


def _levels(numbers: np.ndarray, begin: float, end: float) -> np.ndarray:
    steps = (np.clip(numbers, begin, end) - begin) / max(end - begin, np.finfo(np.float64).tiny) * 65535
    levels: np.ndarray = np.rint(steps).astype(np.uint16)
    return levels


def _without_outliers(finite: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The least and the largest value, but not farther than _FAR ranges from the 0.1 to 99.9 percentiles."""
    if not finite.size:
        return low, high
    inner, outer = map(float, np.percentile(_sample(finite), (0.1, 99.9)))
    reach = _FAR * (outer - inner)
    return (max(low, inner - reach), min(high, outer + reach)) if reach > 0 else (low, high)


def _look_alike(finite: np.ndarray, begin: float, end: float) -> bool:
    """Whether more than 256 different values would become fewer than 16."""
    different = np.unique(_sample(finite)).astype(np.float64)
    return len(different) > 256 and len(np.unique(_levels(different, begin, end))) < 16


def _sample(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, len(values) // 2**18)].astype(np.float64)
