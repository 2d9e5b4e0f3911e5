"""The mask of a level function is its sign at every pixel's centre, and it is asked at few of them."""

import numpy as np
import pytest

from mhvae_cli.vae.raster import rasterise
from mhvae_cli.vae.warp import pixel_centres


def star(points: np.ndarray) -> np.ndarray:
    """A star of five blunt points about (0.2, -0.1)."""
    x, y = (points - [0.2, -0.1]).T
    return 0.5 + 0.12 * np.cos(5 * np.arctan2(y, x)) - np.hypot(x, y)


@pytest.mark.parametrize("size", [(1, 1), (20, 31), (32, 32), (33, 120), (257, 190), (500, 640)])
def test_every_pixel_is_decided_as_at_its_centre(size: tuple[int, int]) -> None:
    mask = rasterise(star, size)
    assert mask.dtype == bool and mask.shape == size
    assert np.array_equal(mask, (star(pixel_centres(size)) >= 0).reshape(size))


def test_whole_blocks_are_decided_by_their_corners() -> None:
    asked = 0

    def level(points: np.ndarray) -> np.ndarray:
        nonlocal asked
        asked += len(points)
        return star(points)

    rasterise(level, (800, 800))
    assert asked < 0.04 * 800 * 800


@pytest.mark.parametrize("seed", range(8))
def test_a_crumpled_outline_is_right_at_every_pixel(seed: int) -> None:
    """Many lobes and holes, and values that are no distances."""
    rng = np.random.default_rng(seed)
    waves, phases = rng.normal(0, 6, (6, 2)), rng.uniform(0, 7, 6)

    def level(points: np.ndarray) -> np.ndarray:
        return np.sin(points @ waves.T + phases).sum(1) + 0.3

    found = rasterise(level, (150, 203))
    assert np.array_equal(found, (level(pixel_centres((150, 203))) >= 0).reshape(150, 203))
    assert 0.1 < found.mean() < 0.9


def test_all_or_nothing_may_be_inside() -> None:
    for value in (1.0, -1.0, 0.0):
        mask = rasterise(lambda points, value=value: np.full(len(points), value), (64, 80))
        assert mask.all() == (value >= 0) and mask.any() == (value >= 0)
