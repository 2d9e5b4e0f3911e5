"""DICOM files come out with the right numbers, window and spacing, and nothing of the patient."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
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
from support.dicom_files import ID, NAME, compressed, dataset, dicom, item, jpeg, saved

from mhvae_cli.errors import InputError
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import count_pages, read_mask, read_resolution, read_scan, read_text
from mhvae_cli.images.transforms import to_native, to_square, to_uint8

# pytest resets the filter of the module
pytestmark = pytest.mark.filterwarnings("ignore::Warning:pydicom")

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 10), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (6, 10), dtype=np.uint16)


def read(data, **options):
    return read_scan(data, **options)


# --- numbers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_grey_of_8_and_16_bits_keeps_its_numbers(syntax):
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    deep = read(dicom(DEEP.astype(order + "u2"), syntax=syntax, BitsStored=12, HighBit=11))
    assert (deep.pixels.dtype, deep.bits, deep.orientation, deep.page) == (np.uint16, 16, 1, 0)
    np.testing.assert_array_equal(deep.pixels, DEEP)
    if syntax != ExplicitVRBigEndian:
        eight = read(dicom(GREY, syntax=syntax))
        np.testing.assert_array_equal(eight.pixels, GREY)
        assert (eight.bits, eight.window, eight.spacing, eight.name) == (8, None, None, "stdin")


def test_monochrome1_is_turned_so_that_larger_is_brighter():
    np.testing.assert_array_equal(
        read(dicom(GREY, PhotometricInterpretation="MONOCHROME1")).pixels, 255 - GREY
    )
    deep = dicom(DEEP, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read(deep).pixels, 4095 - DEEP)


def test_signed_numbers_lose_nothing_and_keep_their_order():
    values = np.array([[-1024, -1], [0, 3071]], np.int16)
    scan = read(dicom(values), window="full")
    np.testing.assert_array_equal(scan.pixels, values.astype(int) + 32768)
    assert scan.window == (0, 65535)
    twelve = read(dicom(values // 2, BitsStored=12, HighBit=11))
    np.testing.assert_array_equal(twelve.pixels, values // 2 + 2048)


def test_unused_bits_are_ignored():
    dirty = DEEP | 0xA000
    np.testing.assert_array_equal(read(dicom(dirty, BitsStored=12, HighBit=11)).pixels, DEEP)


def test_one_bit_and_few_bits_fill_the_range():
    bits = RNG.integers(0, 2, (8, 8), dtype=np.uint8)
    ds = dataset(bits, BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    scan = read(saved(ds))
    np.testing.assert_array_equal(to_uint8(scan.pixels, scan.window), bits * 255)
    six = read(dicom(GREY // 4, BitsStored=6, HighBit=5))
    assert six.window == (0, 63)


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb_in_both_layouts(planar):
    stored = np.moveaxis(COLOUR, 2, 0) if planar else COLOUR
    ds = dataset(COLOUR, PlanarConfiguration=planar)
    ds.PixelData = stored.tobytes()
    np.testing.assert_array_equal(read(saved(ds)).pixels, COLOUR)


def ycc(rgb):
    """By the book: PS3.3 C.7.6.3.1.2, in floats."""
    matrix = [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
    return np.clip(np.rint(rgb @ np.array(matrix).T + [0, 128, 128]), 0, 255).astype(np.uint8)


def test_ybr_becomes_rgb_full_and_subsampled():
    full = read(dicom(ycc(COLOUR), PhotometricInterpretation="YBR_FULL"))
    np.testing.assert_allclose(full.pixels.astype(int), COLOUR, atol=3)
    pairs = COLOUR.repeat(2, 1)[:, :10]  # neighbours share their colour
    wide = ycc(pairs).reshape(6, 5, 2, 3)
    packed = np.stack([wide[:, :, 0, 0], wide[:, :, 1, 0], wide[:, :, 0, 1], wide[:, :, 0, 2]], -1)
    ds = dataset(pairs, PhotometricInterpretation="YBR_FULL_422")
    ds.PixelData = packed.tobytes()
    np.testing.assert_allclose(read(saved(ds)).pixels.astype(int), pairs, atol=3)


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_become_their_colours(bits):
    table = RNG.integers(0, 256, (3, 256), dtype=np.uint8)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, row in zip(("Red", "Green", "Blue"), table, strict=True):
        entries = row if bits == 8 else row.astype("<u2") * 257
        elements[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        elements[f"{name}PaletteColorLookupTableData"] = entries.tobytes()
    np.testing.assert_array_equal(read(dicom(GREY, **elements)).pixels, np.moveaxis(table[:, GREY], 0, 2))


def test_each_frame_is_a_picture(tmp_path):
    frames = RNG.integers(0, 256, (12, 6, 10), dtype=np.uint8)
    file = tmp_path / "cine.dcm"
    file.write_bytes(dicom(frames, frames=12))
    assert count_pages(file) == count_pages(file.read_bytes()) == 12
    for number in (0, 5, 11):
        scan = read(file, page=number)
        assert (scan.page, scan.name) == (number, str(file))
        np.testing.assert_array_equal(scan.pixels, frames[number])
    with pytest.raises(InputError, match="has no page 13"):
        read(file, page=12)
    colours = RNG.integers(0, 256, (2, 6, 10, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read(dicom(colours, frames=2), page=1).pixels, colours[1])


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
        np.testing.assert_array_equal(read(saved(ds)).pixels, array)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_jpeg_colours_are_right_whatever_the_header_calls_them(photometric):
    blocks = np.kron(RNG.integers(0, 256, (2, 3, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    options = {"keep_rgb": True} if photometric == "RGB" else {}
    data = jpeg(blocks, quality=98, **options)
    elements = {"PhotometricInterpretation": photometric}
    scan = read(compressed([data], JPEGBaseline8Bit, blocks, **elements))
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
        scan = read(compressed([bytes(bare)], JPEGBaseline8Bit, blocks, **elements))
        np.testing.assert_allclose(scan.pixels[8::16, 8::16].astype(int), blocks[8::16, 8::16], atol=5)


def test_jpeg_of_several_frames_and_jpeg_2000():
    waves = [np.add.outer(np.arange(16), np.arange(24) * k).astype(np.uint8) for k in (2, 5)]
    data = compressed([jpeg(wave, quality=98) for wave in waves], JPEGBaseline8Bit, np.stack(waves))
    assert count_pages(data) == 2
    for number, wave in enumerate(waves):
        np.testing.assert_allclose(read(data, page=number).pixels.astype(int), wave, atol=4)
    lossless = compressed(
        [jpeg(waves[0], "JPEG2000", irreversible=False, no_jp2=True)], JPEG2000Lossless, waves[0]
    )
    np.testing.assert_array_equal(read(lossless).pixels, waves[0])


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
        read(data)
    assert caught.value.hint and "\n" not in str(caught.value)


# --- windows ---------------------------------------------------------------------------------------------


def shown(scan):
    """The picture in [0, 1], as the network and a screen see it."""
    scaled = to_square(scan.pixels, 10, 1, window=scan.window)[0] / 2 + 0.5
    np.testing.assert_allclose(to_uint8(scan.pixels, scan.window) / 255, scaled, atol=0.003)
    return scaled


SQUARE = RNG.integers(0, 4096, (10, 10), dtype=np.uint16)
TWELVE = {"BitsStored": 12, "HighBit": 11}


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 0.5, "RescaleIntercept": -1000}])
def test_the_files_own_window_is_what_pydicom_makes_of_it(function, photometric, rescale):
    centre = (1500 if not rescale else -300, 900)
    elements = {**TWELVE, **rescale, "WindowCenter": centre[0], "WindowWidth": centre[1]}
    if function:
        elements["VOILUTFunction"] = function
    ds = dataset(SQUARE, PhotometricInterpretation=photometric, **elements)
    numbers = SQUARE * rescale.get("RescaleSlope", 1) + rescale.get("RescaleIntercept", 0)
    want = apply_windowing(numbers, ds)
    low, high = (
        float(x) * rescale.get("RescaleSlope", 1) + rescale.get("RescaleIntercept", 0) for x in (0, 4095)
    )
    want = (want - low) / (high - low)
    want = 1 - want if photometric == "MONOCHROME1" else want
    np.testing.assert_allclose(shown(read(saved(ds))), want, atol=0.001)


def test_windows_by_hand():
    ramp = np.arange(100, dtype=np.uint16).reshape(10, 10)
    linear = read(dicom(ramp, WindowCenter=50, WindowWidth=21))
    assert linear.window == (39.5, 59.5)
    exact = read(dicom(ramp, WindowCenter=[50, 1], WindowWidth=[20, 2], VOILUTFunction="LINEAR_EXACT"))
    assert exact.window == (40, 60)
    step = shown(read(dicom(ramp, WindowCenter=50, WindowWidth=1)))
    np.testing.assert_array_equal(step, (ramp >= 50).astype(float))
    eight = read(dicom(GREY, WindowCenter=128, WindowWidth=256))
    np.testing.assert_array_equal(to_uint8(eight.pixels, eight.window), GREY)
    for broken in ({"WindowWidth": 0}, {"WindowWidth": -5}, {}):
        assert read(dicom(ramp, WindowCenter=50, **broken)).window is None


def test_a_voi_table_is_looked_up():
    table = (np.arange(4096)[::-1] ** 2 / 4095**2 * 255).astype(np.uint16)
    lut = item(LUTDescriptor=[4096, 0, 8], LUTData=table.tolist())
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    want = table[SQUARE] / 255
    for photometric, turned in (("MONOCHROME2", want), ("MONOCHROME1", 1 - want)):
        elements = {**TWELVE, "PhotometricInterpretation": photometric, "VOILUTSequence": Sequence([lut])}
        np.testing.assert_allclose(shown(read(dicom(SQUARE, **elements))), turned, atol=0.001)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("slope", [2.0, -2.0])
def test_a_window_in_the_files_numbers_and_the_full_range(photometric, slope):
    elements = {**TWELVE, "PhotometricInterpretation": photometric}
    data = dicom(SQUARE, **elements, RescaleSlope=slope, RescaleIntercept=10, WindowCenter=5, WindowWidth=3)
    numbers = SQUARE * slope + 10.0
    low, high = sorted((500 * slope + 10, 3000 * slope + 10))
    want = np.clip((numbers - low) / (high - low), 0, 1)
    whole = SQUARE / 4095 if slope > 0 else 1 - SQUARE / 4095
    if photometric == "MONOCHROME1":
        want, whole = 1 - want, 1 - whole
    np.testing.assert_allclose(shown(read(data, window=(low, high))), want, atol=0.001)
    np.testing.assert_allclose(shown(read(data, window="full")), whole, atol=0.001)


def test_a_made_picture_goes_back_through_the_window():
    for scan in (
        read(dicom(SQUARE, **TWELVE, WindowCenter=2000, WindowWidth=1000)),
        read(dicom(SQUARE, **TWELVE), window=(1000, 3000)),
        read(dicom(GREY, WindowCenter=100, WindowWidth=80)),
    ):
        low, high = scan.window
        back = to_native(np.linspace(-1, 1, 10)[None, None].repeat(10, 1), scan)
        assert back.dtype == scan.pixels.dtype and back.shape == scan.pixels.shape
        assert (back[0, 0], back[0, -1]) == (round(low), round(high))


# --- spacing ---------------------------------------------------------------------------------------------


def region(x0, y0, x1, y1, delta, *, units=3, form=1):
    box = {"RegionLocationMinX0": x0, "RegionLocationMinY0": y0}
    box |= {"RegionLocationMaxX1": x1, "RegionLocationMaxY1": y1}
    scale = {"PhysicalDeltaX": delta[0], "PhysicalDeltaY": delta[1], "PhysicalUnitsXDirection": units}
    scale |= {"PhysicalUnitsYDirection": units, "RegionSpatialFormat": form, "RegionDataType": 1}
    return item(**box, **scale, RegionFlags=0)


def test_pixel_spacing_is_y_then_x_in_the_file_and_x_then_y_here():
    assert read(dicom(GREY, PixelSpacing=[0.25, 0.5])).spacing == (0.5, 0.25)


@pytest.mark.parametrize("spacing", [[0, 0.5], [-1, 1], [0.5]])
def test_nonsense_is_no_spacing(spacing):
    assert read(dicom(GREY, PixelSpacing=spacing)).spacing is None


def test_the_detectors_spacing_is_not_the_objects():
    assert read(dicom(GREY, ImagerPixelSpacing=[0.2, 0.2])).spacing is None
    both = {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]}
    assert read(dicom(GREY, **both)).spacing is None
    assert read(dicom(GREY, **both, PixelSpacingCalibrationType="FIDUCIAL")).spacing == (0.2, 0.2)
    assert read(dicom(GREY, **both | {"PixelSpacing": [0.15, 0.15]})).spacing == (0.15, 0.15)


def test_the_largest_flat_region_in_centimetres_tells():
    regions = [
        region(0, 0, 3, 3, (0.05, 0.05)),
        region(3, 0, 9, 5, (0.012, -0.03)),
        region(0, 0, 9, 6, (0.9, 0.9), units=4),  # seconds
        region(0, 0, 9, 6, (0.8, 0.8), form=3),  # a spectrum
    ]
    assert read(dicom(GREY, SequenceOfUltrasoundRegions=Sequence(regions))).spacing == pytest.approx(
        (0.12, 0.3)
    )
    no_lengths = Sequence(regions[2:])
    assert read(dicom(GREY, SequenceOfUltrasoundRegions=no_lengths)).spacing is None


def test_two_spacings_that_contradict_are_none():
    regions = Sequence([region(0, 0, 9, 6, (0.012, 0.012))])
    agreed = dicom(GREY, SequenceOfUltrasoundRegions=regions, PixelSpacing=[0.12, 0.12])
    assert read(agreed).spacing == (0.12, 0.12)
    contradicted = dicom(GREY, SequenceOfUltrasoundRegions=regions, PixelSpacing=[1, 1])
    assert read(contradicted).spacing is None


def test_functional_groups_tell_of_all_frames_or_of_each():
    frames = np.stack([SQUARE, SQUARE])
    measures = [item(PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.1 * k, 0.2 * k])])) for k in (1, 2)]
    shared = item(
        FrameVOILUTSequence=Sequence([item(WindowCenter=50, WindowWidth=21)]),
        PixelValueTransformationSequence=Sequence([item(RescaleSlope=2, RescaleIntercept=0)]),
    )
    data = dicom(
        frames,
        frames=2,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(measures),
    )
    scans = [read(data, page=page) for page in (0, 1)]
    assert [scan.spacing for scan in scans] == [(0.2, 0.1), (0.4, 0.2)]
    assert scans[1].window == (39.5 / 2, 59.5 / 2)


# --- which files, and faults -----------------------------------------------------------------------------


def test_dicom_is_known_by_content_whatever_its_name(tmp_path):
    for name in ("IM-0001", "1.2.840.5", "scan.png", "scan.dcm", "scan.IMA"):
        (tmp_path / name).write_bytes(dicom(GREY))
        np.testing.assert_array_equal(read(tmp_path / name).pixels, GREY)


def test_without_a_preamble_the_name_tells(tmp_path):
    ds = dataset(GREY, syntax=ImplicitVRLittleEndian)
    del ds.file_meta
    data = io.BytesIO()
    ds.save_as(data, implicit_vr=True, little_endian=True)
    assert data.getvalue()[128:132] != b"DICM"
    (tmp_path / "old.dcm").write_bytes(data.getvalue())
    np.testing.assert_array_equal(read(tmp_path / "old.dcm").pixels, GREY)
    (tmp_path / "picture.dcm").write_bytes(encode_png(GREY))
    np.testing.assert_array_equal(read(tmp_path / "picture.dcm").pixels, GREY)
    with pytest.raises(InputError, match="not an image of a supported type"):
        read(data.getvalue())


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
    for action in (read, read_mask, lambda it: [count_pages(it), read(it)]):
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
                assert read(data).pixels.size and count_pages(data) < 100
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
