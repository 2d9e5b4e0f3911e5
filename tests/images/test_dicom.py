"""DICOM files are known by their content, and damage is one line that tells nothing of the patient."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)
from support.dicom_files import COLOUR, DEEP, GREY, ID, NAME, compressed, dataset, dicom, jpeg, saved

from mhvae_cli.errors import InputError
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import count_pages, read_mask, read_resolution, read_scan, read_text

# pytest resets the filter of the module
pytestmark = pytest.mark.filterwarnings("ignore::Warning:pydicom")

RNG = np.random.default_rng(0)


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
