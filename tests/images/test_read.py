"""Every kind of input comes out with the right numbers and the right way up, or one line says why not."""

import io
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.pictures import COLOUR, DEEP, GREY, JPEG, PNG, SHAPE, pixels, png, saved, tiff

from mhvae_cli.errors import InputError
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import count_pages, read_mask, read_scan, read_text
from mhvae_cli.images.scan import stored, upright

pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:PIL\.")  # pytest resets the filter of the module

RNG = np.random.default_rng(0)


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


def test_avif_is_read(tmp_path):
    blocks = np.kron(COLOUR, np.ones((16, 16, 1))).astype(np.uint8)
    (tmp_path / "x.avif").write_bytes(
        saved(Image.fromarray(blocks), "AVIF", quality=100, subsampling="4:4:4")
    )
    found = pixels(tmp_path / "x.avif").astype(int)
    np.testing.assert_allclose(found[8::16, 8::16], COLOUR, atol=4)


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
    for nothing in (np.nan, np.inf):
        with pytest.raises(InputError, match="no pixel has a finite value"):
            pixels(tiff(np.full((2, 2), nothing, np.float32)))
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


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "PPM", "JPEG2000"])
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


# --- texts -----------------------------------------------------------------------------------------------


def test_texts_behind_the_pixels_are_found(tmp_path):
    plain = encode_png(GREY)
    body = b"tEXtComment\0behind"
    late = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    (tmp_path / "a.png").write_bytes(plain[:-12] + late + plain[-12:])
    assert read_text(tmp_path / "a.png") == {"Comment": "behind"}


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
