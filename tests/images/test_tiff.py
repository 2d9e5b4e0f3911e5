"""TIFFs of every type of sample, written by hand: read right, or refused by name."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image
from support.pictures import GREY, pixels, saved
from support.pictures import tiff as simple

from mhvae_cli.errors import InputError
from mhvae_cli.images.read import count_pages, read_mask, read_resolution, read_scan, read_text
from mhvae_cli.images.scan import scan_of, upright

RNG = np.random.default_rng(0)
KINDS = {"u": 1, "i": 2, "f": 3}


def horizontal(part):
    """Differences along rows, modulo the type's range (predictor 2)."""
    whole = np.ascontiguousarray(part).view(f"u{part.itemsize}")
    return np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))


def of_floats(part):
    """The bytes of each row, the most significant first, then differences (predictor 3)."""
    height, width, channels = part.shape
    big = part.astype(part.dtype.newbyteorder(">"))
    planes = np.moveaxis(big.view(np.uint8).reshape(height, width * channels, -1), 2, 1).reshape(height, -1)
    spread = planes.reshape(height, -1, channels)
    return np.diff(spread, axis=1, prepend=np.zeros_like(spread[:, :1]))


def tiff(array, *, order="<", planar=False, rows=3, tile=None, predictor=1, big=False, **more):
    """A TIFF of one page, (h, w) or (h, w, c) of any type; deflated if there is a predictor."""
    array = np.atleast_3d(array)
    height, width, channels = array.shape
    kind, size = KINDS[array.dtype.kind], array.itemsize
    planes = np.moveaxis(array, 2, 0)[..., None] if planar else [array]
    parts = []
    for plane in planes:
        for top in range(0, height, tile or rows):
            band = plane[top : top + (tile or rows)]
            for left in range(0, width, tile or width):
                part = band[:, left : left + (tile or width)]
                if tile:
                    part = np.pad(
                        part, ((0, tile - len(part)), (0, tile - part.shape[1]), (0, 0)), mode="edge"
                    )
                coded = {1: lambda it: it, 2: horizontal, 3: of_floats}[predictor](part)
                data = coded.astype(coded.dtype.newbyteorder(order)).tobytes()
                parts.append(zlib.compress(data) if predictor > 1 else data)
    begin = 16 if big else 8
    offsets = begin + np.cumsum([0, *map(len, parts[:-1])])
    tags = {256: [width], 257: [height], 258: [8 * size] * channels, 259: [8 if predictor > 1 else 1]}
    tags |= {
        262: [2 if channels > 2 else 1],
        277: [channels],
        284: [2 if planar else 1],
        339: [kind] * channels,
    }
    tags |= {317: [predictor]} if predictor > 1 else {}
    tags |= {322: [tile], 323: [tile], 324: offsets, 325: list(map(len, parts))} if tile else {}
    tags |= {} if tile else {273: offsets, 278: [rows], 279: list(map(len, parts))}
    tags |= {int(name[1:]): value for name, value in more.items()}
    tags = {tag: value for tag, value in tags.items() if value is not None}
    place, word = begin + sum(map(len, parts)), "Q" if big else "L"
    after = place + (8 if big else 2) + (20 if big else 12) * len(tags) + (8 if big else 4)
    directory, arrays = struct.pack(order + ("Q" if big else "H"), len(tags)), b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}L", *values)
        room = 8 if big else 4
        inline = (
            packed.ljust(room, b"\0")
            if len(packed) <= room
            else struct.pack(order + word, after + len(arrays))
        )
        arrays += packed if len(packed) > room else b""
        directory += struct.pack(f"{order}HH{word}", tag, 4, len(values)) + inline
    magic = b"II" if order == "<" else b"MM"
    head = magic + (
        struct.pack(order + "HHHQ", 43, 8, 0, place) if big else struct.pack(order + "HL", 42, place)
    )
    return head + b"".join(parts) + directory + bytes(8 if big else 4) + arrays


def values(dtype, channels):
    """Whole numbers of the upper half of a type's range, or of both signs: bytes must not change places."""
    shape = (20, 37, channels) if channels > 1 else (20, 37)
    kind, size = np.dtype(dtype).kind, np.dtype(dtype).itemsize
    if kind == "f":
        return np.sqrt(RNG.integers(0, 60000, shape)).astype(dtype)
    top = min(2 ** (8 * size - (kind == "i")) - 1, 2**40)
    return RNG.integers(-top - 1 if kind == "i" else 0, top, shape).astype(dtype)


def expected(array):
    """What becomes of an array by the rules of `read_scan`, which has its own tests."""
    return scan_of(array).pixels


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    "layout", ["chunky", "planar", "tiles", "planar tiles", "predictor", "planar predictor", "big"]
)
@pytest.mark.parametrize("dtype", ["i1", "u2", "i2", "f2", "u4", "i4", "f4", "f8", "u8"])
def test_every_type_in_every_layout(dtype, layout, order):
    options = {"order": order, "planar": "planar" in layout, "big": layout == "big"}
    options |= {"tile": 16} if "tiles" in layout else {}
    options |= {"predictor": 3 if dtype in ("f4", "f8") else 2} if "predictor" in layout else {}
    for channels in (1, 3):
        array = values(dtype, channels)
        data = tiff(array, **options)
        if (layout, order) == ("big", ">"):  # Pillow does not know it
            with pytest.raises(InputError, match=r"unsupported kind of TIFF .BigTIFF in big-endian"):
                read_scan(data)
            return
        np.testing.assert_array_equal(pixels(data), expected(array))
        np.testing.assert_array_equal(
            read_mask(data), (array != 0).any(axis=2) if channels > 1 else array != 0
        )


def test_it_is_what_tifffile_writes(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    for dtype in ("i1", "u2", "f2", "f4", "f8"):
        for channels, planar in ((1, None), (3, "contig"), (3, "separate")):
            array = values(dtype, channels)
            stored = np.moveaxis(array, 2, 0) if planar == "separate" else array
            options = {"photometric": "rgb", "planarconfig": planar} if planar else {}
            tifffile.imwrite(tmp_path / "x.tif", stored, **options)
            np.testing.assert_array_equal(pixels(tmp_path / "x.tif"), expected(array))


def test_12_bits_in_16_keep_their_low_bytes():
    twelve = RNG.integers(0, 4096, (20, 37, 3), dtype=np.uint16)
    scan = read_scan(tiff(twelve))
    assert scan.bits == 16
    np.testing.assert_array_equal(scan.pixels, twelve)


@pytest.mark.parametrize("outlier", [3.4028235e38, -3.4028235e38, 1e30, -1e9])
def test_one_pixel_does_not_flatten_the_rest(outlier):
    array = RNG.random((50, 60)).astype(np.float32)
    array[7, 9] = outlier
    found = pixels(tiff(array)).astype(float)
    rest = np.delete(found.ravel(), 7 * 60 + 9)
    assert np.corrcoef(rest, np.delete(array.ravel(), 7 * 60 + 9))[0, 1] > 0.9999
    assert len(np.unique(rest)) > 2000
    assert found[7, 9] == (found.max() if outlier > 0 else found.min())


def test_what_would_look_alike_is_refused_and_a_window_helps():
    array = RNG.random((50, 60)).astype(np.float32)
    array[:10] = -1e6
    with pytest.raises(InputError, match="stdin: some values are so large that the others") as caught:
        read_scan(tiff(array))
    assert "--window" in caught.value.hint
    found = read_scan(tiff(array), window=(0, 1)).pixels
    np.testing.assert_allclose(found[10:] / 65535, array[10:], atol=1e-4)
    array[:10] = np.finfo(np.float32).min  # marks no data
    np.testing.assert_allclose(pixels(tiff(array))[10:] / 65535, array[10:], atol=2e-3)


@pytest.mark.parametrize("extra", [1, 2])
def test_alpha_of_16_bits(extra):
    array = RNG.integers(0, 65536, (20, 37, 4), dtype=np.uint16)
    wanted = array[..., :3] if extra == 1 else np.rint(array[..., :3] * (array[..., 3:] / 65535))
    np.testing.assert_array_equal(pixels(tiff(array, t338=[extra])), wanted)
    np.testing.assert_array_equal(pixels(tiff(array, t338=[0])), array[..., :3])


def test_samples_that_are_no_colours_are_left_out():
    array = RNG.integers(0, 65536, (20, 37, 2), dtype=np.uint16)
    for planar in (False, True):
        np.testing.assert_array_equal(pixels(tiff(array, planar=planar, t338=[0])), array[..., 0])
    wanted = np.rint(array[..., 0] * (array[..., 1] / 65535))
    np.testing.assert_array_equal(pixels(tiff(array, t338=[2])), wanted)


def test_white_is_zero_and_cmyk():
    for dtype in ("u2", "i2", "f4"):
        array = values(dtype, 1)
        np.testing.assert_array_equal(pixels(tiff(array, t262=None)), expected(array))  # black, if not said
        found = pixels(tiff(array, t262=[0], order=">")).astype(int)
        np.testing.assert_allclose(found, 65535 - expected(array).astype(int), atol=65536 * (dtype == "f4"))
        assert np.corrcoef(found.ravel(), array.ravel())[0, 1] < -0.99
    inks = RNG.integers(0, 65536, (20, 37, 4), dtype=np.uint16)
    wanted = (65535.0 - inks[..., :3]) * (65535.0 - inks[..., 3:]) / 65535
    np.testing.assert_allclose(pixels(tiff(inks, t262=[5])), wanted, atol=1)


@pytest.mark.parametrize(
    "tags",
    [
        {"t258": [24]},
        {"t339": [6]},
        {"t259": [7]},
        {"t262": [8]},
        {"t262": [3]},
        {"t277": [2], "t258": [16, 16]},
        {"t32997": [5]},
        {"t259": [50001]},
    ],
    ids=["24 bits", "complex", "JPEG", "CIELab", "palette", "two samples", "volume", "WebP"],
)
def test_what_is_not_supported_is_named(tags):
    with pytest.raises(
        InputError, match=r"^stdin: unsupported kind of TIFF .(photometric|a volume)"
    ) as caught:
        read_scan(tiff(values("u2", 1), **tags))
    assert "\n" not in str(caught.value)


def test_alpha_of_floats_is_refused():
    with pytest.raises(InputError, match="unsupported kind of TIFF"):
        read_scan(tiff(values("f4", 4)))


def test_damage_and_size_are_found_here_too():
    array = values("f8", 1)
    with pytest.raises(InputError, match="truncated TIFF"):
        read_scan(tiff(array, t279=[10**6]))
    with pytest.raises(InputError, match="truncated TIFF"):
        read_scan(tiff(array, rows=4, t273=[8], t279=[100]))
    for fine in (count_pages, read_scan):
        with pytest.raises(InputError, match="more than 100 million pixels"):
            fine(tiff(array, t256=[20_000], t257=[20_000]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_here_too(orientation):
    array = RNG.integers(0, 65536, (20, 37), dtype=np.uint16)
    scan = read_scan(tiff(array, t274=[orientation]))
    assert scan.orientation == orientation
    np.testing.assert_array_equal(scan.pixels, upright(array, orientation))
    np.testing.assert_array_equal(read_mask(tiff(array, t274=[orientation])), array != 0)


def test_texts_and_resolution_of_pages_that_pillow_does_not_know():
    data = tiff(values("f2", 1))
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(io.BytesIO(data))
    assert read_text(data) == {} and read_resolution(data) is None and count_pages(data) == 1


def test_pages_of_floats_and_of_bytes_in_one_file():
    pages = [RNG.random((6, 9)).astype(np.float32), GREY]
    data = simple(*pages)
    assert count_pages(data) == 2
    np.testing.assert_array_equal(pixels(data), expected(pages[0]))
    np.testing.assert_array_equal(pixels(data, page=1), GREY)


def test_libtiff_is_silent():
    """Its own lines would name no file."""
    whole = saved(
        Image.fromarray(RNG.integers(0, 256, (64, 64), dtype=np.uint8)), "TIFF", compression="tiff_lzw"
    )
    broken = bytearray(whole)
    broken[200:1200] = b"\xff" * 1000
    code = f"""
import sys
from mhvae_cli.images.read import InputError, read_scan
try:
    read_scan({bytes(broken)!r}, name="x.tif")
except InputError as fault:
    print(fault)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("x.tif: damaged TIFF") and run.stderr == ""


def test_bad_codes_of_a_fax_are_damage():
    """Pillow passes over them, and gives black and white noise."""
    binary = Image.fromarray(RNG.random((256, 256)) > 0.9)
    whole = saved(binary, "TIFF", compression="group4")
    assert pixels(whole).shape == (256, 256)
    broken = bytearray(whole)
    assert len(broken) > 600
    broken[200:300] = b"\x55" * 100
    Image.open(io.BytesIO(broken)).load()
    with pytest.raises(InputError, match=r"^x\.tif: damaged TIFF .Fax4Decode"):
        pixels(bytes(broken), name="x.tif")
    assert pixels(whole).shape == (256, 256)
