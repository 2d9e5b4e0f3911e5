"""Measurements of an outline: area, axes, head circumference, cup-to-disc ratio; in px and in mm.

Frame: an outline is the result of `Networks.contour`, closed polygons (n, 2) xy in pixels, y down, the image
from 0 to its width and height, pixel centres at +0.5; or the same in the file's stored orientation. Holes
have the opposite orientation of outer rings. `spacing` is (x, y), the width and height of a pixel in mm;
lengths in mm are measured on points converted to mm, so pixels need not be square.

Areas and moments are exact for the polygons (Green's theorem). None means not available: everything but the
area for an empty outline, everything in mm without a spacing, the angle of a shape without a longest axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import atan2, degrees, hypot, pi, sqrt

import numpy as np

from ..images.scan import Spacing
from ..polygons import contains, edges, signed_area

Rings = Sequence[np.ndarray]
Figures = dict[str, float | None]

OUTLINE_PX = ("perimeter_px", "centroid_x", "centroid_y", "major_px", "minor_px", "angle_deg")
BOX = ("bbox_x0", "bbox_y0", "bbox_x1", "bbox_y1")
OUTLINE_MM = ("area_mm2", "perimeter_mm", "major_mm", "minor_mm")
COLUMNS = ("area_px", *OUTLINE_PX, *BOX, "spacing_x", "spacing_y", *OUTLINE_MM)
HEAD_COLUMNS = ("hc_px", "bpd_px", "ofd_px", "hc_mm", "bpd_mm", "ofd_mm")
CUP_COLUMNS = ("vcdr", "acdr", "cup")

LEAST_VISIBLE = 0.9
"""The fraction of a head that must be in the image for its ellipse to be reported."""
CIRCLE_TOLERANCE = 1e-6
"""Axes whose relative difference is below this have no direction."""


@dataclass(frozen=True)
class Ellipse:
    """Full axes, `major` >= `minor`; `angle` of the major one, degrees in (-90, 90] from the x axis, counter-
    clockwise as visible on the screen, or None for a circle; `x`, `y` the centre."""

    x: float
    y: float
    major: float
    minor: float
    angle: float | None

    @property
    def area(self) -> float:
        """pi a b, exactly."""
        return pi * self.major * self.minor / 4

    @property
    def circumference(self) -> float:
        """Ramanujan's second formula: relative error 1e-9 for axes of 2:1, at most 4e-4."""
        a, b = self.major / 2, self.minor / 2
        h = ((a - b) / (a + b)) ** 2
        return pi * (a + b) * (1 + 3 * h / (10 + sqrt(4 - 3 * h)))


def measure(rings: Rings, spacing: Spacing | None = None) -> Figures:
    """The values of COLUMNS for the part of the object inside the image; holes do not count as area.

    The perimeter is that of all rings, including holes and cuts along the image's border. `major`, `minor`
    and `angle` are those of the ellipse (full axes) with equal second moments about the centroid; the box is
    x0, y0, x1, y1. Centroid, angle and box are measured in px.
    """
    found: Figures = dict.fromkeys(COLUMNS)
    sx, sy = found["spacing_x"], found["spacing_y"] = spacing or (None, None)
    ellipse = fit_ellipse(rings)
    area = found["area_px"] = abs(sum(map(signed_area, rings))) if ellipse else 0.0
    if sx is not None and sy is not None:
        found["area_mm2"] = area * sx * sy
    if ellipse is None:
        return found
    at = (ellipse.x, ellipse.y, ellipse.major, ellipse.minor, ellipse.angle)
    found |= zip(OUTLINE_PX, (_perimeter(rings), *at), strict=True)
    points = np.concatenate(rings)
    found |= zip(BOX, (*points.min(0).tolist(), *points.max(0).tolist()), strict=True)
    if spacing is not None and (scaled := fit_ellipse(metric := _in_mm(rings, spacing))):
        lengths = (_perimeter(metric), scaled.major, scaled.minor)
        found |= zip(OUTLINE_MM[1:], lengths, strict=True)
    return found


def measure_head(
    rings: Rings, size: tuple[int, int], spacing: Spacing | None = None, *, pen: float = 0.0
) -> Figures:
    """The values of HEAD_COLUMNS for a head in an image of `size` (h, w), as defined by HC18.

    They are those of an ellipse along the skull's outer edge: the head circumference (HC) is its
    circumference, the occipitofrontal diameter (OFD) its major axis and the biparietal diameter (BPD), outer
    to outer, its minor axis. It is the ellipse with the outline's second moments. For a head that is cut off
    by the image's border it is fitted to the rest of the outline, if at least LEAST_VISIBLE of it is in the
    image; otherwise all values are None.

    `pen` (`ModelConfig.pen`): the ellipse is that fraction of the image's side smaller all around, as a model
    learns masks that include half the width of the line that was drawn along the skull.
    """
    found: Figures = dict.fromkeys(HEAD_COLUMNS)
    height, width = size
    for unit, (sx, sy) in {"px": (1.0, 1.0), **({"mm": spacing} if spacing else {})}.items():
        scaled = _in_mm(rings, Spacing(sx, sy))
        head = _fit_head(scaled, (width * sx, height * sy))
        if head is not None:
            drawn = min(2 * pen * sqrt(width * sx * height * sy), head.minor)
            head = replace(head, major=head.major - drawn, minor=head.minor - drawn)
            found[f"hc_{unit}"] = head.circumference
            found[f"bpd_{unit}"], found[f"ofd_{unit}"] = head.minor, head.major
    return found


def measure_cup(cup: Rings, disc: Rings) -> dict[str, float | str | None]:
    """The values of CUP_COLUMNS for two outlines in one UPRIGHT image: ratios, independent of the spacing.

    `vcdr`: the cup's height over the disc's; `acdr`: its area over the disc's. `cup` is "inside", "crosses"
    (part of it is outside the disc), or "missing" (either is empty, and there are no ratios).
    """
    areas = [abs(sum(map(signed_area, rings))) for rings in (cup, disc)]
    if not all(areas):
        return {"vcdr": None, "acdr": None, "cup": "missing"}
    heights = [float(np.ptp(np.concatenate(rings)[:, 1])) for rings in (cup, disc)]
    inside = bool(contains(disc, np.concatenate(cup)).all() and not contains(cup, np.concatenate(disc)).any())
    where = "inside" if inside else "crosses"
    return {"vcdr": heights[0] / heights[1], "acdr": areas[0] / areas[1], "cup": where}


def fit_ellipse(rings: Rings) -> Ellipse | None:
    """The ellipse with the centroid and the second moments of the region; None without an area."""
    if not rings:
        return None
    middle = np.concatenate(rings).mean(0)  # moments about a point near the centroid do not cancel
    a, b, cross = edges([ring - middle for ring in rings])
    area = cross.sum() / 2
    if not abs(area) > 0:
        return None
    x, y = ((a + b) * cross[:, None]).sum(0) / (6 * area)
    squares = ((a * a + a * b + b * b) * cross[:, None]).sum(0) / (12 * area)
    mixed = a[:, 0] * b[:, 1] + 2 * a[:, 0] * a[:, 1] + 2 * b[:, 0] * b[:, 1] + b[:, 0] * a[:, 1]
    xx, yy, xy = squares[0] - x * x, squares[1] - y * y, (mixed * cross).sum() / (24 * area) - x * y
    return _ellipse(x + middle[0], y + middle[1], xx, yy, xy)


def _ellipse(x: float, y: float, xx: float, yy: float, xy: float) -> Ellipse:
    """The ellipse with this centre and covariance, which is (axis / 4)^2 along its axes."""
    half, gap = (xx + yy) / 2, hypot((xx - yy) / 2, xy)
    major, minor = 4 * sqrt(half + gap), 4 * sqrt(max(half - gap, 0.0))
    angle = -degrees(atan2(2 * xy, xx - yy)) / 2 + 0.0  # y points down
    angle = 90.0 if angle <= -90 else angle
    is_circle = not major - minor > CIRCLE_TOLERANCE * major
    return Ellipse(float(x), float(y), major, minor, None if is_circle else angle)


def _fit_head(rings: Rings, frame: tuple[float, float]) -> Ellipse | None:
    """The ellipse of a head in a frame (width, height) that may cut it off; None if too much is cut off."""
    if not rings:
        return None
    points, edge = np.concatenate(rings), np.array(frame)
    free = ((points > 1e-6 * edge) & (points < (1 - 1e-6) * edge)).all(1)
    if free.all():
        return fit_ellipse(rings)
    ellipse = _fit_conic(points[free]) if free.sum() > 5 else None
    visible = abs(sum(map(signed_area, rings)))
    return ellipse if ellipse and visible >= LEAST_VISIBLE * ellipse.area else None


def _fit_conic(points: np.ndarray) -> Ellipse | None:
    """The algebraic least-squares conic through points (n, 2), if it is an ellipse."""
    middle, scale = points.mean(0), points.std()
    x, y = ((points - middle) / scale).T
    terms = np.stack([x * x, x * y, y * y, x, y, np.ones_like(x)], axis=1)
    a, b, c, d, e, f = np.linalg.svd(terms, full_matrices=False)[2][-1]
    form = np.array([[a, b / 2], [b / 2, c]])
    if not np.linalg.det(form) > 0:
        return None
    centre = np.linalg.solve(form, [-d / 2, -e / 2])
    level = centre @ form @ centre - f
    covariance = np.linalg.inv(form / level) * scale**2 / 4
    at = centre * scale + middle
    return _ellipse(at[0], at[1], covariance[0, 0], covariance[1, 1], covariance[0, 1])


def _in_mm(rings: Rings, spacing: Spacing) -> list[np.ndarray]:
    return [ring * np.array(spacing) for ring in rings]


def _perimeter(rings: Rings) -> float:
    a, b, _ = edges(rings)
    return float(np.hypot(*(b - a).T).sum())
