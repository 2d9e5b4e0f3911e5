"""Figures of outlines against analytic shapes, pixel counts and a brute-force ellipse."""

import math

import numpy as np
import pytest

from mhvae_cli.evaluation.biometry import (
    COLUMNS,
    HEAD_COLUMNS,
    Ellipse,
    fit_ellipse,
    measure,
    measure_cup,
    measure_head,
)
from mhvae_cli.images.scan import Spacing, stored, stored_points


def oval(x: float, y: float, a: float, b: float, turn: float = 0.0, *, vertices: int = 4000) -> np.ndarray:
    """An ellipse of half axes a, b, its first axis `turn` degrees counter-clockwise on the screen."""
    t, angle = 2 * np.pi * np.arange(vertices) / vertices, math.radians(-turn)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    return np.array([x, y]) + a * np.cos(t)[:, None] * along + b * np.sin(t)[:, None] * across


def box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def length(a: float, b: float) -> float:
    """An ellipse's circumference, by brute force."""
    t = np.linspace(0, 2 * np.pi, 1_000_001)
    return float(np.hypot(np.diff(a * np.cos(t)), np.diff(b * np.sin(t))).sum())


def by_pixels(inside: np.ndarray, step: float) -> dict[str, float]:
    """Area, centroid and axes from the pixels (h, w), `step` wide, of a finely drawn region."""
    ys, xs = (np.stack(np.nonzero(inside)) + 0.5) * step
    covariance = np.cov(np.stack([xs, ys]), bias=True) + np.eye(2) * step**2 / 12
    (minor, major), vectors = np.linalg.eigh(covariance)
    angle = -math.degrees(math.atan2(vectors[1, 1], vectors[0, 1]))
    return {
        "area_px": inside.sum() * step**2,
        "centroid_x": xs.mean(),
        "centroid_y": ys.mean(),
        "major_px": 4 * math.sqrt(major),
        "minor_px": 4 * math.sqrt(minor),
        "angle_deg": (angle + 90) % 180 - 90,
    }


@pytest.mark.parametrize("turn", [-89.0, -60.0, -30.0, 0.0, 20.0, 45.0, 90.0])
def test_an_ellipse_gives_its_own_axes_and_angle(turn: float) -> None:
    found = measure([oval(70, 50, 40, 25, turn)])
    assert list(found) == list(COLUMNS)
    assert found["area_px"] == pytest.approx(math.pi * 1000, rel=1e-5)
    assert found["perimeter_px"] == pytest.approx(length(40, 25), rel=1e-5)
    assert (found["centroid_x"], found["centroid_y"]) == pytest.approx((70, 50))
    assert (found["major_px"], found["minor_px"]) == pytest.approx((80, 50), rel=1e-5)
    assert found["angle_deg"] == pytest.approx(turn, abs=1e-6)
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    reach = math.hypot(40 * c, 25 * s), math.hypot(40 * s, 25 * c)
    box = [found[f"bbox_{name}"] for name in ("x0", "y0", "x1", "y1")]
    assert box == pytest.approx([70 - reach[0], 50 - reach[1], 70 + reach[0], 50 + reach[1]], abs=1e-3)
    assert not [name for name in COLUMNS if "mm" in name and found[name] is not None]
    assert found["spacing_x"] is None


def test_the_angle_is_counter_clockwise_on_the_screen() -> None:
    rising = np.array([[0, 10], [10, 0], [11, 1], [1, 11]], dtype=float)  # y points down: it goes up right
    assert measure([rising])["angle_deg"] == pytest.approx(45)


@pytest.mark.parametrize("spacing", [Spacing(0.3, 0.3), Spacing(0.1, 0.25), Spacing(0.5, 0.2)])
def test_pixels_that_are_not_square(spacing: Spacing) -> None:
    """A turned ellipse in mm, seen through a lattice of such pixels."""
    metric = oval(20, 15, 9, 6, 35)
    found = measure([metric / spacing], spacing)
    assert (found["spacing_x"], found["spacing_y"]) == spacing
    assert found["area_mm2"] == pytest.approx(math.pi * 54, rel=1e-5)
    assert found["perimeter_mm"] == pytest.approx(length(9, 6), rel=1e-5)
    assert (found["major_mm"], found["minor_mm"]) == pytest.approx((18, 12), rel=1e-5)
    assert found["area_px"] == pytest.approx(math.pi * 54 / spacing[0] / spacing[1], rel=1e-5)
    head = measure_head([metric / spacing], (1000, 1000), spacing)
    assert head["hc_mm"] == pytest.approx(length(9, 6), rel=1e-5)
    assert (head["bpd_mm"], head["ofd_mm"]) == pytest.approx((12, 18), rel=1e-5)


def test_a_square() -> None:
    found = measure([box(10, 20, 14, 24)], (0.5, 0.5))
    assert (found["area_px"], found["perimeter_px"], found["area_mm2"], found["perimeter_mm"]) == (
        16,
        16,
        4,
        8,
    )
    assert found["major_px"] == found["minor_px"] == pytest.approx(4 * 4 / math.sqrt(12))
    assert found["angle_deg"] is None
    assert [found[f"bbox_{name}"] for name in ("x0", "y0", "x1", "y1")] == [10, 20, 14, 24]


def test_a_rectangle_far_from_the_origin_keeps_its_digits() -> None:
    found = measure([box(90_000, 10, 90_006, 12)])
    assert found["area_px"] == pytest.approx(12, rel=1e-12)
    assert (found["major_px"], found["minor_px"]) == pytest.approx(
        (4 * 6 / math.sqrt(12), 4 * 2 / math.sqrt(12)), rel=1e-9
    )
    assert found["angle_deg"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_ring_with_a_hole_and_an_island(mirrored: bool) -> None:
    rings = [oval(50, 40, 30, 20), oval(55, 42, 10, 8)[::-1], oval(100, 70, 6, 5)]
    if mirrored:
        rings = stored_points_all(rings, 2)
    found = measure(rings)
    area = math.pi * (600 - 80 + 30)
    x = math.pi * (600 * 50 - 80 * 55 + 30 * 100) / area
    assert found["area_px"] == pytest.approx(area, rel=1e-5)
    assert found["centroid_x"] == pytest.approx(120 - x if mirrored else x, rel=1e-5)
    assert found["perimeter_px"] == pytest.approx(length(30, 20) + length(10, 8) + length(6, 5), rel=1e-5)


def stored_points_all(rings: list[np.ndarray], orientation: int) -> list[np.ndarray]:
    return [stored_points(ring, (90, 120), orientation) for ring in rings]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_figures_are_those_of_the_stored_mask(orientation: int) -> None:
    """A lopsided region with a hole, against its pixels drawn 16 times finer and laid as the file's are."""
    rings = [oval(50, 40, 30, 16, 25), oval(58, 38, 9, 6, 80)[::-1], box(70, 50, 85, 70)]
    ys, xs = (np.mgrid[: 90 * 16, : 120 * 16] + 0.5) / 16
    inside = (xs > 70) & (xs < 85) & (ys > 50) & (ys < 70)
    for x, y, a, b, turn in ((50, 40, 30, 16, 25), (58, 38, 9, 6, 80)):
        c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
        u, v = (xs - x) * c - (ys - y) * s, (xs - x) * s + (ys - y) * c
        inside ^= (u / a) ** 2 + (v / b) ** 2 < 1
    found = measure(stored_points_all(rings, orientation))
    for name, value in by_pixels(stored(inside, orientation), 1 / 16).items():
        assert found[name] == pytest.approx(value, rel=3e-4, abs=0.02), name
    rows, columns = (np.flatnonzero(stored(inside, orientation).any(axis)) / 16 for axis in (1, 0))
    seen = [columns[0], rows[0], columns[-1] + 1 / 16, rows[-1] + 1 / 16]
    assert [found[f"bbox_{name}"] for name in ("x0", "y0", "x1", "y1")] == pytest.approx(seen, abs=0.1)


def test_nothing_has_an_area_of_nil_and_no_more() -> None:
    found = measure([], Spacing(0.1, 0.2))
    told = {name: value for name, value in found.items() if value is not None}
    assert told == {"area_px": 0, "spacing_x": 0.1, "spacing_y": 0.2, "area_mm2": 0}
    assert {k: v for k, v in measure([]).items() if v is not None} == {"area_px": 0}
    assert set(measure_head([], (10, 10), (1, 1)).values()) == {None}


@pytest.mark.parametrize(("a", "b", "off"), [(1, 1, 1e-12), (2, 1, 1e-9), (5, 4, 1e-11), (50, 1, 4e-4)])
def test_the_circumference_of_an_ellipse(a: float, b: float, off: float) -> None:
    special = pytest.importorskip("scipy.special")
    exact = 4 * a * special.ellipe(1 - (b / a) ** 2)
    assert Ellipse(0, 0, 2 * a, 2 * b, 0).circumference == pytest.approx(exact, rel=off)


def test_a_head() -> None:
    found = measure_head([oval(200, 130, 90, 70, 15)], (270, 400), (0.2, 0.2))
    assert list(found) == list(HEAD_COLUMNS)
    assert found["hc_px"] == pytest.approx(length(90, 70), rel=1e-5)
    assert found["hc_mm"] == pytest.approx(length(18, 14), rel=1e-5)
    assert (found["ofd_mm"], found["bpd_mm"]) == pytest.approx((36, 28), rel=1e-5)
    assert measure_head([oval(200, 130, 90, 70)], (270, 400))["hc_mm"] is None


def cut(ring: np.ndarray, x: float) -> np.ndarray:
    """A convex ring without what is left of `x`, its cut a straight edge."""
    kept = ring[ring[:, 0] > x]
    first = int(np.argmax(np.hypot(*(kept - np.roll(kept, 1, axis=0)).T)))
    kept = np.roll(kept, -first, axis=0)
    return np.concatenate([[[x, kept[0, 1]]], kept, [[x, kept[-1, 1]]]])


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_pen_is_taken_off_at_any_size(scale: float) -> None:
    """Masks drawn with a pen of 2 x 1.5 px at 800 x 540: figures are those of the line that it followed."""
    pen, size = 1.5 / math.sqrt(540 * 800), (round(540 * scale), round(800 * scale))
    drawn = oval(400 * scale, 270 * scale, 151.5 * scale, 101.5 * scale, 30)
    found = measure_head([drawn], size, Spacing(0.2, 0.2), pen=pen)
    assert found["hc_px"] == pytest.approx(length(150, 100) * scale, rel=1e-5)
    assert (found["bpd_px"], found["ofd_px"]) == pytest.approx((200 * scale, 300 * scale), rel=1e-5)
    assert found["hc_mm"] == pytest.approx(0.2 * length(150, 100) * scale, rel=1e-5)
    assert measure_head([oval(9, 9, 2, 1)], size, pen=0.1)["bpd_px"] == 0  # never below nothing


@pytest.mark.parametrize("spacing", [None, Spacing(0.15, 0.25)])
def test_a_head_that_the_border_cuts_is_told_whole(spacing: Spacing | None) -> None:
    whole = oval(84, 130, 90, 70, 0)
    told, full = (
        measure_head([ring], (270, 400), spacing) for ring in (cut(whole, 0), oval(104, 130, 90, 70))
    )
    assert [name for name in told if told[name]] == list(HEAD_COLUMNS[: 6 if spacing else 3])
    assert [x for x in told.values() if x] == pytest.approx([x for x in full.values() if x], rel=1e-6)
    assert measure([cut(whole, 0)])["area_px"] < measure([whole])["area_px"] - 20


def test_a_head_of_which_much_is_cut_has_no_figures() -> None:
    found = measure_head([cut(oval(30, 130, 90, 70, 0), 0)], (270, 400), (0.2, 0.2))
    assert set(found.values()) == {None}
    assert set(measure_head([box(0, 0, 400, 270)], (270, 400)).values()) == {None}


def test_cup_and_disc() -> None:
    found = measure_cup([oval(52, 49, 8, 12)], [oval(50, 50, 20, 24)])
    assert found == {"vcdr": pytest.approx(0.5), "acdr": pytest.approx(0.2), "cup": "inside"}
    assert measure_cup([oval(65, 50, 8, 12)], [oval(50, 50, 20, 24)])["cup"] == "crosses"
    assert measure_cup([oval(50, 50, 30, 30)], [oval(50, 50, 20, 24)])["cup"] == "crosses"
    far = measure_cup([oval(150, 50, 8, 12)], [oval(50, 50, 20, 24)])
    assert (far["cup"], far["vcdr"]) == ("crosses", pytest.approx(0.5))
    for nothing in (([], [oval(0, 0, 1, 1)]), ([oval(0, 0, 1, 1)], []), ([], [])):
        assert measure_cup(*nothing) == {"vcdr": None, "acdr": None, "cup": "missing"}


def test_an_outline_without_an_area_has_no_ellipse() -> None:
    assert fit_ellipse([np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])]) is None
