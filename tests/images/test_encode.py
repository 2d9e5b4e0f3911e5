"""What is encoded reads back: pixels, orientation, texts and frames."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.pictures import COLOUR, DEEP, GREY, JPEG, PNG, SHAPE, pixels, smooth

from mhvae_cli.images.encode import encode_gif, encode_png, encode_tiff
from mhvae_cli.images.read import read_mask, read_scan, read_text
from mhvae_cli.images.scan import stored

pytestmark = pytest.mark.filterwarnings(r"ignore::Warning:PIL\.")  # pytest resets the filter of the module
RNG = np.random.default_rng(0)


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
