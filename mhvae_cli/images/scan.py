"""One picture as numbers: upright, as its file has them, and which are black and white (section 5.1)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..errors import InputError

MAX_PIXELS = 100_000_000

Window = Literal["auto", "full"] | tuple[float, float]
"""Which numbers of a file are black and white: a choice of `Scan.window`'s, or LO and HI themselves."""


class Spacing(NamedTuple):
    """Width `x` and height `y` of a pixel, in mm."""

    x: float
    y: float

    @property
    def transposed(self) -> "Spacing":
        """The spacing of an image that lies on its side."""
        return Spacing(self.y, self.x)


@dataclass(frozen=True)
class Scan:
    """One picture: `pixels` (H, W) or (H, W, 3), uint8 or uint16, upright (the EXIF turn is applied).

    `orientation` is the file's EXIF orientation, 1-8: `stored(pixels, orientation)` lies as the file does.
    `page` counts from 0. `name` is what messages call the picture. `window` (low, high) are the numbers of
    `pixels` that are black and white; None is 0 and 255 of 8 bits, the 0.1 and 99.9 percentiles of 16.
    `spacing` is that of the upright image; None if the file does not say, and never guessed.
    """

    pixels: np.ndarray
    orientation: int = 1
    page: int = 0
    name: str = "array"
    window: tuple[float, float] | None = None
    spacing: Spacing | None = None

    @property
    def bits(self) -> int:
        """Bits a channel, 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


def scan_of(array: np.ndarray, *, name: str = "array", window: Window = "auto") -> Scan:
    """A Scan of an upright array, bool or real: (H, W) or (H, W, C), C = 1, 3, or with alpha last 2, 4.

    Numbers, alpha and `window` are treated as in `imaging.read_scan`. Raises InputError for any other shape
    or dtype.
    """
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4))
    if not shaped or array.size == 0 or array.dtype.kind not in "buif":
        raise InputError(f"{name}: an array of {array.dtype} {array.shape} is not an image")
    pixels, limits = _to_integers(array, window)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        colour, alpha = pixels[..., :-1], pixels[..., -1:]
        top = np.iinfo(pixels.dtype).max
        opaque = alpha.min() == top
        pixels = colour if opaque else np.rint(colour * (alpha / np.float64(top))).astype(pixels.dtype)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Scan(np.ascontiguousarray(pixels), name=name, window=limits)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W, ...) that lies as a file of this EXIF orientation stores it the right way up."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """Lay an upright array (H, W, ...) back as a file of this EXIF orientation stores it."""
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def stored_points(points: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Points (n, 2) xy in pixels of an upright image of `size` (h, w), in the frame its file stores: as
    `stored` does with pixels."""
    (height, width), turn = size, {6: 8, 8: 6}.get(orientation, orientation)
    moved = points.copy()
    if turn >= 5:
        moved, height, width = points[:, ::-1].copy(), width, height
    if turn in (2, 3, 6, 7):
        moved[:, 0] = width - moved[:, 0]
    if turn in (3, 4, 7, 8):
        moved[:, 1] = height - moved[:, 1]
    return moved


def _to_integers(array: np.ndarray, window: Window) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Any real numbers as uint8 or uint16, and their `Scan.window`, by the rule of `read_scan`."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255, None
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        asked = None if window == "auto" else (0.0, 65535.0) if window == "full" else window
        return native, asked if array.dtype.itemsize == 2 else None
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    numbers = np.nan_to_num(array.astype(np.float64), nan=low, posinf=high, neginf=low)
    asked = None if window == "auto" else (low, high) if window == "full" else window
    if low >= 0 and high <= 65535 and (finite == np.rint(finite)).all():
        return numbers.astype(np.uint16), asked
    begin, end = asked or (low, high)  # what lies outside the window would cost what lies inside its steps
    steps = (np.clip(numbers, begin, end) - begin) / max(end - begin, np.finfo(np.float64).tiny) * 65535
    return np.rint(steps).astype(np.uint16), None if asked is None else (0.0, 65535.0)
