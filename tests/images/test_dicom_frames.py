"""The frames of a DICOM file are decoded, or one line names what cannot be."""

import subprocess
import sys

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from support.dicom_files import COLOUR, DEEP, GREY, compressed, dataset, dicom, jpeg, saved

from mhvae_cli.errors import InputError
from mhvae_cli.images.read import count_pages, read_scan

# pytest resets the filter of the module
pytestmark = pytest.mark.filterwarnings("ignore::Warning:pydicom")
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_in_both_layouts(planar):
    stored = np.moveaxis(COLOUR, 2, 0) if planar else COLOUR
    ds = dataset(COLOUR, PlanarConfiguration=planar)
    ds.PixelData = stored.tobytes()
    np.testing.assert_array_equal(read_scan(saved(ds)).pixels, COLOUR)


@pytest.mark.parametrize("shape", [(6, 10), (6, 10, 3)])
def test_big_endian_values_are_native(shape):
    deep = RNG.integers(0, 65536, shape, dtype=np.uint16)
    ds = dataset(deep, syntax=ExplicitVRBigEndian)
    ds.PixelData = deep.astype(">u2").tobytes()
    pixels = read_scan(saved(ds)).pixels
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, deep)


def ycc(rgb):
    """By the book: PS3.3 C.7.6.3.1.2, in floats."""
    matrix = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    return np.clip(np.rint(rgb @ np.array(matrix).T + [0, 128, 128]), 0, 255).astype(np.uint8)


def test_ybr_becomes_rgb_full_and_subsampled():
    full = read_scan(dicom(ycc(COLOUR), PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(full.pixels.astype(int), COLOUR, atol=3)
    pairs = COLOUR.repeat(2, 1)[:, :10]  # neighbours share their colour
    wide = ycc(pairs).reshape(6, 5, 2, 3)
    packed = np.stack([wide[:, :, 0, 0], wide[:, :, 1, 0], wide[:, :, 0, 1], wide[:, :, 0, 2]], -1)
    ds = dataset(pairs, PhotometricInterpretation="YBR_FULL_422")
    ds.PixelData = packed.tobytes()
    np.testing.assert_allclose(read_scan(saved(ds)).pixels.astype(int), pairs, atol=3)


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_become_their_colours(bits):
    table = RNG.integers(0, 256, (3, 256), dtype=np.uint8)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, row in zip(("Red", "Green", "Blue"), table, strict=True):
        entries = row if bits == 8 else row.astype("<u2") * 257
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    np.testing.assert_array_equal(
        read_scan(dicom(GREY, **elements)).pixels, np.moveaxis(table[:, GREY], 0, 2)
    )


def test_a_frame_is_read_and_not_the_file(tmp_path):
    """Of 2,000 frames, 60 MB, the last one costs the memory of one."""
    file = tmp_path / "long.dcm"
    ds = dataset(np.zeros((1, 300, 100), np.uint8), frames=1)
    ds.NumberOfFrames = 2000
    ds.PixelData = bytes(2000 * 30000)
    file.write_bytes(saved(ds))
    code = f"""
import tracemalloc
from pathlib import Path
from mhvae_cli.images.read import read_scan
read_scan(Path({str(file)!r}))
tracemalloc.start()
read_scan(Path({str(file)!r}), page=1999)
print(tracemalloc.get_traced_memory()[1])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1_500_000


def test_rle_is_decoded():
    for array, elements in ((GREY, {}), (DEEP, {"BitsStored": 12, "HighBit": 11}), (COLOUR, {})):
        ds = dataset(array, **elements)
        ds.compress(RLELossless)
        np.testing.assert_array_equal(read_scan(saved(ds)).pixels, array)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_jpeg_colours_are_right_whatever_the_header_calls_them(photometric):
    blocks = np.kron(RNG.integers(0, 256, (2, 3, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    options = {"keep_rgb": True} if photometric == "RGB" else {}
    data = jpeg(blocks, quality=98, **options)
    elements = {"PhotometricInterpretation": photometric}
    scan = read_scan(compressed([data], JPEGBaseline8Bit, blocks, **elements))
    np.testing.assert_allclose(scan.pixels[8::16, 8::16].astype(int), blocks[8::16, 8::16], atol=5)
    if photometric != "RGB":
        return
    for ids in (b"RGB", b"\1\2\3"):  # libjpeg takes the latter for YCbCr, where no marker tells
        bare = bytearray(data)
        adobe = data.index(b"\xff\xee")
        frame, passes = data.index(b"\xff\xc0") + 10, data.index(b"\xff\xda") + 5
        bare[frame : frame + 9 : 3] = ids
        bare[passes : passes + 6 : 2] = ids
        del bare[adobe : adobe + 16]
        scan = read_scan(compressed([bytes(bare)], JPEGBaseline8Bit, blocks, **elements))
        np.testing.assert_allclose(scan.pixels[8::16, 8::16].astype(int), blocks[8::16, 8::16], atol=5)


def test_jpeg_of_several_frames_and_jpeg_2000():
    waves = [np.add.outer(np.arange(16), np.arange(24) * k).astype(np.uint8) for k in (2, 5)]
    data = compressed([jpeg(wave, quality=98) for wave in waves], JPEGBaseline8Bit, np.stack(waves))
    assert count_pages(data) == 2
    for number, wave in enumerate(waves):
        np.testing.assert_allclose(read_scan(data, page=number).pixels.astype(int), wave, atol=4)
    lossless = compressed(
        [jpeg(waves[0], "JPEG2000", irreversible=False, no_jp2=True)], JPEG2000Lossless, waves[0]
    )
    np.testing.assert_array_equal(read_scan(lossless).pixels, waves[0])


@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        (JPEGLosslessSV1, "JPEG Lossless"),
        (JPEGExtended12Bit, "JPEG Extended"),
        (DeflatedExplicitVRLittleEndian, "Deflated"),
    ],
)
def test_what_cannot_be_decoded_is_named(syntax, said):
    array = DEEP if syntax == JPEGExtended12Bit else GREY
    plain = syntax == DeflatedExplicitVRLittleEndian
    data = dicom(array, syntax=syntax) if plain else compressed([b"\xff\xd8 no JPEG"], syntax, array)
    with pytest.raises(InputError, match=f"^stdin: cannot decode DICOM in .*{said}") as caught:
        read_scan(data)
    assert caught.value.hint and "\n" not in str(caught.value)
