"""Areas and insides of polygons, against closed forms and brute force."""

import numpy as np
import pytest

from mhvae_cli.polygons import contains, edges, overlaps_box, signed_area

SQUARE = np.array([[0.0, 0], [4, 0], [4, 3], [0, 3]])


def test_area_has_the_sign_of_the_turn() -> None:
    assert signed_area(SQUARE) == 12 and signed_area(SQUARE[::-1]) == -12
    assert signed_area(SQUARE + 1e6) == pytest.approx(12)  # far from the origin, too


def test_area_of_a_regular_polygon() -> None:
    for n in (3, 7, 100):
        turn = 2 * np.pi * np.arange(n) / n
        ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        assert signed_area(ring) == pytest.approx(n / 2 * np.sin(2 * np.pi / n))


def test_edges_close_each_ring() -> None:
    start, end, _ = edges([SQUARE, SQUARE[:3]])
    assert len(start) == 7
    assert np.array_equal(end[3], SQUARE[0]) and np.array_equal(end[6], SQUARE[0])


def test_a_hole_is_outside() -> None:
    hole = np.array([[1.0, 1], [2, 1], [2, 2], [1, 2]])
    points = np.array([[0.5, 0.5], [1.5, 1.5], [5, 1], [3, 2.5]])
    assert contains([SQUARE, hole], points).tolist() == [True, False, False, True]


def test_inside_is_where_the_winding_number_is_odd() -> None:
    rng = np.random.default_rng(0)
    turn = np.sort(rng.uniform(0, 2 * np.pi, 12))
    ring = rng.uniform(0.3, 1, (12, 1)) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    points = rng.uniform(-1, 1, (300, 2))
    angles = np.angle((ring - points[:, None]) @ [1, 1j])
    steps = (np.roll(angles, -1, axis=1) - angles + np.pi) % (2 * np.pi) - np.pi
    winding = np.rint(steps.sum(axis=1) / (2 * np.pi)).astype(int)
    assert np.array_equal(contains([ring], points), winding % 2 == 1)


def test_a_box_overlaps_a_ring_by_its_border_or_its_inside() -> None:
    square = [np.array([[2.0, 2], [8, 2], [8, 8], [2, 8]])]
    for low, high, overlap in [
        ((0, 0), (10, 10), True),  # around it
        ((4, 4), (5, 5), True),  # inside it
        ((0, 4), (10, 5), True),  # across it, without a vertex of it
        ((8, 8), (9, 9), True),  # at a corner
        ((8.1, 0), (9, 10), False),
        ((0, 0), (1.9, 10), False),
    ]:
        assert overlaps_box(square, np.array(low), np.array(high)) is overlap
    ring = [4 * np.array([[0, -1], [1, 0], [0, 1], [-1, 0]], float)]
    assert not overlaps_box(ring, np.array([2.1, 2.1]), np.array([4.0, 4.0]))  # in its bounding box only
    assert not overlaps_box(
        [*square, np.array([[3.0, 3], [3, 7], [7, 7], [7, 3]])], *np.array([[4, 4], [5, 5]])
    )
