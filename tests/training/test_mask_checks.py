"""Masks that no object has, and large or odd ones that objects do have."""

import numpy as np
import pytest

from mhvae_cli.training.mask_checks import fault_of
from mhvae_cli.vae.warp import pixel_centres

SIZE = (60, 80)


def disc(radius: float, x: float = 0.0) -> np.ndarray:
    return (np.linalg.norm(pixel_centres(SIZE) - [x, 0.1], axis=1) < radius).reshape(SIZE)


@pytest.mark.parametrize("radius", [0.1, 0.5, 0.9])
def test_an_inverse_is_told_from_an_object(radius: float) -> None:
    for x in (0.0, 0.8):  # inside the image, and cut off by its edge
        assert fault_of(disc(radius, x)) == ""
        assert fault_of(~disc(radius, x)).startswith("inverted mask")


@pytest.mark.parametrize("radius", [1.1, 1.2, 1.4])
def test_an_object_that_fills_the_frame_is_no_inverse(radius: float) -> None:
    mask = disc(radius)
    assert mask.mean() > 0.8 and not mask.all() and fault_of(mask) == ""


def test_half_planes_are_objects() -> None:
    for row in range(1, 60):
        mask = np.zeros(SIZE, bool)
        mask[row:] = True
        assert fault_of(mask) == fault_of(mask[::-1]) == fault_of(np.ascontiguousarray(mask.T)) == ""


def test_without_an_outline() -> None:
    assert fault_of(np.zeros(SIZE, bool)) == "empty mask"
    assert fault_of(np.ones(SIZE, bool)) == ""
