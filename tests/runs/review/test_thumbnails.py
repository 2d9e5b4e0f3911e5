"""The page's pictures are small and true, and their outlines keep to a tenth of a pixel."""

import io

import numpy as np
import pytest
from PIL import Image
from support.review_pages import rings_of

from mhvae_cli.runs.review.thumbnails import SIDE, shrink, thumbnail_of


@pytest.mark.parametrize("shape", [(50, 400), (3000, 2000, 3), (200, 10)])
def test_pictures_are_small_and_true(shape: tuple[int, ...]) -> None:
    ramp = np.tile((np.arange(shape[1]) * 255 / shape[1]).astype(np.uint8), (shape[0], 1))
    pixels = ramp if len(shape) == 2 else np.repeat(ramp[..., None], 3, axis=2)
    small = shrink(pixels)
    assert max(small.shape) <= SIDE and small.dtype == np.uint8 and small.ndim == pixels.ndim
    assert (
        abs(small.shape[0] / small.shape[1] - shape[0] / shape[1])
        <= 0.6 / min(small.shape[:2]) * shape[0] / shape[1] + 0.01
    )
    with Image.open(io.BytesIO(thumbnail_of(small, [], shape[:2]).jpeg)) as image:
        shown = np.asarray(image.convert("L"), float)
    assert np.abs(shown - 255 * (np.arange(small.shape[1]) + 0.5) / small.shape[1]).mean() < 14
    wide = shrink(ramp.astype(np.uint16) * 40)
    assert wide.dtype == np.uint8 and wide.max() > 240  # 16 bits are brought into sight


def test_outlines_keep_to_a_tenth_of_a_pixel() -> None:
    t = np.linspace(0, 2 * np.pi, 4000, endpoint=False)
    radius = 150 + 40 * np.cos(5 * t)
    star = np.stack([400 + radius * np.cos(t), 270 + radius * np.sin(t)], axis=1)
    corners = np.array([[20.0, 20.0], [20.0, 480.0], [480.0, 480.0]])
    way = np.linspace(0, 1, 300, endpoint=False)[:, None]
    dense = np.concatenate([a + way * (b - a) for a, b in zip(corners, np.roll(corners, -1, 0), strict=True)])
    rings = (star, dense, corners.repeat(3, axis=0))
    small = shrink(np.zeros((540, 800), np.uint8))
    found = rings_of(thumbnail_of(small, [*rings, star[:2]], (540, 800)).outline)
    assert len(found) == 3 and len(found[0]) < 170
    scale = np.array([small.shape[1] / 800, small.shape[0] / 540])
    for ring, true in zip(found, rings, strict=True):
        a, b = ring, np.roll(ring, -1, axis=0)
        drawn = (a + np.linspace(0, 1, 200)[:, None, None] * (b - a)).reshape(-1, 2)
        gaps = np.linalg.norm(true[::7, None] * scale - drawn[None], axis=2).min(axis=1)
        assert gaps.max() < 0.3 and np.sqrt((gaps**2).mean()) < 0.1
