"""The frames of a DICOM file are decoded, or one line names what cannot be."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from support.dicom_files import COLOUR, DEEP, GREY, compressed, dataset, dicom, jpeg, saved

from mhvae_cli.errors import InputError
from mhvae_cli.images import dicom as dicom_module
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


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("bits", "factor"), [(8, 1), (16, 257), (16, 1)], ids=["8", "16", "8 in 16"])
def test_palettes_become_their_colours(bits, factor, syntax):
    table = RNG.integers(0, 256, (3, 300), dtype=np.uint8)
    index = DEEP % 300
    order = "<" if syntax == ExplicitVRLittleEndian else ">"
    elements = {"PhotometricInterpretation": "PALETTE COLOR", "syntax": syntax}
    for name, row in zip(("Red", "Green", "Blue"), table, strict=True):
        entries = row if bits == 8 else (row.astype(np.uint16) * factor).astype(f"{order}u2")
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [300, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    found = read_scan(dicom(index.astype(f"{order}u2"), **elements)).pixels
    np.testing.assert_array_equal(found, np.moveaxis(table[:, index], 0, 2))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_segmented_palette_is_expanded(syntax):
    """PS3.3, C.7.9.2: ten values as they are, a straight line of 246 values, and four more."""
    order = "<" if syntax == ExplicitVRLittleEndian else ">"
    start = RNG.integers(0, 65536, 10)
    line = np.rint(np.linspace(start[-1], 64000, 247)[1:])
    segments = np.array([0, 10, *start, 1, 246, 64000, 0, 4, 1, 2, 3, 4], f"{order}u2")
    table = np.concatenate([start, line, [1, 2, 3, 4]]).astype(int)
    index = DEEP % 260
    elements = {"PhotometricInterpretation": "PALETTE COLOR", "syntax": syntax}
    for name in ("Red", "Green", "Blue"):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [260, 0, 16]
        elements[f"Segmented{name}PaletteColorLookupTableData"] = segments.tobytes()
    found = read_scan(dicom(index.astype(f"{order}u2"), **elements)).pixels
    np.testing.assert_allclose(found[..., 1].astype(int), table[index] >> 8, atol=1)
    assert (found == found[..., :1]).all() and len(np.unique(found)) > 20


@pytest.mark.parametrize("height", [6, 5], ids=["even frames", "odd frames"])
@pytest.mark.parametrize("vr", ["OW", "OB"])
def test_8_bits_in_big_endian_words(vr, height):
    """PS3.5, 8.1.1: in OW the bytes of each word are swapped."""
    frames = RNG.integers(0, 256, (4, height, 7, 3), dtype=np.uint8)
    ds = dataset(frames, frames=4, syntax=ExplicitVRBigEndian)
    ds.PixelData = (
        np.frombuffer(frames.tobytes(), "u2").byteswap().tobytes() if vr == "OW" else frames.tobytes()
    )
    ds["PixelData"].VR = vr
    data = saved(ds)
    for page in range(4):
        np.testing.assert_array_equal(read_scan(data, page=page).pixels, frames[page])


def test_16_bit_colours_in_big_endian():
    deep = RNG.integers(0, 65536, (6, 10, 3), dtype=np.uint16)
    scan = read_scan(dicom(deep.astype(">u2"), syntax=ExplicitVRBigEndian))
    assert scan.pixels.dtype == np.uint16 and scan.pixels.dtype.isnative
    np.testing.assert_array_equal(scan.pixels, deep)


def test_deflated_files_are_inflated_within_bounds(monkeypatch):
    ds = dataset(DEEP, syntax=DeflatedExplicitVRLittleEndian)
    np.testing.assert_array_equal(read_scan(saved(ds)).pixels, DEEP)
    with pytest.raises(InputError, match="truncated DICOM"):
        read_scan(saved(ds)[:-40])
    monkeypatch.setattr(dicom_module, "_MAX_INFLATED", 100)
    with pytest.raises(InputError, match="of deflated DICOM") as caught:
        read_scan(saved(ds))
    assert "decompress it first" in caught.value.hint


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


def test_12_bit_jpeg_where_pylibjpeg_is_installed():
    pytest.importorskip("libjpeg")
    file = Path(pydicom.__file__).parent / "data" / "test_files" / "JPGExtended.dcm"
    scan = read_scan(file)
    assert scan.bits == 16
    np.testing.assert_array_equal(scan.pixels, pydicom.dcmread(file).pixel_array)


@pytest.mark.skipif(find_spec("libjpeg") is not None, reason="pylibjpeg would decode them")
@pytest.mark.parametrize(
    ("syntax", "said"),
    [
        (JPEGLosslessSV1, "JPEG Lossless"),
        (JPEGExtended12Bit, "JPEG Extended"),
        (MPEG2MPML, "MPEG2"),
    ],
)
def test_what_cannot_be_decoded_is_named(syntax, said):
    array = DEEP if syntax == JPEGExtended12Bit else GREY
    data = compressed([b"\xff\xd8 no JPEG"], syntax, array)
    with pytest.raises(InputError, match=f"^stdin: cannot decode DICOM in .*{said}") as caught:
        read_scan(data)
    assert ("pylibjpeg-libjpeg" in caught.value.hint) == ("JPEG" in said)
    assert "\n" not in str(caught.value)
