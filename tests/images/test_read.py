"""Every kind of input comes out with the right numbers and the right way up, or one line says why not."""

import errno
import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from mhvae_cli.errors import InputError, OutputError
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_gif, encode_png, encode_tiff
from mhvae_cli.images.read import count_pages, read_mask, read_scan, read_text
from mhvae_cli.images.scan import Scan, scan_of, stored, upright
from mhvae_cli.images.transforms import composite, from_square, to_native, to_square, to_uint8

pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:PIL\.")  # pytest resets the filter of the module

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
DEEP = np.array([[0, 1, 255, 256], [300, 4095, 40000, 65535]], np.uint16)


def saved(picture, form, **options):
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()


def png(width, height, depth, colour, rows=b""):
    """A PNG written by hand: `rows` are the raw bytes, each row with its filter byte."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff(*pages, order="<", photometric=1, orientation=1):
    """A TIFF written by hand: uncompressed grey pages of any dtype, in either byte order."""
    data = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    for number, page in enumerate(pages, 1):
        body = page.astype(page.dtype.newbyteorder(order)).tobytes()
        kind = {"u": 1, "i": 2, "f": 3}[page.dtype.kind]
        height, width = page.shape
        start = len(data) + 2 + 10 * 12 + 4
        tags = [(256, width), (257, height), (258, 8 * page.itemsize), (259, 1), (262, photometric)]
        tags += [(273, start), (274, orientation), (278, height), (279, len(body)), (339, kind)]
        data += struct.pack(order + "H", len(tags))
        for tag, value in tags:
            data += struct.pack(order + "HHII", tag, 4, 1, value)
        data += struct.pack(order + "I", 0 if number == len(pages) else start + len(body)) + body
    return data


def pixels(source, **options):
    return read_scan(source, **options).pixels


# --- numbers ---------------------------------------------------------------------------------------------


def test_one_bit_is_black_and_white():
    bits = np.array([[1, 0, 0, 1, 1, 0, 1, 0, 1, 1], [0, 0, 1, 0, 1, 0, 0, 1, 0, 1]], np.uint8)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    np.testing.assert_array_equal(pixels(png(10, 2, 1, 0, rows)), bits * 255)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP", "PPM", "GIF"])
def test_eight_bit_grey_keeps_its_numbers(form):
    scan = read_scan(saved(Image.fromarray(GREY), form))
    shown = scan.pixels if scan.pixels.ndim == 2 else scan.pixels[..., 0]  # a GIF is always a palette
    np.testing.assert_array_equal(shown, GREY)
    assert (scan.bits, scan.page, scan.orientation, scan.name) == (8, 0, 1, "stdin")


def test_sixteen_bit_png_is_not_clipped_to_white():
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in DEEP)
    scan = read_scan(png(4, 2, 16, 0, rows))
    assert (scan.pixels.dtype, scan.bits) == (np.uint16, 16)
    np.testing.assert_array_equal(scan.pixels, DEEP)


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bit_tiff_in_both_byte_orders(order):
    scan = read_scan(tiff(DEEP, order=order))
    assert scan.pixels.dtype == np.uint16 and scan.pixels.dtype.isnative
    np.testing.assert_array_equal(scan.pixels, DEEP)


def test_white_is_zero_is_inverted_at_8_and_16_bits():
    np.testing.assert_array_equal(pixels(tiff(GREY, photometric=0)), 255 - GREY)
    np.testing.assert_array_equal(pixels(tiff(DEEP, photometric=0)), 65535 - DEEP)


def test_wide_numbers_that_fit_16_bits_are_kept():
    for dtype in (np.int16, np.int32, np.uint32, np.float32):
        values = np.array([[0, 7], [300, 32767]], dtype)
        np.testing.assert_array_equal(pixels(tiff(values)), values)


@pytest.mark.parametrize(
    "values",
    [[[0.0, 0.25], [0.5, 1.0]], [[-1024, 0], [1024, 3072]], [[0, 250_000], [500_000, 1_000_000]]],
)
def test_wide_numbers_that_do_not_fit_are_stretched_to_their_own_range(values):
    values = np.array(values)
    want = np.rint((values - values.min()) / np.ptp(values) * 65535)
    np.testing.assert_array_equal(pixels(tiff(values.astype(np.float32))), want)
    if values.dtype.kind == "i":
        np.testing.assert_array_equal(pixels(tiff(values.astype(np.int32))), want)


def test_floats_with_nan_and_inf_still_have_a_range():
    values = np.array([[0.5, np.nan], [np.inf, -np.inf], [1.0, 1.5]], np.float32)
    np.testing.assert_array_equal(pixels(tiff(values)), [[0, 0], [65535, 0], [32768, 65535]])
    assert not pixels(tiff(np.full((2, 2), np.nan, np.float32))).any()
    assert not pixels(tiff(np.full((2, 2), -3.5, np.float32))).any()


def test_rgb_and_opaque_rgba_are_the_same():
    opaque = np.dstack([COLOUR, np.full(GREY.shape, 255, np.uint8)])
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(COLOUR), "PNG")), COLOUR)
    np.testing.assert_array_equal(pixels(saved(Image.fromarray(opaque), "PNG")), COLOUR)


def test_transparency_is_composited_on_black():
    alpha = RNG.integers(0, 256, GREY.shape, dtype=np.uint8)
    rgba = saved(Image.fromarray(np.dstack([COLOUR, alpha])), "PNG")
    np.testing.assert_array_equal(pixels(rgba), np.rint(COLOUR * (alpha[..., None] / 255)))
    grey = saved(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)]), "PNG")
    np.testing.assert_array_equal(pixels(grey), np.rint(GREY * (alpha / 255)))


def test_palettes_become_their_colours():
    picture = Image.fromarray((GREY % 4).astype(np.uint8)).convert("P")
    colours = np.array([[9, 8, 7], [250, 0, 0], [0, 250, 0], [1, 2, 250]], np.uint8)
    picture.putpalette(colours.ravel().tolist())
    np.testing.assert_array_equal(pixels(saved(picture, "PNG")), colours[GREY % 4])
    seen = np.where((GREY % 4 == 1)[..., None], 0, colours[GREY % 4])
    np.testing.assert_array_equal(pixels(saved(picture, "PNG", transparency=1)), seen)


def test_other_colour_spaces_become_rgb():
    blocks = np.kron([[40, 200]], np.ones((16, 16))).astype(np.uint8)
    ycbcr = saved(Image.fromarray(np.dstack([blocks] * 3)).convert("YCbCr"), "TIFF")
    np.testing.assert_allclose(pixels(ycbcr).astype(int), np.dstack([blocks] * 3), atol=1)


def test_cmyk_becomes_rgb():
    inks = np.array(
        [[[0, 255, 255, 0], [255, 0, 255, 0], [0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 55]]], np.uint8
    )
    want = [[[255, 0, 0], [0, 255, 0], [255, 255, 255], [0, 0, 0], [200, 200, 200]]]
    tiff_pixels = pixels(saved(Image.fromarray(inks, "CMYK"), "TIFF"))
    np.testing.assert_array_equal(tiff_pixels, want)
    blocks = inks.repeat(16, 0).repeat(16, 1)
    jpeg = pixels(saved(Image.fromarray(blocks, "CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(jpeg[8:9, 8::16].astype(int), want, atol=6)


# --- which way up, and which page ------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied_and_taken_back(form, orientation):
    blocks = np.kron([[10, 60, 110], [160, 210, 250]], np.ones((16, 16))).astype(np.uint8)
    picture = Image.fromarray(np.dstack([blocks] * 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if form == "TIFF" else {"quality": 100} if form == "JPEG" else {"lossless": True}
    scan = read_scan(saved(picture, form, exif=exif.tobytes(), **options))
    picture.getexif()[0x0112] = orientation
    want = np.asarray(ImageOps.exif_transpose(picture))
    assert scan.orientation == orientation and scan.pixels.shape == want.shape
    np.testing.assert_allclose(scan.pixels.astype(int), want, atol=3)
    back = stored(scan.pixels, orientation)
    assert back.flags.c_contiguous
    np.testing.assert_array_equal(upright(back, orientation), scan.pixels)
    np.testing.assert_allclose(back.astype(int), np.asarray(picture), atol=3)


def test_a_nonsense_orientation_counts_as_none():
    exif = Image.Exif()
    exif[0x0112] = 77
    scan = read_scan(saved(Image.fromarray(GREY), "PNG", exif=exif.tobytes()))
    assert scan.orientation == 1
    np.testing.assert_array_equal(scan.pixels, GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_as_they_are_stored(orientation):
    mask = np.array([[1, 0, 0], [1, 1, 0]], np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_mask(tiff(mask, orientation=orientation)), mask)
    with_exif = saved(Image.fromarray(mask), "PNG", exif=exif.tobytes())
    np.testing.assert_array_equal(read_mask(with_exif), mask)


def test_each_page_of_a_tiff_is_a_picture(tmp_path):
    pages = [GREY, GREY.T.copy(), DEEP]
    file = tmp_path / "pages.tif"
    file.write_bytes(tiff(*pages, orientation=6))
    assert count_pages(file) == count_pages(file.read_bytes()) == 3
    for number, page in enumerate(pages):
        scan = read_scan(file, page=number)
        assert (scan.page, scan.name, scan.orientation) == (number, str(file), 6)
        np.testing.assert_array_equal(scan.pixels, np.rot90(page, -1))
    with pytest.raises(InputError, match="has no page 4"):
        read_scan(file, page=3)


def test_pages_of_16_bits_and_of_floats():
    reals = np.array([[0.25, 0.5, 0.75], [1.0, 1.25, 1.5]], np.float32)
    data = tiff(DEEP, reals, reals * 4)
    assert count_pages(data) == 3
    np.testing.assert_array_equal(pixels(data), DEEP)
    np.testing.assert_array_equal(pixels(data, page=1), np.rint((reals - 0.25) / 1.25 * 65535))
    np.testing.assert_array_equal(pixels(data, page=2), reals * 4)  # whole numbers are kept
    half = read_scan(data, page=1, window=(0.5, 1.5))
    np.testing.assert_array_equal(half.pixels, np.rint(np.clip(reals - 0.5, 0, 1) * 65535))


def test_an_animation_is_its_first_frame():
    gif = saved(Image.fromarray(GREY), "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)])
    assert count_pages(gif) == 1
    with pytest.raises(InputError, match="has no page 2"):
        read_scan(gif, page=1)


# --- masks -----------------------------------------------------------------------------------------------

SHAPE = np.array([[0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)


@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(SHAPE),
        Image.fromarray(SHAPE.astype(np.uint8)),
        Image.fromarray(SHAPE.astype(np.uint8) * 255),
        Image.fromarray(np.dstack([0 * SHAPE, SHAPE * 128, 0 * SHAPE]).astype(np.uint8)),
        Image.fromarray(np.dstack([np.full((3, 4, 3), 255), SHAPE * 255]).astype(np.uint8)),
    ],
    ids=["1 bit", "0 and 1", "0 and 255", "one channel", "alpha"],
)
def test_any_non_zero_is_inside(picture):
    mask = read_mask(saved(picture, "PNG"))
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, SHAPE)


def test_sixteen_bit_and_float_masks():
    np.testing.assert_array_equal(read_mask(encode_png(SHAPE.astype(np.uint16) * 256)), SHAPE)
    values = np.array([[0, np.nan], [0.5, 0]], np.float32)
    np.testing.assert_array_equal(read_mask(tiff(values)), [[False, False], [True, False]])


def test_in_a_palette_the_index_counts_not_the_colour():
    picture = Image.fromarray(SHAPE.astype(np.uint8)).convert("P")
    picture.putpalette([200, 200, 200, 0, 0, 0])
    np.testing.assert_array_equal(read_mask(saved(picture, "PNG")), SHAPE)


def test_the_ringing_of_a_jpeg_is_not_a_mask():
    yy, xx = np.mgrid[:64, :64]
    disc = (yy - 30) ** 2 + (xx - 34) ** 2 < 400
    jpeg = saved(Image.fromarray(disc.astype(np.uint8) * 255), "JPEG", quality=60)
    assert (np.asarray(Image.open(io.BytesIO(jpeg))) > 0).sum() > disc.sum() + 100
    assert (read_mask(jpeg) != disc).sum() <= 10


# --- faults ----------------------------------------------------------------------------------------------

JPEG = saved(Image.fromarray(RNG.integers(0, 256, (80, 90, 3), dtype=np.uint8)), "JPEG")
PNG = saved(Image.fromarray(RNG.integers(0, 256, (80, 90, 3), dtype=np.uint8)), "PNG")
BOMB = png(20_000, 20_000, 8, 0)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "empty file"),
        (b"this is text\n" * 9, "not an image of a supported type"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image of a supported type"),
        (BOMB, "more than 100 million pixels"),
        (png(12_000, 12_000, 8, 0), "more than 100 million pixels"),
        (JPEG[: len(JPEG) // 2], "truncated JPEG"),
        (PNG[: len(PNG) // 2], "truncated PNG"),
        (tiff(GREY)[:-9], "truncated TIFF"),
        (PNG[:100] + b"\xff\xff" + PNG[102:], "damaged PNG"),
    ],
    ids=["empty", "text", "eps", "bomb", "big", "cut jpeg", "cut png", "cut tiff", "flipped bits"],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path, data, fault):
    file = tmp_path / "x.png"
    file.write_bytes(data)
    for read in (read_scan, read_mask):
        with pytest.raises(InputError) as caught:
            read(file)
        assert str(caught.value).startswith(f"{file}: {fault}") and "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"^from a pipe: {fault}"):
        read_scan(data, name="from a pipe")


def test_the_header_alone_condemns_a_bomb():
    with pytest.raises(InputError, match="more than 100 million pixels"):
        count_pages(BOMB)


def test_a_bomb_on_the_second_page_is_refused_too():
    data = bytearray(tiff(GREY, GREY))
    second = bytes(data).index(struct.pack("<HHII", 256, 4, 1, 9), 100)
    data[second : second + 24] = struct.pack("<HHIIHHII", 256, 4, 1, 20_000, 257, 4, 1, 20_000)
    np.testing.assert_array_equal(pixels(bytes(data)), GREY)
    with pytest.raises(InputError, match="more than 100 million pixels"):
        read_scan(bytes(data), page=1)


def test_what_is_not_a_file_is_said(tmp_path):
    (tmp_path / "x.png").mkdir()
    with pytest.raises(InputError, match=r"x\.png: is a directory"):
        read_scan(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"gone\.png: no such file or directory"):
        read_scan(tmp_path / "gone.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png: not a regular file"):
        count_pages(tmp_path / "pipe.png")


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000"])
def test_no_damage_escapes_as_anything_but_an_input_error(form):
    rng = np.random.default_rng(1)
    whole = saved(Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)), form)
    cuts = [whole[:length] for length in rng.integers(1, len(whole), 15)]
    for _ in range(25):
        flipped = bytearray(whole)
        for place in rng.integers(0, min(len(whole), 200), 3):
            flipped[place] = rng.integers(256)
        cuts.append(bytes(flipped))
    for data in cuts:
        try:
            assert read_scan(data).pixels.size
        except InputError as fault:
            assert "\n" not in str(fault)


# --- arrays and the model's square -----------------------------------------------------------------------


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


def smooth(size, phase=0.0):
    """Waves of some pixels' length over the whole image, in [0, 1]."""
    y, x = np.mgrid[: size[0], : size[1]] / np.max(size)
    return (2 + np.sin(7 * x + 3 * y + phase) + np.cos(5 * y - 4 * x + phase)) / 4


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("kept_shape", [(40, 60), (40, 60, 3)])
@pytest.mark.parametrize("made_shape", [(40, 60), (40, 60, 3)])
def test_a_composite_keeps_the_scan_to_the_bit_outside(dtype, kept_shape, made_shape):
    top = np.iinfo(dtype).max
    kept, made = (RNG.integers(0, top, shape, dtype, endpoint=True) for shape in (kept_shape, made_shape))
    inside = np.zeros((40, 60))
    inside[:, 20:40] = np.linspace(0, 1, 22)[1:-1]
    inside[:, 40:] = 1
    mixed = composite(made, kept, inside)
    assert mixed.dtype == dtype and mixed.shape == kept_shape
    np.testing.assert_array_equal(mixed[:, :20], kept[:, :20])
    over = made.astype(np.float64)
    if len(kept_shape) < len(made_shape):
        over = over @ [0.299, 0.587, 0.114]
    elif len(kept_shape) > len(made_shape):
        over = over[..., None].repeat(3, 2)
    cover = inside if len(kept_shape) == 2 else inside[..., None]
    np.testing.assert_allclose(mixed, over * cover + kept * (1 - cover), atol=0.51)
    if len(kept_shape) >= len(made_shape):
        np.testing.assert_array_equal(mixed[:, 40:], over[:, 40:])


# --- out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", [encode_png, encode_tiff])
@pytest.mark.parametrize("array", [GREY, COLOUR, DEEP, GREY.T, DEEP[:, ::-1]], ids=str)
def test_what_is_encoded_reads_back(encode, array):
    scan = read_scan(encode(array))
    assert scan.pixels.dtype == array.dtype
    np.testing.assert_array_equal(scan.pixels, array)


def test_masks_are_8_bit_0_and_255():
    for encode, form in ((encode_png, "PNG"), (encode_tiff, "TIFF")):
        picture = Image.open(io.BytesIO(encode(SHAPE)))
        assert (picture.format, picture.mode, picture.size) == (form, "L", (4, 3))
        np.testing.assert_array_equal(np.asarray(picture), SHAPE * 255)
        np.testing.assert_array_equal(read_mask(encode(~SHAPE)), ~SHAPE)


@pytest.mark.parametrize("encode", [encode_png, encode_tiff])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_stored_pixels_and_their_orientation_read_upright(encode, orientation):
    data = encode(stored(GREY, orientation), orientation=orientation)
    scan = read_scan(data)
    assert scan.orientation == orientation
    np.testing.assert_array_equal(scan.pixels, GREY)
    with Image.open(io.BytesIO(data)) as picture:  # as a viewer does it
        np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(picture)), GREY)


def test_the_exif_of_a_png_is_the_orientation_alone():
    data = encode_png(GREY, orientation=6)
    body = data[data.index(b"eXIf") + 4 :]
    order = "<" if body[:2] == b"II" else ">"
    (start,) = struct.unpack(order + "I", body[4:8])
    (count,) = struct.unpack(order + "H", body[start : start + 2])
    tag, _, number, value = struct.unpack(order + "HHIH", body[start + 2 : start + 12])
    assert (count, tag, number, value) == (1, 0x0112, 1, 6)
    assert b"eXIf" not in encode_png(GREY) and b"iTXt" not in encode_png(GREY)


def test_texts_go_in_and_come_out():
    text = {"mhvae": '{"a": 1}', "Software": "mhvae 1", "Description": "Ünïcödé, 日本"}
    for array in (GREY, COLOUR, DEEP, SHAPE):
        png = encode_png(array, text=text)
        assert read_text(png) == text and png.count(b"iTXt") == 3
        np.testing.assert_array_equal(pixels(png), pixels(encode_png(array)))
        tagged = encode_tiff(array, text=text)
        assert read_text(tagged) == {"ImageDescription": '{"a": 1}', "Software": "mhvae 1"}
        np.testing.assert_array_equal(pixels(tagged), pixels(encode_tiff(array)))
    gif = encode_gif([GREY], ms_per_frame=100, text=text)
    assert read_text(gif) == {"Comment": '{"a": 1}'}
    for plain in (JPEG, PNG, encode_tiff(GREY), encode_gif([GREY], ms_per_frame=10)):
        assert read_text(plain) == {}
    assert encode_png(GREY, text={}) == encode_png(GREY)


def test_texts_behind_the_pixels_are_found(tmp_path):
    plain = encode_png(GREY)
    body = b"tEXtComment\0behind"
    late = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(plain[:-12] + late + plain[-12:])
    assert read_text(tmp_path / "a.png") == {"Comment": "behind"}


def test_a_gif_shows_its_frames():
    ramp = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    frames = [ramp, 255 - ramp, np.roll(ramp, 1, 1), np.roll(ramp, 1, 1)]
    picture = Image.open(io.BytesIO(encode_gif(frames, ms_per_frame=80)))
    assert (picture.n_frames, picture.info["loop"]) == (3, 0)
    for number, frame in enumerate(frames[:3]):
        picture.seek(number)
        np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), np.dstack([frame] * 3))
        assert picture.info["duration"] == (160 if number == 2 else 80)
    noise = RNG.integers(0, 256, (2, 60, 70), dtype=np.uint8)  # every grey there is, in both
    picture = Image.open(io.BytesIO(encode_gif(list(noise), ms_per_frame=80)))
    for number in range(2):
        picture.seek(number)
        np.testing.assert_array_equal(np.asarray(picture.convert("L")), noise[number])
    waves = [
        np.dstack([np.rint(255 * smooth((64, 80), p + q)) for p in range(3)]).astype(np.uint8) for q in (0, 1)
    ]
    picture = Image.open(io.BytesIO(encode_gif(waves, ms_per_frame=80)))
    for number, wave in enumerate(waves):
        picture.seek(number)
        assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - wave).mean() < 6


def test_a_file_is_written_whole_with_its_parents(tmp_path):
    file = tmp_path / "a" / "b" / "mask.png"
    write_atomic(file, b"one")
    write_atomic(file, b"two")
    assert file.read_bytes() == b"two" and os.listdir(file.parent) == ["mask.png"]
    umask = os.umask(0)
    os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    long = tmp_path / ("n" * 251 + ".png")
    write_atomic(long, b"three")
    assert long.read_bytes() == b"three"


@pytest.mark.parametrize("step", ["replace", "write"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    file = tmp_path / "mask.png"
    file.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def pieces():
        yield b"ne"
        full()

    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match=r"mask\.png: no space left on device"):
            write_atomic(file, b"new" if step == "replace" else pieces())
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["mask.png"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "folder.png", tmp_path / "file" / "below.png"):
        with pytest.raises(OutputError, match=f"^{place}: "):
            write_atomic(place, b"data")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]


def test_reading_needs_no_torch_and_leaves_stderr_to_others():
    code = f"""
import sys
from mhvae_cli.images import read
for data in ({png(12_000, 12_000, 8, 0)!r}, {tiff(GREY)[:100]!r}):
    try:
        read.read_scan(data)
    except read.InputError:
        print("refused")
print([name for name in ("torch", "scipy") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["refused", "refused", "[]"] and run.stderr == ""
