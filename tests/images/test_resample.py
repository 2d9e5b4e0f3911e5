"""Moved pixels: exact where nothing moves, right where they do, without aliases where they shrink."""

import numpy as np
import pytest

from mhvae_cli.images.resample import levels_of, pixels_of, resample
from mhvae_cli.vae.warp import pixel_centres

SIZE = (40, 70)


def centres(begin: int, end: int) -> np.ndarray:
    return pixel_centres(SIZE)[begin * SIZE[1] : end * SIZE[1]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)])
def test_levels_and_back_change_no_bit_even_outside_the_limits(
    dtype: type[np.unsignedinteger], shape: tuple[int, ...]
) -> None:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top, shape, dtype=dtype, endpoint=True)
    limits = (top * 0.3, top * 0.6)
    assert np.array_equal(pixels_of(levels_of(pixels, limits), limits, pixels.dtype), pixels)
    inside = levels_of(np.array([[limits[0], limits[1]]]), limits)
    np.testing.assert_allclose(inside, [[[-1, 1]]], atol=1e-6)


def test_pixel_centres_give_the_pixels() -> None:
    planes = np.random.default_rng(1).normal(size=(2, *SIZE)).astype(np.float32)
    np.testing.assert_allclose(resample(planes, centres, SIZE), planes, atol=1e-5)


def test_a_smooth_image_is_read_between_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    def wave(points: np.ndarray) -> np.ndarray:
        return np.sin(5 * points[:, 0]) * np.cos(4 * points[:, 1] + 1)

    def moved(begin: int, end: int) -> np.ndarray:
        return centres(begin, end) @ np.array([[0.8, 0.1], [-0.1, 0.7]]) + [0.05, -0.08]

    plane = wave(pixel_centres(SIZE)).reshape(1, *SIZE).astype(np.float32)
    whole = resample(plane, moved, SIZE)
    np.testing.assert_allclose(whole[0].ravel(), wave(moved(0, SIZE[0])), atol=2e-3)
    monkeypatch.setattr("mhvae_cli.images.resample.STRIP", 200)  # in strips of two rows
    assert np.array_equal(resample(plane, moved, SIZE), whole)


def test_shrinking_averages_what_it_cannot_show() -> None:
    stripes = np.broadcast_to((-1.0) ** np.arange(SIZE[1]), (1, *SIZE)).astype(np.float32)

    def shrunk(begin: int, end: int) -> np.ndarray:
        return 2.5 * centres(begin, end)

    seen = np.abs(np.concatenate([centres(0, SIZE[0])])).max(1).reshape(SIZE) < 0.35
    assert np.abs(resample(stripes, shrunk, SIZE)[0][seen]).mean() > 0.3  # aliases
    assert np.abs(resample(stripes, shrunk, SIZE, shrink=2.5)[0][seen]).max() < 0.2
