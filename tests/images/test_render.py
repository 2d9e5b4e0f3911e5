"""Drawings against masks, areas and pixels that are known."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support.polygons import area

from mhvae_cli.images.render import CYAN, YELLOW, draw_grid, geojson, overlay, sheet, svg
from mhvae_cli.vae.contour import contours

SIZE = (120, 200)  # h, w


def circle(x: float, y: float, r: float, n: int = 400) -> np.ndarray:
    t = 2 * np.pi * np.arange(n) / n
    return np.stack([x + r * np.cos(t), y + r * np.sin(t)], axis=1)


def centres(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    return x, y


def path_of(document: str) -> tuple[ElementTree.Element, list[np.ndarray]]:
    path = ElementTree.fromstring(document).find("{http://www.w3.org/2000/svg}path")
    assert path is not None
    rings = [ring.split("Z")[0].split() for ring in path.get("d", "").split("M")[1:]]
    return path, [np.array([[float(v) for v in pair.split(",")] for pair in ring]) for ring in rings]


def even_odd(rings: list[np.ndarray], size: tuple[int, int], by: int = 8) -> np.ndarray:
    """Coverage of each pixel, from `by` x `by` samples."""
    total = np.zeros((size[0] * by, size[1] * by), dtype=bool)
    for ring in rings:
        drawn = Image.new("1", (size[1] * by, size[0] * by))
        ImageDraw.Draw(drawn).polygon([(x * by - 0.5, y * by - 0.5) for x, y in ring], fill=1)
        total ^= np.asarray(drawn)
    return total.reshape(size[0], by, size[1], by).mean(axis=(1, 3))


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)])
def test_overlay_changes_pixels_near_the_outline_only(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    kept = pixels.copy()
    drawn = overlay(pixels, [circle(90, 60, 40)])
    assert drawn.shape == (*SIZE, 3)
    assert drawn.dtype == np.uint8
    assert (pixels == kept).all()
    x, y = centres(SIZE)
    off = np.abs(np.hypot(x - 90, y - 60) - 40)
    same = (drawn == pixels.reshape(*SIZE, -1)).all(axis=2)
    assert same[off > 1.8].all()  # one width and half a pixel
    assert not same[off < 1].any()
    assert (drawn[off < 0.1] == CYAN).all()


def test_overlay_is_antialiased_and_takes_a_colour() -> None:
    drawn = overlay(np.zeros(SIZE, dtype=np.uint8), [circle(90.3, 60.2, 40)], colour=YELLOW)
    assert len(np.unique(drawn[..., 0])) > 20
    assert drawn[..., 0].max() == 255
    assert drawn[..., 2].max() == 0


def test_a_larger_picture_has_a_wider_line() -> None:
    widths = []
    for scale in (4, 16):
        drawn = overlay(np.zeros((100 * scale, 100 * scale), dtype=np.uint8), [circle(50, 50, 30) * scale])
        widths.append((drawn[50 * scale, :, 1].astype(int).sum() / CYAN[1]) / 2)
    assert widths[1] / widths[0] == pytest.approx(4, rel=0.05)


def test_overlay_along_and_beyond_the_border_is_clipped() -> None:
    square = np.array([[0, 0], [200, 0], [200, 120], [0, 120]], dtype=float)
    drawn = overlay(np.zeros(SIZE, dtype=np.uint8), [square, square + 1000, square - 1000])
    assert drawn[0].any()
    assert drawn[:, -1].any()
    assert not drawn[3:-3, 3:-3].any()


def test_overlay_without_polygons_is_the_picture() -> None:
    pixels = np.arange(120, dtype=np.uint8).reshape(10, 12)
    assert (overlay(pixels, []) == pixels[..., None]).all()


def test_sixteen_bits_are_stretched_by_their_range() -> None:
    ramp = np.linspace(1000, 3000, SIZE[1]).astype(np.uint16)[None].repeat(SIZE[0], axis=0)
    drawn = overlay(ramp, [])
    assert drawn.dtype == np.uint8
    assert drawn.min() == 0
    assert drawn.max() == 255
    assert abs(int(drawn[0, SIZE[1] // 2, 0]) - 127) < 4


def test_svg_is_the_mask() -> None:
    rings = contours(
        lambda p: 0.25 - np.abs(np.hypot(p[:, 0] - 0.6, 0.7 * p[:, 1]) - 0.5)
    )  # cut, with a hole
    h, w = SIZE
    document = svg([(ring + 1) / 2 * [w, h] for ring in rings], SIZE)
    root = ElementTree.fromstring(document)
    assert root.get("viewBox") == "0 0 200 120"
    assert (root.get("width"), root.get("height")) == ("200", "120")
    path, drawn = path_of(document)
    assert path.get("fill-rule") == "evenodd"
    assert len(drawn) == len(rings) == 2  # cut by the border, with a hole
    x, y = centres(SIZE)
    mask = np.abs(np.hypot(2 * x / w - 1 - 0.6, 0.7 * (2 * y / h - 1)) - 0.5) <= 0.25
    assert 0.2 < mask.mean() < 0.6
    assert ((even_odd(drawn, SIZE) > 0.5) != mask).mean() < 2e-3


def test_svg_of_nothing_is_valid_and_empty() -> None:
    assert path_of(svg([], SIZE))[1] == []


def test_svg_numbers_are_short() -> None:
    numbers = re.findall(r"[-\d.e+]+", svg([circle(2000, 1000, 999.12345)], (3000, 4000)).split(' d="')[1])
    assert max(map(len, numbers)) <= len("4000.123")
    assert "-0" not in numbers


def test_geojson_nests_holes_and_closes_rings() -> None:
    island, hole, outer, other = (
        circle(60, 60, 10),
        circle(60, 60, 30),
        circle(60, 60, 50),
        circle(160, 60, 20),
    )
    text = geojson([hole, island, other[::-1], outer], {"name": "ä.png", "model": "m"})
    (feature,) = json.loads(text)["features"]
    assert json.loads(text)["type"] == "FeatureCollection"
    assert feature["type"] == "Feature"
    assert feature["properties"] == {"name": "ä.png", "model": "m"}
    assert feature["geometry"]["type"] == "MultiPolygon"
    members = feature["geometry"]["coordinates"]
    areas = sorted([area(ring[:-1]) / np.pi for ring in member] for member in members)
    for found, true in zip(areas, [[100], [400], [2500, -900]], strict=True):
        assert found == pytest.approx(true, rel=1e-3)
    assert all(ring[0] == ring[-1] for member in members for ring in member)


@pytest.mark.parametrize("flip", [1, -1])
def test_geojson_of_a_contour_has_its_area_however_it_is_mirrored(flip: int) -> None:
    rings = contours(lambda p: 0.2 - np.abs(np.hypot(*p.T) - 0.5))
    polygons = [(ring * [flip, 1] + 1) * [100, 60] for ring in rings]
    ((exterior, hole),) = json.loads(geojson(polygons, {}))["features"][0]["geometry"]["coordinates"]
    assert area(exterior[:-1]) == pytest.approx(np.pi * 0.49 * 6000, rel=1e-3)
    assert area(hole[:-1]) == pytest.approx(-np.pi * 0.09 * 6000, rel=1e-3)


def test_geojson_of_rings_that_touch_keeps_them_apart() -> None:
    left = np.array([[0, 0], [10, 10], [0, 20]], dtype=float)
    members = json.loads(geojson([left, [20, 20] - left], {}))["features"][0]["geometry"]["coordinates"]
    assert [len(member) for member in members] == [1, 1]


def test_geojson_of_nothing_is_an_empty_multipolygon() -> None:
    (feature,) = json.loads(geojson([], {"name": "a"}))["features"]
    assert feature["geometry"] == {"type": "MultiPolygon", "coordinates": []}


def test_geojson_refuses_numbers_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="JSON"):
        geojson([], {"area": float("nan")})


def test_a_sheet_takes_any_mix_of_pictures() -> None:
    rows = [
        [np.full((40, 80), 10, dtype=np.uint8), np.full((30, 10, 3), (1, 2, 3), dtype=np.uint8)],
        [np.ones((64, 64), dtype=bool)],
        [],
    ]
    page = sheet(rows, cell=64, gutter=2)
    assert page.dtype == np.uint8
    assert page.shape == (2 + 66 + 66 + 2, 2 + 66 + 66, 3)
    assert (page[18:50, 2:66] == 10).all()  # 80 x 40 in a cell of 64: 64 x 32, in the middle of its row
    assert (page[2:17, 2:66] == 255).all()
    assert (page[34, 68 + 32] == (1, 2, 3)).all()
    assert (page[:, 66:68] == 255).all()


def test_a_row_is_as_high_as_its_pictures() -> None:
    wide = np.zeros((20, 80), dtype=np.uint8)
    assert sheet([[wide, wide], [wide]], cell=64, gutter=2).shape == (2 + 18 + 18, 134, 3)


def test_titles_stand_over_their_columns_and_shrink_to_fit() -> None:
    pictures = [[np.zeros((64, 64), dtype=np.uint8)] * 3]
    plain = sheet(pictures, cell=64, gutter=4)
    titled = sheet(pictures, ["", "HH", "H" * 20], cell=64, gutter=4)
    strip = titled[: len(titled) - len(plain)]
    assert len(strip) > 0
    assert (titled[len(strip) :] == plain).all()
    empty, short, long = (strip[:, 4 + 68 * i : 68 + 68 * i, 0] < 192 for i in range(3))
    assert not empty.any()
    assert 2 <= long.any(axis=1).sum() < short.any(axis=1).sum()
    assert (strip[:, 68:72] == 255).all()


def lattice(size: int) -> np.ndarray:
    x, y = centres((size, size))
    return np.stack([2 * x / size - 1, 2 * y / size - 1], axis=-1)


def test_the_grid_of_no_warp_is_a_square_lattice() -> None:
    drawn = draw_grid(np.zeros((160, 160), dtype=np.uint8), lattice(160), cells=8)
    assert drawn.shape == (160, 160, 3)
    column = drawn[10, :, 0].astype(int)  # half-way between lines across
    bright = np.flatnonzero(column > 50)
    assert set(np.rint((bright + 0.5) / 20).astype(int)) == set(range(9))
    assert np.abs((bright + 0.5) / 20 - np.rint((bright + 0.5) / 20)).max() <= 0.05
    assert (drawn == drawn.swapaxes(0, 1)).all()


def test_the_grid_stands_where_the_warp_sends_it() -> None:
    # Source = 2 p - 0.5 in x: the lattice spans x from -0.25 to 0.75 and y from -0.5 to 0.5.
    picture = np.full((160, 160, 3), 40, dtype=np.uint8)
    drawn = draw_grid(picture, 2 * lattice(160) - [0.5, 0], cells=4)
    changed = (drawn != picture).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (rows[0] + 0.5, rows[-1] + 0.5) == pytest.approx((40, 120), abs=2)
    assert (columns[0] + 0.5, columns[-1] + 0.5) == pytest.approx((60, 140), abs=2)
    across = np.flatnonzero(drawn[50, :, 0] > 100) + 0.5
    assert np.unique(np.rint((across - 60) / 20)).tolist() == [0, 1, 2, 3, 4]
    assert np.abs((across - 60) / 20 - np.rint((across - 60) / 20)).max() < 0.06


def test_a_collapsed_grid_is_drawn_without_a_fault() -> None:
    with np.errstate(all="raise"):
        drawn = draw_grid(np.zeros((8, 8), dtype=np.uint8), np.full((8, 8, 2), 0.3))
    assert not drawn.any()
