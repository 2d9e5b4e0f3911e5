"""16-bit colours of PNG and PPM files keep their low bytes."""

import struct
import zlib

import numpy as np
import pytest
from support.pictures import pixels, png

from mhvae_cli.errors import InputError
from mhvae_cli.images.read import read_mask, read_scan

RNG = np.random.default_rng(0)
RGB, GREY_WITH_ALPHA, RGBA = 2, 4, 6


def filtered(array):
    """The rows of a PNG of 16 bits, each with another of the filters None, Sub and Up."""
    data = array.astype(">u2")
    rows = data.view(np.uint8).reshape(len(data), -1)
    pixel = 2 * array.shape[2]
    coded = b""
    for number, row in enumerate(rows):
        above = rows[number - 1] if number else np.zeros_like(row)
        left = np.concatenate([np.zeros(pixel, np.uint8), row[:-pixel]])
        coded += bytes([number % 3]) + (row - [0 * row, left, above][number % 3]).astype(np.uint8).tobytes()
    return coded


def deep_png(array, colour):
    height, width, _ = array.shape
    return png(width, height, 16, colour, filtered(array))


@pytest.mark.parametrize("top", [4096, 65536], ids=["12 bits in 16", "16 bits"])
def test_png_colours(top):
    rgb = RNG.integers(0, top, (9, 7, 3), dtype=np.uint16)
    scan = read_scan(deep_png(rgb, RGB))
    assert scan.bits == 16
    np.testing.assert_array_equal(scan.pixels, rgb)
    alpha = RNG.integers(0, 65536, (9, 7, 1), dtype=np.uint16)
    wanted = np.rint(rgb * (alpha / 65535))
    np.testing.assert_array_equal(pixels(deep_png(np.dstack([rgb, alpha]), RGBA)), wanted)
    grey = np.dstack([rgb[..., :1], alpha])
    np.testing.assert_array_equal(pixels(deep_png(grey, GREY_WITH_ALPHA)), wanted[..., 0])


def test_a_colour_of_a_png_may_be_transparent():
    rgb = RNG.integers(0, 4096, (9, 7, 3), dtype=np.uint16) | 1
    data = deep_png(rgb, RGB)
    body = b"tRNS" + rgb[2, 3].astype(">u2").tobytes()
    chunk = struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))
    found = pixels(data[:33] + chunk + data[33:])
    rgb[2, 3] = 0
    np.testing.assert_array_equal(found, rgb)
    np.testing.assert_array_equal(read_mask(data[:33] + chunk + data[33:]), rgb.any(axis=2))


@pytest.mark.parametrize("top", [4095, 65535])
def test_ppm_colours_fill_the_range(top):
    rgb = RNG.integers(0, top + 1, (9, 7, 3), dtype=np.uint16)
    data = f"P6 7 9 {top}\n".encode() + rgb.astype(">u2").tobytes()
    np.testing.assert_array_equal(pixels(data), np.rint(rgb / top * 65535))
    with pytest.raises(InputError, match="truncated PPM"):
        read_scan(data[:-1])
    with pytest.raises(InputError, match=r"^stdin: PPM as text with 16-bit colours"):
        read_scan(b"P3 1 1 4095 1 2 3\n")
