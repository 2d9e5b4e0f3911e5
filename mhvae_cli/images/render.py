"""Render results in the style of figures 2-10: outlines, deformed grids, contact sheets.

Frame: polygons are in pixels, (n, 2) xy from the image's top left corner, y down, so the centre of the first
pixel is (0.5, 0.5) and an image (h, w) spans 0..w by 0..h. A polygon's last vertex is connected to its first;
holes are polygons inside others. Input images are uint8, uint16 or bool, (H, W) or (H, W, 3), and output
images uint8 (H, W, 3); 16-bit values are rescaled by `transforms.to_uint8`.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ..polygons import contains, signed_area
from .transforms import to_uint8

Polygons = Sequence[np.ndarray]
Colour = tuple[int, int, int]

CYAN: Colour = (0, 229, 255)
YELLOW: Colour = (255, 214, 0)
BLACK: Colour = (0, 0, 0)
GREY: Colour = (225, 225, 225)

NUMBERED = 768
"""Least length in pixels of the longer side of an image with numbered handles."""


def overlay(pixels: np.ndarray, polygons: Polygons, *, colour: Colour = CYAN) -> np.ndarray:
    """Draw the polygons' outlines on an image, antialiased, as uint8 (H, W, 3).

    The line is 1/400 of the diagonal wide, at least 1.25 px, and has a dark edge on both sides so that it is
    visible on any background. Pixels farther from an outline than one width + 0.5 px are unchanged.
    """
    rgb = _rgb(pixels)
    width = max(1.25, float(np.hypot(*rgb.shape[:2])) / 400)
    where, distance = _near(polygons, rgb.shape[:2], width + 0.5)
    _paint(rgb, where, distance, width, BLACK, 0.5)
    _paint(rgb, where, distance, width / 2, colour, 1.0)
    return rgb


def number_points(pixels: np.ndarray, polygons: Polygons, points: np.ndarray) -> np.ndarray:
    """Draw the polygons' outlines and numbered `points` (n, 2) xy on an image, as uint8 (h, w, 3).

    An image smaller than NUMBERED px is enlarged by an integer factor. Points outside it are not visible.
    """
    height, width = pixels.shape[:2]
    factor = -(-NUMBERED // max(height, width))
    shown = np.repeat(np.repeat(_rgb(pixels), factor, axis=0), factor, axis=1)
    page = Image.fromarray(overlay(shown, [polygon * factor for polygon in polygons]))
    draw, text = ImageDraw.Draw(page), max(shown.shape) / 50
    font = ImageFont.load_default(text)
    middle = points.mean(0)
    for number, point in enumerate(points):
        away = (point - middle) / max(float(np.linalg.norm(point - middle)), 1e-9)
        at, beside = point * factor, point * factor + away * text * 1.2
        draw.circle((at[0], at[1]), text / 4, fill=YELLOW, outline=BLACK)
        label = {"font": font, "anchor": "mm", "stroke_width": max(1, round(text / 10))}
        draw.text((beside[0], beside[1]), str(number), fill=YELLOW, stroke_fill=BLACK, **label)
    return np.array(page)


def draw_grid(pixels: np.ndarray, grid: np.ndarray, *, cells: int = 16) -> np.ndarray:
    """Draw a warp's deformed grid on an image (figures 2 and 7), as uint8 (H, W, 3).

    `grid` (H, W, 2) holds the source point xy, in [-1, 1] on the reference, of each pixel of `pixels`. The
    lines are where a source coordinate is -1 + 2 k / `cells`, k = 0 ... `cells`: a square lattice over the
    reference, including its frame, as the warp maps it onto the image.
    """
    rgb = _rgb(pixels)
    source = np.asarray(grid, dtype=np.float64)
    speed = np.stack([np.hypot(*np.gradient(source[..., axis])) for axis in (0, 1)], axis=-1)
    speed = np.maximum(speed, 1e-9)  # in source units per pixel; it is zero at the folds of a warp
    nearest = np.clip(np.rint((source + 1) * cells / 2), 0, cells) * 2 / cells - 1
    off_line = np.abs(source - nearest) / speed
    off_square = np.maximum(np.abs(source) - 1, 0) / speed
    distance = np.minimum(
        np.maximum(off_line[..., 0], off_square[..., 1]), np.maximum(off_line[..., 1], off_square[..., 0])
    )
    half = max(0.5, float(np.hypot(*rgb.shape[:2])) / 1200)
    where = np.flatnonzero(distance < 2 * half + 0.5)
    _paint(rgb, where, distance.ravel()[where], 2 * half, BLACK, 0.3)
    _paint(rgb, where, distance.ravel()[where], half, GREY, 0.8)
    return rgb


def svg(polygons: Polygons, size: tuple[int, int]) -> str:
    """An SVG document of an image's `size` (h, w) with the polygons as one filled path, without the holes.

    The view box is in pixels; coordinates are rounded to 0.001 px.
    """
    height, width = size
    rings = (" ".join(f"{x:.10g},{y:.10g}" for x, y in _rounded(polygon)) for polygon in polygons)
    path = " ".join(f"M {ring} Z" for ring in rings)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">\n  <path fill-rule="evenodd" d="{path}"/>\n</svg>\n'
    )


def geojson(polygons: Polygons, properties: Mapping[str, object]) -> str:
    """A GeoJSON FeatureCollection of one Feature: `properties` and a MultiPolygon (empty without polygons).

    Coordinates are pixels in this module's frame, y down, rounded to 0.001; there is no map projection. Each
    member is an exterior ring and the holes directly inside it, whatever the orientation of the given
    polygons. Rings are closed and follow RFC 7946's right-hand rule on the numbers as written: exteriors have
    a positive shoelace area and holes a negative one (so exteriors look clockwise where y points down).
    `properties` must be JSON without NaN or infinity; otherwise ValueError.
    """
    feature = {
        "type": "Feature",
        "properties": dict(properties),
        "geometry": {"type": "MultiPolygon", "coordinates": _nested(polygons)},
    }
    collection = {"type": "FeatureCollection", "features": [feature]}
    return json.dumps(collection, ensure_ascii=False, allow_nan=False) + "\n"


def sheet(
    rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str] = (), *, cell: int = 256, gutter: int = 4
) -> np.ndarray:
    """A contact sheet, uint8 (H, W, 3): images of any size in a table, with titles (ASCII) above the columns.

    An image is scaled to fit a square of `cell` px and keeps its aspect ratio; columns are `cell` px wide,
    rows as high as their tallest image, with `gutter` px of white in between. Rows may differ in length.
    """
    fit = Image.Resampling.LANCZOS
    fitted = [[ImageOps.contain(Image.fromarray(_rgb(p)), (cell, cell), fit) for p in row] for row in rows]
    heights = [max((image.height for image in row), default=0) for row in fitted]
    columns = max([len(titles), *map(len, rows)])
    strip = max(12, cell // 10)
    top = gutter + (strip + gutter if titles else 0)
    size = (columns * (cell + gutter) + gutter, top + sum(heights) + gutter * len(rows))
    page = Image.new("RGB", size, "white")
    for column, title in enumerate(titles):
        page.paste(_label(title, cell, strip), (gutter + column * (cell + gutter), gutter))
    for row, height in zip(fitted, heights, strict=True):
        for column, image in enumerate(row):
            left = gutter + column * (cell + gutter) + (cell - image.width) // 2
            page.paste(image, (left, top + (height - image.height) // 2))
        top += height + gutter
    return np.array(page)


def _rgb(pixels: np.ndarray) -> np.ndarray:
    """A new uint8 array (H, W, 3)."""
    shown = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else to_uint8(pixels)
    return np.repeat(shown[..., None], 3, axis=2) if shown.ndim == 2 else shown.copy()


def _near(polygons: Polygons, size: tuple[int, int], reach: float) -> tuple[np.ndarray, np.ndarray]:
    """The pixels within `reach` px of an outline: flat indices, some repeated, and their distances."""
    depth = np.zeros(size, dtype=np.float32)  # pages that are never written cost no memory
    touched = [np.empty(0, dtype=np.int64)]
    for polygon in polygons:
        for a, b in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            left, top = np.maximum(np.floor(np.minimum(a, b) - reach), 0).astype(int)
            right, bottom = np.maximum(np.ceil(np.maximum(a, b) + reach), 0).astype(int)
            window = depth[top:bottom, left:right]
            x = np.arange(window.shape[1]) + (left + 0.5 - a[0])
            y = np.arange(window.shape[0])[:, None] + (top + 0.5 - a[1])
            dx, dy = b - a
            t = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
            inward = (reach - np.hypot(x - t * dx, y - t * dy)).astype(np.float32)
            np.maximum(window, inward, out=window)
            rows, columns = np.nonzero(inward > 0)
            touched.append((rows + top) * size[1] + columns + left)
    where = np.concatenate(touched)
    return where, reach - depth.ravel()[where]


def _paint(
    rgb: np.ndarray, where: np.ndarray, distance: np.ndarray, half: float, colour: Colour, opacity: float
) -> None:
    """Blend `colour` into `rgb` in place at flat indices, up to `half` px from a line, antialiased."""
    flat = rgb.reshape(-1, 3)
    cover = opacity * np.clip(half + 0.5 - distance, 0, 1)[:, None]
    flat[where] = np.rint(flat[where] * (1 - cover) + np.array(colour) * cover)


def _rounded(polygon: np.ndarray) -> np.ndarray:
    return np.round(polygon, 3) + 0.0  # turns -0 into 0


def _nested(polygons: Polygons) -> list[list[list[list[float]]]]:
    """MultiPolygon coordinates: exteriors are the rings inside an even number of others."""
    rings = list(enumerate(polygons))
    around = [{j for j, outer in rings if j != i and _within(ring, outer)} for i, ring in rings]
    members = {i: [_closed(ring, 1)] for i, ring in rings if len(around[i]) % 2 == 0}
    for i, ring in rings:
        if i not in members:
            owner = max(around[i], key=lambda j: len(around[j]))
            members[owner].append(_closed(ring, -1))
    return list(members.values())


def _within(ring: np.ndarray, outer: np.ndarray) -> bool:
    """Whether a ring is inside another that it does not cross; they may touch, so most points decide."""
    points = np.concatenate([ring, (ring + np.roll(ring, 1, axis=0)) / 2])
    return bool(contains([outer], points).mean() > 0.5)


def _closed(ring: np.ndarray, sign: int) -> list[list[float]]:
    """The ring with its first point repeated, oriented so that its shoelace area has this sign."""
    turned = ring if signed_area(ring) * sign > 0 else ring[::-1]
    closed: list[list[float]] = _rounded(np.concatenate([turned, turned[:1]])).tolist()
    return closed


def _label(text: str, width: int, height: int) -> Image.Image:
    """One line of text, centred on a white strip and shrunk if it is too long."""
    strip = Image.new("RGB", (width, height), "white")
    size = 0.8 * height
    size *= min(1.0, width / max(ImageFont.load_default(size).getlength(text), 1.0))
    font = ImageFont.load_default(max(size, 1.0))
    ImageDraw.Draw(strip).text((width / 2, height / 2), text, fill="black", font=font, anchor="mm")
    return strip
