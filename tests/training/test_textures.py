"""Shapes and noise of the phantoms have the size, the place and the statistics that they state."""

import numpy as np
import pytest

from mhvae_cli.training.textures import blob, ellipse, noise, polar, rotate, speckle, step, stroke


def grid(side: int = 200) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:side, :side] / (side / 2) - 1 + 1 / side
    return x, y


def test_an_ellipse_is_one_on_its_outline_and_tells_how_far_it_is() -> None:
    at = np.linspace(0, 2 * np.pi, 50)
    centre, axes, turn = np.array([0.1, -0.2]), np.array([0.6, 0.3]), 0.7

    def outline(by: float) -> tuple[np.ndarray, np.ndarray]:
        """The ellipse, moved outwards along its normals."""
        u, v = axes[0] * np.cos(at), axes[1] * np.sin(at)
        normal = np.array([u / axes[0] ** 2, v / axes[1] ** 2])
        u, v = np.array([u, v]) + by * normal / np.hypot(*normal)
        x, y = rotate(u, v, -turn)
        return x + centre[0], y + centre[1]

    rho, away, s, q = ellipse(*outline(0), centre, axes, turn)
    assert rho == pytest.approx(1) and away == pytest.approx(0, abs=1e-7)
    assert np.allclose([s, q], [np.cos(at), np.sin(at)])
    for by in (0.01, -0.01):
        assert ellipse(*outline(by), centre, axes, turn)[1] == pytest.approx(by, rel=0.1)


def test_a_blob_and_a_step_fall_from_one_to_nothing() -> None:
    s = np.array([0.3, 0.5, 3.0])
    assert blob(s, np.zeros(3), (0.3, 0.0), (0.2, 0.1)) == pytest.approx([1, np.exp(-1), 0], abs=1e-9)
    assert step(np.array([-9.0, 0.0, 9.0]), 0.1) == pytest.approx([1, 0.5, 0])


def test_a_stroke_is_a_line_of_its_width_and_length() -> None:
    x, y = grid()
    drawn = stroke(x, y, 0.1, 0.2, 0.0, 0.0, 0.5, 0.1)
    assert drawn.max() == 1 and drawn.sum() / 1e4 == pytest.approx(2 * 0.5 * 2 * 0.1, rel=0.05)
    assert (x * drawn).sum() / drawn.sum() == pytest.approx(0.1, abs=0.01)
    assert (y * drawn).sum() / drawn.sum() == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("grain", [0.5, 3.0, (1.0, 6.0)])
def test_noise_has_unit_variance_and_the_grain_it_was_asked_for(grain: float | tuple[float, float]) -> None:
    field = noise(np.random.default_rng(0), (256, 256), grain)
    assert field.std() == pytest.approx(1) and abs(field.mean()) < 0.2
    for axis, width in enumerate(np.broadcast_to(grain, 2)):
        beside = (field * np.roll(field, 2, axis)).mean()
        assert beside == pytest.approx(np.exp(-1 / width**2), abs=0.1)  # of a Gaussian filter of that sd


def test_speckle_is_rayleigh_and_polar_noise_lies_along_the_beams() -> None:
    rng = np.random.default_rng(1)
    depth, across = np.mgrid[:300, :300] / 300
    spots = speckle(rng, depth, 2 * across - 1)
    assert spots.min() >= 0 and spots.mean() == pytest.approx(1, abs=0.03)
    assert spots.std() == pytest.approx(np.sqrt(4 / np.pi - 1), abs=0.08)
    beams = polar(rng, depth, 2 * across - 1, (0.2, 0.01))
    down, right = (np.abs(np.diff(beams, axis=axis)).mean() for axis in (0, 1))
    assert down < right / 4
