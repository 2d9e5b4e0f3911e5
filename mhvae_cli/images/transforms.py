"""A scan's pixels to the network's square input and back (section 5.1): the only module that changes value
ranges."""

import numpy as np
from PIL import Image

from .scan import Scan

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_TINY = np.float32(1e-6)

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in pixels."""


def to_square(
    pixels: np.ndarray,
    size: int,
    channels: int,
    *,
    window: tuple[float, float] | None = None,
    box: Box | None = None,
) -> np.ndarray:
    """Resize upright pixels (H, W) or (H, W, 3) to the model's float32 (channels, size, size) in [-1, 1].

    The aspect ratio is not kept; downscaling is antialiased. The two values of `window` map to -1 and 1.
    Without a window it is 0..255 for 8 bits (bool as 0 and 255), and the image's own 0.1 to 99.9 percentiles
    for 16 bits, since few files use the full range. `channels` is 1 (luma) or 3. With `box` only that part of
    the image is shown, with the image's values of black and white.
    """
    if pixels.dtype == np.uint16 or window is not None:
        planes = np.moveaxis(np.atleast_3d(_stretched(pixels, window)), 2, 0)
        square = np.stack([resized(plane, (size, size), box) for plane in planes])
        square = square * np.float32(2) - np.float32(1)
    else:
        levels = resized(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels, (size, size), box)
        square = np.moveaxis(np.atleast_3d(levels), 2, 0).astype(np.float32, order="C")
        square *= np.float32(2 / 255)
        square -= np.float32(1)
    if channels == 1 and len(square) == 3:
        square = np.tensordot(_LUMA, square, 1)[None]
    return np.ascontiguousarray(np.broadcast_to(square, (channels, size, size)))


def from_square(square: np.ndarray) -> np.ndarray:
    """The inverse range: float (C, H, W) in [-1, 1], C = 1 or 3, to uint8 (H, W) or (H, W, 3), clipped."""
    levels = np.rint((np.clip(square, -1, 1) + 1) * 127.5).astype(np.uint8)
    return levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, 2))


def to_native(square: np.ndarray, like: Scan | tuple[int, int]) -> np.ndarray:
    """The inverse of `to_square`: a generated image, float (C, S, S) in [-1, 1], as upright pixels.

    (h, w) if C is 1, (h, w, 3) if C is 3: at the size and bit depth of the Scan `like`, through its window
    (for 16 bits without one, that of its percentiles); or uint8 at a size (h, w). Bicubic, and clipped to the
    range.
    """
    height, width = like.pixels.shape[:2] if isinstance(like, Scan) else like
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in square]
    bicubic = Image.Resampling.BICUBIC
    fitted = np.stack([np.asarray(plane.resize((width, height), bicubic)) for plane in planes])
    if not isinstance(like, Scan) or (like.bits == 8 and like.window is None):
        return from_square(fitted)
    low, high = limits_of(like)
    numbers = (np.clip(fitted, -1, 1) + 1) / 2 * (high - low) + low
    levels = np.clip(np.rint(numbers), 0, 2**like.bits - 1).astype(like.pixels.dtype)
    return levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, 2))


def limits_of(scan: Scan) -> tuple[float, float]:
    """The values of a scan's pixels that are black and white, which map to -1 and 1."""
    if scan.window is not None:
        return scan.window
    if scan.bits == 8:
        return 0.0, 255.0
    low, high = _percentiles(scan.pixels)
    return float(low), float(high)


def shown_by(planes: np.ndarray, count: int) -> np.ndarray:
    """Planes (1 or 3, H, W) as `count` of them: grey is repeated to colour, colour is converted to luma."""
    if count == 1 and len(planes) == 3:
        return np.tensordot(_LUMA, planes, 1)[None]
    return planes if len(planes) == count else np.repeat(planes, count, axis=0)


def to_uint8(pixels: np.ndarray, window: tuple[float, float] | None = None) -> np.ndarray:
    """Pixels for display: `window` mapped to 0..255; without one uint16 is rescaled from its own 0.1 to 99.9
    percentiles, and uint8 is unchanged."""
    if pixels.dtype == np.uint8 and window is None:
        return pixels
    levels: np.ndarray = np.rint(_stretched(pixels, window) * 255).astype(np.uint8)
    return levels


def _stretched(pixels: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    """Pixels as float32 in [0, 1] over the window; a constant image without one is 0."""
    low, high = map(np.float32, window or _percentiles(pixels))
    stretched: np.ndarray = np.clip((pixels.astype(np.float32) - low) / max(high - low, _TINY), 0, 1)
    return stretched


def _percentiles(pixels: np.ndarray) -> tuple[np.float32, np.float32]:
    """The 0.1 and 99.9 percentiles; the minimum and maximum if these are equal."""
    rows, columns = (max(1, n // 512) for n in pixels.shape[:2])  # a sample of about 512 x 512 is enough
    low, high = np.percentile(pixels[::rows, ::columns], (0.1, 99.9)).astype(np.float32)
    return (low, high) if low < high else (np.float32(pixels.min()), np.float32(pixels.max()))


def resized(levels: np.ndarray, size: tuple[int, int], box: Box | None = None) -> np.ndarray:
    """Levels (H, W) or (H, W, 3) of uint8 or float32, or a box of them, at a size (w, h), antialiased."""
    image = Image.fromarray(np.ascontiguousarray(levels))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=box, reducing_gap=3.0))
