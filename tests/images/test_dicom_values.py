"""What a DICOM file's numbers mean: grey levels, windows and spacing."""

import numpy as np
import pytest
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from support.dicom_files import DEEP, GREY, dataset, dicom, item, region, saved

from mhvae_cli.images.read import read_scan
from mhvae_cli.images.transforms import to_native, to_square, to_uint8

# pytest resets the filter of the module
pytestmark = pytest.mark.filterwarnings("ignore::Warning:pydicom")
RNG = np.random.default_rng(0)


def test_monochrome1_is_turned_so_that_larger_is_brighter():
    np.testing.assert_array_equal(
        read_scan(dicom(GREY, PhotometricInterpretation="MONOCHROME1")).pixels, 255 - GREY
    )
    deep = dicom(DEEP, PhotometricInterpretation="MONOCHROME1", BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(read_scan(deep).pixels, 4095 - DEEP)


def test_signed_numbers_lose_nothing_and_keep_their_order():
    values = np.array([[-1024, -1], [0, 3071]], np.int16)
    scan = read_scan(dicom(values), window="full")
    np.testing.assert_array_equal(scan.pixels, values.astype(int) + 32768)
    assert scan.window == (0, 65535)
    twelve = read_scan(dicom(values // 2, BitsStored=12, HighBit=11))
    np.testing.assert_array_equal(twelve.pixels, values // 2 + 2048)


def test_unused_bits_are_ignored():
    dirty = DEEP | 0xA000
    np.testing.assert_array_equal(read_scan(dicom(dirty, BitsStored=12, HighBit=11)).pixels, DEEP)


def test_one_bit_and_few_bits_fill_the_range():
    bits = RNG.integers(0, 2, (8, 8), dtype=np.uint8)
    ds = dataset(bits, BitsAllocated=1, BitsStored=1, HighBit=0)
    ds.PixelData = np.packbits(bits.ravel(), bitorder="little").tobytes()
    scan = read_scan(saved(ds))
    np.testing.assert_array_equal(to_uint8(scan.pixels, scan.window), bits * 255)
    six = read_scan(dicom(GREY // 4, BitsStored=6, HighBit=5))
    assert six.window == (0, 63)


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
    np.testing.assert_allclose(shown(read_scan(saved(ds))), want, atol=0.001)


def test_windows_by_hand():
    ramp = np.arange(100, dtype=np.uint16).reshape(10, 10)
    linear = read_scan(dicom(ramp, WindowCenter=50, WindowWidth=21))
    assert linear.window == (39.5, 59.5)
    exact = read_scan(dicom(ramp, WindowCenter=[50, 1], WindowWidth=[20, 2], VOILUTFunction="LINEAR_EXACT"))
    assert exact.window == (40, 60)
    step = shown(read_scan(dicom(ramp, WindowCenter=50, WindowWidth=1)))
    np.testing.assert_array_equal(step, (ramp >= 50).astype(float))
    eight = read_scan(dicom(GREY, WindowCenter=128, WindowWidth=256))
    np.testing.assert_array_equal(to_uint8(eight.pixels, eight.window), GREY)
    for broken in ({"WindowWidth": 0}, {"WindowWidth": -5}, {}):
        assert read_scan(dicom(ramp, WindowCenter=50, **broken)).window is None


def test_a_voi_table_is_looked_up():
    table = (np.arange(4096)[::-1] ** 2 / 4095**2 * 255).astype(np.uint16)
    lut = item(LUTDescriptor=[4096, 0, 8], LUTData=table.tolist())
    lut["LUTDescriptor"].VR = lut["LUTData"].VR = "US"
    want = table[SQUARE] / 255
    for photometric, turned in (("MONOCHROME2", want), ("MONOCHROME1", 1 - want)):
        elements = {**TWELVE, "PhotometricInterpretation": photometric, "VOILUTSequence": Sequence([lut])}
        np.testing.assert_allclose(shown(read_scan(dicom(SQUARE, **elements))), turned, atol=0.001)


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
    np.testing.assert_allclose(shown(read_scan(data, window=(low, high))), want, atol=0.001)
    np.testing.assert_allclose(shown(read_scan(data, window="full")), whole, atol=0.001)


def test_a_made_picture_goes_back_through_the_window():
    for scan in (
        read_scan(dicom(SQUARE, **TWELVE, WindowCenter=2000, WindowWidth=1000)),
        read_scan(dicom(SQUARE, **TWELVE), window=(1000, 3000)),
        read_scan(dicom(GREY, WindowCenter=100, WindowWidth=80)),
    ):
        low, high = scan.window
        back = to_native(np.linspace(-1, 1, 10)[None, None].repeat(10, 1), scan)
        assert back.dtype == scan.pixels.dtype and back.shape == scan.pixels.shape
        assert (back[0, 0], back[0, -1]) == (round(low), round(high))


def test_pixel_spacing_is_y_then_x_in_the_file_and_x_then_y_here():
    assert read_scan(dicom(GREY, PixelSpacing=[0.25, 0.5])).spacing == (0.5, 0.25)


@pytest.mark.parametrize("spacing", [[0, 0.5], [-1, 1], [0.5]])
def test_nonsense_is_no_spacing(spacing):
    assert read_scan(dicom(GREY, PixelSpacing=spacing)).spacing is None


def test_the_detectors_spacing_is_not_the_objects():
    assert read_scan(dicom(GREY, ImagerPixelSpacing=[0.2, 0.2])).spacing is None
    both = {"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.2, 0.2]}
    assert read_scan(dicom(GREY, **both)).spacing is None
    assert read_scan(dicom(GREY, **both, PixelSpacingCalibrationType="FIDUCIAL")).spacing == (0.2, 0.2)
    assert read_scan(dicom(GREY, **both | {"PixelSpacing": [0.15, 0.15]})).spacing == (0.15, 0.15)


def test_regions_have_a_spacing_each_if_they_are_flat_and_in_centimetres():
    regions = [
        region(0, 0, 3, 3, (0.05, 0.05)),
        region(3, 0, 9, 5, (0.012, -0.03)),
        region(0, 0, 9, 6, (0.9, 0.9), units=4),  # seconds
        region(0, 0, 9, 6, (0.8, 0.8), form=3),  # a spectrum
    ]
    scan = read_scan(dicom(GREY, SequenceOfUltrasoundRegions=Sequence(regions)))
    assert scan.spacing is None
    assert [found[:4] for found in scan.regions] == [
        (0, 0, 4, 4),
        (3, 0, 10, 6),
        (0, 0, 10, 7),
        (0, 0, 10, 7),
    ]
    assert [found.spacing for found in scan.regions] == [(0.5, 0.5), pytest.approx((0.12, 0.3)), None, None]
    del regions[0].RegionLocationMinX0
    scan = read_scan(dicom(GREY, SequenceOfUltrasoundRegions=Sequence(regions)))
    assert scan.regions[0].x0 == -np.inf


def test_two_spacings_that_contradict_are_none():
    regions = Sequence([region(0, 0, 9, 6, (0.012, 0.012))])
    for stated, want in ((0.12, (0.12, 0.12)), (1, None)):
        scan = read_scan(dicom(GREY, SequenceOfUltrasoundRegions=regions, PixelSpacing=[stated, stated]))
        assert (scan.spacing, scan.regions[0].spacing) == (None, want)


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
    scans = [read_scan(data, page=page) for page in (0, 1)]
    assert [scan.spacing for scan in scans] == [(0.2, 0.1), (0.4, 0.2)]
    assert scans[1].window == (39.5 / 2, 59.5 / 2)
