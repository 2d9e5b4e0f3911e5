"""The exact outline against shapes whose area, perimeter and vertices are known."""

from collections.abc import Callable

import numpy as np
import pytest
from support.polygons import area

from mhvae_cli.vae.contour import contours, ellipse

Level = Callable[[np.ndarray], np.ndarray]
CORNERS = {(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)}


def disc(x: float, y: float, r: float) -> Level:
    return lambda p: r - np.hypot(p[:, 0] - x, p[:, 1] - y)


def perimeter(polygon: np.ndarray) -> float:
    return float(np.hypot(*(np.roll(polygon, -1, axis=0) - polygon).T).sum())


def inside(rings: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Even-odd rule, by crossings of a ray towards +x."""
    x, y = points.T[:, :, None]
    odd = np.zeros(len(points), dtype=bool)
    for ring in rings:
        (ax, ay), (bx, by) = ring.T, np.roll(ring, -1, axis=0).T
        with np.errstate(divide="ignore", invalid="ignore"):
            odd ^= (((ay > y) != (by > y)) & (x < ax + (y - ay) * (bx - ax) / (by - ay))).sum(1) % 2 == 1
    return odd


def spline(seed: int) -> Level:
    """A disc bent by a random thin-plate spline of 20 points."""
    rng = np.random.default_rng(seed)
    centres, weights = rng.uniform(-1, 1, (20, 2)), rng.normal(0, 0.15, (20, 2))

    def level(p: np.ndarray) -> np.ndarray:
        r2 = ((p[:, None] - centres) ** 2).sum(-1) + 1e-300
        return 0.6 - np.hypot(*(p + (r2 * np.log(r2)) @ weights).T)

    return level


def test_a_circle_has_its_area_perimeter_and_radius() -> None:
    (ring,) = contours(disc(0.1, -0.2, 0.5))
    assert area(ring) == pytest.approx(np.pi * 0.25, rel=2e-4)
    assert perimeter(ring) == pytest.approx(np.pi, rel=1e-4)
    assert np.abs(np.hypot(*(ring - [0.1, -0.2]).T) - 0.5).max() < 1e-11


def test_area_converges_with_the_square_of_the_cell() -> None:
    errors = [abs(area(contours(disc(0.03, 0.05, 0.7), cells=n)[0]) - np.pi * 0.49) for n in (32, 64, 128)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.3)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.3)


def test_a_turned_ellipse() -> None:
    a, b, turn = 0.8, 0.3, 0.6
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    (ring,) = contours(lambda p: 1 - (((p @ axes) / [a, b]) ** 2).sum(1), cells=256)
    assert area(ring) == pytest.approx(np.pi * a * b, rel=2e-4)
    t = np.linspace(0, 2 * np.pi, 20001)
    length = np.hypot(np.diff(a * np.cos(t)), np.diff(b * np.sin(t))).sum()
    assert perimeter(ring) == pytest.approx(length, rel=1e-4)


def test_an_annulus_is_an_outer_ring_and_a_hole_of_the_other_sign() -> None:
    rings = contours(lambda p: 0.2 - np.abs(np.hypot(*p.T) - 0.5))
    outer, hole = sorted(rings, key=area, reverse=True)
    assert area(outer) == pytest.approx(np.pi * 0.49, rel=1e-3)
    assert area(hole) == pytest.approx(-np.pi * 0.09, rel=1e-3)


def test_two_discs_are_two_rings() -> None:
    rings = contours(lambda p: np.maximum(disc(-0.5, 0, 0.3)(p), disc(0.5, 0.2, 0.2)(p)))
    assert sorted(map(area, rings)) == pytest.approx([np.pi * 0.04, np.pi * 0.09], rel=2e-3)


def test_a_half_plane_is_clipped_to_a_trapezium() -> None:
    (ring,) = contours(lambda p: 0.25 * p[:, 1] + 0.3 - p[:, 0])  # x <= 0.3 + y / 4
    assert {(-1.0, -1.0), (-1.0, 1.0)} <= set(map(tuple, ring))
    for corner in [(0.05, -1.0), (0.55, 1.0)]:
        assert np.abs(ring - corner).max(axis=1).min() < 1e-11
    assert area(ring) == pytest.approx(2 * 1.3, abs=1e-10)
    assert np.abs(ring).max() == 1


def test_a_half_plane_along_the_grid_line_of_zeros() -> None:
    (ring,) = contours(lambda p: p[:, 0])
    assert area(ring) == pytest.approx(2, abs=1e-12)
    assert ring[:, 0].min() == 0


def test_a_disc_over_a_corner_ends_in_the_corner() -> None:
    (ring,) = contours(disc(1, 1, 0.5))
    assert (1.0, 1.0) in set(map(tuple, ring))
    assert area(ring) == pytest.approx(np.pi / 16, rel=1e-3)
    free = ring[np.abs(ring).max(axis=1) < 1]
    assert np.abs(np.hypot(*(free - 1).T) - 0.5).max() < 1e-11
    assert np.abs(np.sort(ring[ring[:, 0] == 1][:, 1]) - [0.5, 1]).max() < 1e-11


def test_everything_inside_is_the_square_itself() -> None:
    (ring,) = contours(lambda p: np.ones(len(p)))
    assert len(ring) == 4
    assert set(map(tuple, ring)) == CORNERS
    assert area(ring) == 4


def test_everything_outside_is_nothing() -> None:
    assert contours(lambda p: -np.ones(len(p))) == []


def test_a_hole_that_leaves_four_corners() -> None:
    rings = contours(lambda p: np.hypot(*p.T) - 1.2)
    assert len(rings) == 4
    assert {tuple(p) for ring in rings for p in ring if (np.abs(p) == 1).all()} == CORNERS
    quarter = 1 - (np.sqrt(0.44) + 1.44 * (np.pi / 4 - np.arccos(1 / 1.2)))
    assert list(map(area, rings)) == pytest.approx([quarter] * 4, rel=1e-3)


@pytest.mark.parametrize(("lift", "count"), [(1e-4, 1), (-1e-4, 2)])
def test_a_saddle_within_a_cell_joins_as_its_centre_says(lift: float, count: int) -> None:
    # x y = -lift has its saddle at the centre of a cell of an odd grid: the two quadrants meet, or do not.
    rings = contours(lambda p: p[:, 0] * p[:, 1] + lift, cells=63)
    assert len(rings) == count
    assert all(area(ring) > 0 for ring in rings)
    assert sum(map(area, rings)) == pytest.approx(2, abs=5e-3)


def test_a_checkerboard_of_saddles_keeps_every_ring_whole() -> None:
    rng = np.random.default_rng(5)
    signs = rng.choice([-1.0, 1.0], (33, 33))

    def level(p: np.ndarray) -> np.ndarray:  # bilinear between nodes of random sign
        at = np.clip((p + 1) * 16, 0, 32)
        i, j = np.minimum(at.astype(int), 31).T
        u, v = at[:, 0] - i, at[:, 1] - j
        low = signs[j, i] * (1 - u) + signs[j, i + 1] * u
        return low * (1 - v) + (signs[j + 1, i] * (1 - u) + signs[j + 1, i + 1] * u) * v

    rings = contours(level, cells=32)
    points = rng.uniform(-1, 1, (4000, 2))
    points = points[np.abs(level(points)) > 0.5]
    assert len(points) > 500
    assert (inside(rings, points) == (level(points) > 0)).all()


@pytest.mark.parametrize("seed", range(6))
def test_vertices_of_a_spline_are_roots_and_the_polygon_is_the_mask(seed: int) -> None:
    level = spline(seed)
    rings = contours(level)
    vertices = np.concatenate(rings)
    assert np.abs(vertices).max() <= 1
    assert np.abs(level(vertices[np.abs(vertices).max(axis=1) < 1])).max() < 1e-9
    points = np.random.default_rng(seed).uniform(-1, 1, (3000, 2))
    points = points[np.abs(level(points)) > 0.01]
    assert (inside(rings, points) == (level(points) > 0)).all()


def test_a_step_has_its_edge_found_to_the_last_digits() -> None:
    (ring,) = contours(lambda p: np.where(np.abs(p).max(axis=1) < 0.43, 1.0, -1.0))
    assert np.abs(ring).max() == pytest.approx(0.43, abs=1e-11)


def test_small_parts_need_more_cells() -> None:
    speck = disc(0.0071, 0.0083, 0.004)
    assert contours(speck, cells=128) == []
    (ring,) = contours(speck, cells=1024)
    assert area(ring) == pytest.approx(np.pi * 0.004**2, rel=0.1)


@pytest.mark.parametrize("level", [lambda p: -np.hypot(*p.T), lambda p: -np.abs(p[:, 0])])
def test_a_zero_without_area_is_no_ring(level: Level) -> None:
    assert contours(level) == []


def test_a_plateau_of_zeros_is_inside() -> None:
    (ring,) = contours(lambda p: np.minimum(disc(0, 0, 0.5)(p), 0))
    cell = 2 / 128
    assert np.hypot(*ring.T) == pytest.approx(0.5, abs=np.sqrt(2) * cell)
    assert np.hypot(*(np.roll(ring, -1, axis=0) - ring).T).max() <= 1.5 * cell


def test_the_level_is_asked_in_few_large_calls() -> None:
    sizes = []

    def level(p: np.ndarray) -> np.ndarray:
        sizes.append(len(p))
        return spline(1)(p)

    vertices = sum(map(len, contours(level, cells=64)))
    assert sizes[0] == 33**2 and sizes[1] < 65**2 / 2
    assert len(sizes) <= 17
    assert sum(sizes[2:]) <= 10 * vertices


@pytest.mark.parametrize("mirror", [1, -1])
def test_an_affine_discs_outline_in_closed_form(mirror: int) -> None:
    matrix = np.array([[1.3, 0.4, 0.1], [-0.2 * mirror, 1.1 * mirror, -0.2]])

    def level(p: np.ndarray) -> np.ndarray:
        return 0.5 - np.hypot(*(p @ matrix[:, :2].T + matrix[:, 2]).T)

    (ring,) = ellipse(matrix, 0.5)
    (found,) = contours(level)
    assert np.abs(level(ring)).max() < 1e-12
    assert area(ring) == pytest.approx(area(found), rel=2e-4) and area(ring) > 0
    assert perimeter(ring) == pytest.approx(perimeter(found), rel=1e-4)


@pytest.mark.parametrize("matrix", [[[1, 0, 0.6], [0, 1, 0]], [[1, 2, 0], [2, 4, 0]], [[0, 0, 0], [0, 0, 0]]])
def test_no_closed_form_for_what_the_square_cuts_and_what_is_no_ellipse(matrix: list[list[float]]) -> None:
    assert ellipse(np.array(matrix, dtype=float), 0.5) == []


@pytest.mark.parametrize("seed", range(20))
def test_nodes_far_from_the_outline_are_not_missed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rings = contours(spline(seed))
    monkeypatch.setattr("mhvae_cli.vae.contour.BLOCKS", 128)
    every = contours(spline(seed))
    assert len(rings) == len(every)
    assert all(np.array_equal(a, b) for a, b in zip(rings, every, strict=True))
