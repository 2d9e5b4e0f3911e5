"""Arrays become scans, a window is in the numbers of the file, and points turn as pixels do."""

import numpy as np
import pytest
from PIL import Image
from support.pictures import DEEP, GREY, SHAPE, saved, tiff

from mhvae_cli.errors import InputError
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import scan_of, stored, stored_points, upright
from mhvae_cli.images.transforms import to_square, to_uint8

pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:PIL\.")  # pytest resets the filter of the module
RNG = np.random.default_rng(0)


def test_arrays_become_scans_by_the_same_rules():
    for array, want in [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (DEEP, DEEP),
        (GREY.astype(np.int64), GREY),
        (SHAPE, SHAPE * np.uint8(255)),
        (np.array([[0.0, 0.5], [0.25, 1.0]]), [[0, 32768], [16384, 65535]]),
        (np.dstack([GREY, 0 * GREY]), 0 * GREY),
    ]:
        np.testing.assert_array_equal(scan_of(array).pixels, want)
    for bad in (
        np.zeros(4),
        np.zeros((2, 2, 5)),
        np.zeros((0, 4)),
        np.zeros((2, 2), complex),
        np.array([["a"]]),
    ):
        with pytest.raises(InputError, match=r"^array: an array of .* is not an image"):
            scan_of(bad)


def shown(source, window):
    """A picture in [0, 1] at its own size, as the network and a screen see it."""
    scan = read_scan(source, window=window)
    assert scan.pixels.shape[0] == scan.pixels.shape[1]
    square = to_square(scan.pixels, scan.pixels.shape[0], 1, window=scan.window)[0] / 2 + 0.5
    np.testing.assert_allclose(to_uint8(scan.pixels, scan.window) / 255, square, atol=0.003)
    return square


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_window_is_in_the_numbers_of_the_file(dtype):
    """Those of 16 bits stay as they are; an outlier costs a float's window none of its steps."""
    values = RNG.integers(0, 4096, (16, 16)).astype(dtype)
    want = np.clip((values.astype(float) - 1000) / 2000, 0, 1)
    np.testing.assert_allclose(shown(tiff(values), (1000, 3000)), want, atol=1e-4)
    if dtype == np.uint16:
        scan = read_scan(tiff(values), window=(1000, 3000))
        np.testing.assert_array_equal(scan.pixels, values)
        assert scan.window == (1000, 3000)
        return
    values[3, 3], values[4, 4] = 2e9, -2e9
    want = np.clip((values.astype(float) - 1000) / 2000, 0, 1)
    np.testing.assert_allclose(shown(tiff(values), (1000, 3000)), want, atol=1e-4)


def test_the_full_range_is_the_types_and_a_wider_types_own():
    deep = RNG.integers(0, 4096, (16, 16)).astype(np.uint16)
    np.testing.assert_allclose(shown(tiff(deep), "full"), deep / 65535, atol=1e-4)
    reals = RNG.normal(0, 1, (16, 16)).astype(np.float32)
    want = (reals - reals.min()) / np.ptp(reals)
    np.testing.assert_allclose(shown(tiff(reals), "full"), want, atol=1e-4)
    assert np.ptp(shown(tiff(np.full((4, 4), 0.5, np.float32)), "full")) == 0


def test_8_bits_need_no_window():
    for window in ("full", (10, 20)):
        scan = read_scan(saved(Image.fromarray(GREY), "PNG"), window=window)
        assert scan.window is None
        np.testing.assert_array_equal(scan.pixels, GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_go_where_their_pixels_go(orientation):
    pixels = np.arange(1, 13).reshape(3, 4)
    kept = stored(pixels, orientation)
    np.testing.assert_array_equal(upright(kept, orientation), pixels)
    ys, xs = np.mgrid[:3, :4]
    points = np.stack([xs.ravel(), ys.ravel()], axis=1) + 0.5
    there = np.floor(stored_points(points, (3, 4), orientation)).astype(int)
    np.testing.assert_array_equal(kept[there[:, 1], there[:, 0]], pixels.ravel())
