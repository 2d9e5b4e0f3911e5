"""Small images with contours for the review page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SIDE = 192
"""Longer side of a thumbnail, in pixels."""
TOLERANCE, LONGEST, SHARPEST = 1.0, 100.0, 0.5
"""Limits for simplifying the outline: the distance between arc and chord and the length of a chord, both in
tenths of a thumbnail pixel, and the turn in radians between chords."""


@dataclass(frozen=True)
class Thumbnail:
    """A small image: JPEG bytes, its (h, w), and the outline as an SVG path in tenths of a pixel."""

    jpeg: bytes
    size: tuple[int, int]
    outline: str


def shrink(pixels: "np.ndarray", window: tuple[float, float] | None = None) -> "np.ndarray":
    """Upright pixels (H, W) or (H, W, 3), uint8 or uint16, as uint8 with sides of at most SIDE px.

    `window` is that of `transforms.to_uint8`.
    """
    import numpy as np
    from PIL import Image

    from ...images.transforms import to_uint8

    # Eight times the final resolution is enough for antialiasing.
    step = max(1, max(pixels.shape[:2]) // (8 * SIDE))
    small = Image.fromarray(np.ascontiguousarray(to_uint8(pixels[::step, ::step], window)))
    small.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small)


def thumbnail_of(small: "np.ndarray", rings: "Sequence[np.ndarray]", size: tuple[int, int]) -> Thumbnail:
    """The output of `shrink` for an upright scan of `size` (h, w), with its contour: `rings` (n, 2) xy px."""
    from ...images.encode import encode_jpeg

    height, width = small.shape[:2]
    scale = (10 * width / size[1], 10 * height / size[0])
    return Thumbnail(encode_jpeg(small), (height, width), "".join(_path(ring * scale) for ring in rings))


def _path(ring: "np.ndarray") -> str:
    """A closed polygon in tenths of a pixel as an SVG path, simplified according to its curvature.

    The distance of arc and chord is at most length^2 x curvature / 8. Points are spaced so that it stays
    below TOLERANCE, and chords below LONGEST; a corner sharper than SHARPEST keeps its point.
    """
    import numpy as np

    ring = ring[(ring != np.roll(ring, 1, axis=0)).any(axis=1)]
    if len(ring) < 3:
        return ""
    step = np.roll(ring, -1, axis=0) - ring
    length, heading = np.hypot(*step.T), np.arctan2(step[:, 1], step[:, 0])
    turn = np.abs((heading - np.roll(heading, 1) + np.pi) % (2 * np.pi) - np.pi)
    need = np.cumsum(np.sqrt(turn * length / (8 * TOLERANCE)) + length / LONGEST + turn / SHARPEST)
    count = max(3, int(np.ceil(need[-1])))
    kept = np.unique(np.searchsorted(need, np.arange(1, count + 1) * need[-1] / count))
    points = np.rint(ring[np.minimum(kept, len(ring) - 1)]).astype(int)
    moves = np.diff(points, axis=0)
    moves = moves[moves.any(axis=1)]
    return f"M{points[0][0]} {points[0][1]}l" + " ".join(f"{x} {y}" for x, y in moves.tolist()) + "Z"
