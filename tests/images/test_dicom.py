"""DICOM files are read and decoded, or one line says why not, and nothing of the patient is told."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)
from support.dicom_files import DEEP, GREY, ID, NAME, compressed, dataset, dicom, jpeg, saved

from mhvae_cli.errors import InputError
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import count_pages, read_mask, read_resolution, read_scan, read_text

# pytest resets the filter of the module
pytestmark = pytest.mark.filterwarnings("ignore::Warning:pydicom")

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)


# --- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_grey_of_8_and_16_bits_keeps_its_numbers(syntax):
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    deep = read_scan(dicom(DEEP.astype(order + "u2"), syntax=syntax, BitsStored=12, HighBit=11))
    assert (deep.pixels.dtype, deep.bits, deep.orientation, deep.page) == (np.uint16, 16, 1, 0)
    np.testing.assert_array_equal(deep.pixels, DEEP)
    if syntax != ExplicitVRBigEndian:
        eight = read_scan(dicom(GREY, syntax=syntax))
        np.testing.assert_array_equal(eight.pixels, GREY)
        assert (eight.bits, eight.window, eight.spacing, eight.name) == (8, None, None, "stdin")


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_in_both_layouts(planar):
    stored = np.moveaxis(COLOUR, 2, 0) if planar else COLOUR
    ds = dataset(COLOUR, PlanarConfiguration=planar)
    ds.PixelData = stored.tobytes()
    np.testing.assert_array_equal(read_scan(saved(ds)).pixels, COLOUR)


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


def test_each_frame_is_a_picture(tmp_path):
    frames = RNG.integers(0, 256, (12, 6, 10), dtype=np.uint8)
    file = tmp_path / "cine.dcm"
    file.write_bytes(dicom(frames, frames=12))
    assert count_pages(file) == count_pages(file.read_bytes()) == 12
    for number in (0, 5, 11):
        scan = read_scan(file, page=number)
        assert (scan.page, scan.name) == (number, str(file))
        np.testing.assert_array_equal(scan.pixels, frames[number])
    with pytest.raises(InputError, match="has no page 13"):
        read_scan(file, page=12)
    colours = RNG.integers(0, 256, (2, 6, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_scan(dicom(colours, frames=2), page=1).pixels, colours[1])


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


# --- compressed ------------------------------------------------------------------------------------------


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


# --- which files, and faults -----------------------------------------------------------------------------


def test_dicom_is_known_by_content_whatever_its_name(tmp_path):
    for name in ("IM-0001", "1.2.840.5", "scan.png", "scan.dcm", "scan.IMA"):
        (tmp_path / name).write_bytes(dicom(GREY))
        np.testing.assert_array_equal(read_scan(tmp_path / name).pixels, GREY)


def test_without_a_preamble_the_name_tells(tmp_path):
    ds = dataset(GREY, syntax=ImplicitVRLittleEndian)
    del ds.file_meta
    data = io.BytesIO()
    ds.save_as(data, implicit_vr=True, little_endian=True)
    assert data.getvalue()[128:132] != b"DICM"
    (tmp_path / "old.dcm").write_bytes(data.getvalue())
    np.testing.assert_array_equal(read_scan(tmp_path / "old.dcm").pixels, GREY)
    (tmp_path / "picture.dcm").write_bytes(encode_png(GREY))
    np.testing.assert_array_equal(read_scan(tmp_path / "picture.dcm").pixels, GREY)
    with pytest.raises(InputError, match="not an image of a supported type"):
        read_scan(data.getvalue())


def test_masks_and_texts():
    mask = RNG.integers(0, 2, (6, 10), dtype=np.uint8)
    np.testing.assert_array_equal(read_mask(dicom(mask)), mask)
    np.testing.assert_array_equal(read_mask(dicom(mask, PhotometricInterpretation="MONOCHROME1")), mask)
    np.testing.assert_array_equal(read_mask(dicom(np.dstack([0 * mask, mask, 0 * mask]))), mask)
    assert read_text(dicom(GREY, ImageComments="no text")) == {}
    assert read_resolution(dicom(GREY)) is None


def without(ds, *keywords):
    for keyword in keywords:
        delattr(ds, keyword)
    return ds


FAULTS = {
    "no picture": (saved(without(dataset(GREY), "PixelData")), "DICOM file without an image"),
    "a report": (saved(without(dataset(GREY), "PixelData", "Rows")), "DICOM file without an image"),
    "cut": (dicom(GREY)[:-9], "truncated DICOM"),
    "cut header": (dicom(GREY)[:300], "truncated DICOM|DICOM file without an image"),
    "bomb": (dicom(GREY, Rows=60000, Columns=60000), "more than 100 million pixels"),
    "more frames than there are": (dicom(GREY, NumberOfFrames=10**9), "truncated DICOM"),
    "32 bits": (dicom(GREY, BitsAllocated=32, BitsStored=32), "DICOM file with more than 16 bits"),
    "colours": (
        dicom(GREY, PhotometricInterpretation=NAME),
        "DICOM file with an unsupported PhotometricInterpretation",
    ),
    "samples": (dicom(GREY, SamplesPerPixel=3), "damaged DICOM"),
    "a JPEG of another size": (
        compressed([jpeg(np.zeros((64, 64), np.uint8))], JPEGBaseline8Bit, GREY),
        "damaged DICOM",
    ),
    "fewer fragments": (
        compressed([jpeg(GREY)], JPEGBaseline8Bit, GREY, NumberOfFrames=7),
        "truncated DICOM",
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_bad_file_is_one_line_without_a_patient(tmp_path, case, caplog, capfd):
    data, fault = FAULTS[case]
    file = tmp_path / "x.dcm"
    file.write_bytes(data)
    for action in (read_scan, read_mask, lambda it: [count_pages(it), read_scan(it)]):
        with warnings.catch_warnings(record=True), pytest.raises(InputError, match=fault) as caught:
            action(file)
        said = str(caught.value)
        assert said.startswith(f"{file}: ") and "\n" not in said and NAME not in said and ID not in said
    out, err = capfd.readouterr()
    assert not out and not err and not caplog.records


def test_no_damage_escapes_as_anything_but_an_input_error():
    rng = np.random.default_rng(1)
    rle = dataset(COLOUR)
    rle.compress(RLELossless)
    wholes = [
        dicom(np.stack([DEEP, DEEP]), frames=2),
        saved(rle),
        compressed([jpeg(GREY)], JPEGBaseline8Bit, GREY),
    ]
    for whole in wholes:
        cuts = [whole[:length] for length in rng.integers(133, len(whole), 20)]
        for _ in range(120):
            flipped = bytearray(whole)
            for place in rng.integers(132, len(whole), 4):
                flipped[place] = rng.integers(256)
            cuts.append(bytes(flipped))
        for data in cuts:
            try:
                assert read_scan(data).pixels.size and count_pages(data) < 100
            except InputError as fault:
                assert "\n" not in str(fault) and NAME not in str(fault)


def test_pydicom_is_silent(tmp_path):
    """Its warnings quote values, its log has tracebacks."""
    bad = compressed([jpeg(GREY)[:-150]], JPEGBaseline8Bit, GREY)
    odd = saved(dataset(GREY, PatientID="X" * 100))
    rle = dataset(GREY)
    rle.compress(RLELossless)
    broken = bytearray(saved(rle))
    broken[-60:] = b"\xff" * 60
    code = f"""
import sys
from mhvae_cli.images.read import InputError, read_scan
for data in ({bad!r}, {odd!r}, {bytes(broken)!r}):
    try:
        read_scan(data)
    except InputError as fault:
        print(fault)
print("torch" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stderr == "" and "XXX" not in run.stdout and run.stdout.splitlines()[-1] == "False"


def test_without_pydicom_one_line_says_what_to_install(tmp_path):
    code = f"""
import sys
sys.modules["pydicom"] = None
from mhvae_cli.images.read import InputError, read_scan
try:
    read_scan({dicom(GREY)!r}, name="a.dcm")
except InputError as fault:
    print(fault, fault.hint, sep="\\n")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == [
        "a.dcm: reading DICOM files needs pydicom",
        "pip install 'mhvae[dicom]'",
    ]
    code = "import sys, mhvae_cli.images.read, mhvae_cli.cli; print('pydicom' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
