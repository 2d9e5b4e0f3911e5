"""Pictures go to the model's square and back, and into a scan."""

import numpy as np
import pytest
from support.pictures import COLOUR, GREY, smooth

from mhvae_cli.images.scan import Scan, scan_of
from mhvae_cli.images.transforms import from_square, to_native, to_square, to_uint8

pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:PIL\.")  # pytest resets the filter of the module
RNG = np.random.default_rng(0)


def test_the_square_is_where_and_what_it_should_be():
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8) * 4, (40, 64))
    square = to_square(ramp, 16, 1)
    assert square.shape == (1, 16, 16) and square.dtype == np.float32 and square.flags.c_contiguous
    centres = (np.arange(16) + 0.5) * 4 - 0.5  # in the ramp's pixels: nothing is shifted
    np.testing.assert_allclose(square[0, 3, 1:-1], (centres * 4 / 127.5 - 1)[1:-1], atol=1.1 / 255)
    np.testing.assert_array_equal(to_square(np.full((5, 9), 255, np.uint8), 4, 1), np.ones((1, 4, 4)))
    np.testing.assert_array_equal(to_square(np.zeros((5, 9), bool), 4, 3), -np.ones((3, 4, 4)))
    assert (to_square(np.ones((5, 9), bool), 4, 1) == 1).all()


def test_shrinking_averages_and_does_not_skip():
    chequers = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    for levels in (chequers, chequers.astype(np.uint16) * 200):
        assert np.abs(to_square(levels, 32, 1)).max() < 0.02


def test_grey_and_colour_convert_both_ways():
    same = to_square(GREY, 8, 3)
    assert same.shape == (3, 8, 8) and (same == same[0]).all()
    colour = to_square(COLOUR, 8, 3)
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    np.testing.assert_allclose(to_square(COLOUR, 8, 1)[0], luma, atol=1e-6)
    as_grey = to_square(np.dstack([GREY] * 3), 8, 1)
    np.testing.assert_allclose(as_grey, to_square(GREY, 8, 1), atol=1e-6)


def test_sixteen_bits_fill_the_range_whatever_their_scale():
    levels = RNG.integers(0, 4096, (300, 200)).astype(np.uint16)
    levels[100:, 50:] //= 2
    square = to_square(levels, 50, 1)
    np.testing.assert_allclose(to_square(levels * 9 + 1000, 50, 1), square, atol=1e-4)
    eight = to_square((levels // 16).astype(np.uint8), 50, 1)
    np.testing.assert_allclose(square, eight, atol=0.03)
    hot = levels.copy()
    hot[7, 7] = 65535
    np.testing.assert_allclose(to_square(hot, 50, 1)[:, 3:, 3:], square[:, 3:, 3:], atol=0.01)
    assert to_square(np.dstack([levels] * 3), 50, 3).shape == (3, 50, 50)
    assert (to_square(np.full((9, 9), 700, np.uint16), 4, 1) == -1).all()
    assert np.ptp(to_square(np.pad(np.ones((1, 1), np.uint16), 400), 800, 1)) > 0


def test_made_pictures_go_back_through_the_window():
    deep = np.rint(smooth((200, 300)) * 3000 + 700).astype(np.uint16)
    scan = scan_of(deep, window=(500, 4000))
    back = to_native(to_square(deep, 128, 1, window=scan.window), scan)
    assert back.dtype == np.uint16 and np.abs(back.astype(int) - deep).max() <= 30
    ends = to_native(np.array([[[-1.0, 1.0]]]), Scan(deep, window=(-500.0, 70000.0)))
    assert (ends.min(), ends.max()) == (0, 65535)  # nothing wraps around


def test_the_range_goes_back():
    np.testing.assert_array_equal(from_square(to_square(COLOUR[:, :6], 6, 3)), COLOUR[:, :6])
    np.testing.assert_array_equal(from_square(np.array([[[-9.0, -1, 0, 1, 9]]])), [[0, 0, 128, 255, 255]])
    np.testing.assert_array_equal(to_uint8(GREY), GREY)
    shown = to_uint8(np.linspace(500, 1500, 1000).astype(np.uint16)[None])
    assert shown.dtype == np.uint8 and shown.min() == 0 and shown.max() == 255


@pytest.mark.parametrize("size", [(200, 300), (64, 64), (50, 90), (257, 131)])
def test_a_smooth_picture_goes_to_the_square_and_back(size):
    grey = np.rint(smooth(size) * 255).astype(np.uint8)
    back = to_native(to_square(grey, 128, 1), scan_of(grey))
    assert back.dtype == np.uint8 and back.shape == size
    assert np.abs(back.astype(int) - grey).max() <= 2
    colour = np.dstack([np.rint(smooth(size, phase) * 255) for phase in range(3)]).astype(np.uint8)
    back = to_native(to_square(colour, 128, 3), scan_of(colour))
    assert back.shape == (*size, 3) and np.abs(back.astype(int) - colour).max() <= 2


def test_sixteen_bits_go_back_through_their_own_window():
    deep = np.rint(smooth((200, 300)) * 3000 + 700).astype(np.uint16)
    back = to_native(to_square(deep, 128, 1), scan_of(deep))
    assert back.dtype == np.uint16 and np.abs(back.astype(int) - deep).max() <= 30
    colour = np.dstack([deep, deep // 2, deep // 3])
    back = to_native(to_square(colour, 128, 3), scan_of(colour))
    window = np.ptp(np.percentile(colour, (0.1, 99.9)))
    assert back.shape == colour.shape and np.abs(back.astype(int) - colour).max() <= 0.01 * window
    flat = np.full((9, 11), 700, np.uint16)
    np.testing.assert_array_equal(to_native(to_square(flat, 4, 1), scan_of(flat)), flat)
    full = np.repeat(np.array([[0, 65535]], np.uint16), 500, axis=1)
    ends = to_native(np.array([[[-5.0, 5.0]]]), Scan(full))  # nothing wraps around
    assert (ends[0, 0], ends[0, -1]) == (0, 65535) and (np.diff(ends.astype(int)) >= 0).all()


def test_a_made_picture_needs_no_scan_and_never_leaves_the_range():
    step = np.where(np.arange(8) < 4, -1.0, 1.0)[None, None].repeat(8, 1)
    up = to_native(step, (40, 80))
    assert up.dtype == np.uint8 and up.shape == (40, 80)
    assert up.min() == 0 and up.max() == 255 and (np.diff(up[0].astype(int)) >= 0).all()
    np.testing.assert_array_equal(to_native(step, (8, 8)), from_square(step))
    assert to_native(np.zeros((3, 8, 8)), (5, 7)).shape == (5, 7, 3)
    np.testing.assert_array_equal(to_native(np.full((1, 8, 8), 0.5), (3, 3)), np.full((3, 3), 191))


def test_a_made_picture_lies_where_the_scan_does():
    """Edge to edge: a linear ramp keeps its place, and is not shifted by a part of a pixel."""
    centres = (np.arange(32) + 0.5) / 32 * 2 - 1
    ramp = np.broadcast_to(centres, (1, 32, 32))
    made = to_native(ramp, (10, 96))[4]
    expected = ((np.arange(96) + 0.5) / 96 * 2 - 1 + 1) * 127.5
    np.testing.assert_allclose(made[6:-6], expected[6:-6], atol=0.6)
