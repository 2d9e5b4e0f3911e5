"""Line charts, drawn with Pillow."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLOURS = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167)),
    *((86, 180, 233), (230, 159, 0), (0, 0, 0), (150, 150, 150)),
)
"""Told apart by the colour-blind too (Okabe and Ito, but grey for yellow)."""
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 52, 44
TICKS = 5


def line_chart(
    series: Mapping[str, Sequence[tuple[float, float]]],
    *,
    title: str,
    x_label: str,
    size: tuple[int, int] = (360, 480),
    logarithmic: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
) -> np.ndarray:
    """Lines of (x, y) points by name, as uint8 RGB of `size` (h, w); `logarithmic`: the x axis.

    `bands`: by the same names, (x, low, high) points, between which the line's colour is shown faintly.
    Points that are not finite are left out; without any the chart is empty. Texts are ASCII.
    """
    height, width = size
    page = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    draw.text((width / 2, 6), title, fill="black", font=ImageFont.load_default(14), anchor="ma")
    draw.text((width / 2, height - 6), x_label, fill="black", font=font, anchor="mb")
    lines = {
        name: [(math.log(x) if logarithmic else x, y) for x, y in points if math.isfinite(y)]
        for name, points in series.items()
    }
    areas = {
        name: [(math.log(x) if logarithmic else x, y) for x, *ends in band for y in ends if math.isfinite(y)]
        for name, band in (bands or {}).items()
    }
    points = [point for line in [*lines.values(), *areas.values()] for point in line]
    if not points:
        return np.array(page)
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])
    right, bottom = width - RIGHT, height - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return LEFT + across * (right - LEFT), bottom - up * (bottom - TOP)

    for y in _ticks(y_low, y_high):
        draw.line([at(x_low, y), at(x_high, y)], fill=(225, 225, 225))
        draw.text((LEFT - 6, at(x_low, y)[1]), f"{y:g}", fill="black", font=font, anchor="rm")
    for x in sorted({x for x, _ in points}) if logarithmic else _ticks(x_low, x_high):
        text = f"{math.exp(x) if logarithmic else x:.4g}"
        draw.text((at(x, y_low)[0], bottom + 6), text, fill="black", font=font, anchor="ma")
    for number, name in enumerate(lines):
        if len(area := areas.get(name, [])) > 2:
            outline = [at(*point) for point in (*area[::2], *area[:0:-2])]
            veil = Image.new("L", page.size)
            ImageDraw.Draw(veil).polygon(outline, fill=40)
            page.paste(COLOURS[number % len(COLOURS)], mask=veil)
    draw.rectangle([LEFT, TOP, right, bottom], outline=(120, 120, 120))
    beside = float(LEFT)
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(x, y) for x, y in line]
        draw.line(places, fill=colour, width=2, joint="curve")
        for x, y in places if len(places) <= 12 else []:
            draw.circle((x, y), 3, fill=colour)
        draw.text((beside, TOP - 6), name, fill=colour, font=font, anchor="ls")
        beside += font.getlength(name) + 16
    return np.array(page)


def _ticks(low: float, high: float) -> list[float]:
    """Some five round numbers in a range."""
    rough = (high - low) / TICKS
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [round(n * step, 12) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin
