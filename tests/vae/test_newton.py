"""Points are traced back to where a known map sends them from."""

import numpy as np

from mhvae_cli.vae.newton import derivatives, trace_back


def spiral(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """exp of complex numbers, whose inverse is the logarithm, and its derivatives."""
    z = np.exp(points[..., 0] + 1j * points[..., 1])
    slope = np.stack([np.stack([z.real, -z.imag], -1), np.stack([z.imag, z.real], -1)], -2)
    return np.stack([z.real, z.imag], -1), slope


def test_the_inverse_of_the_exponential_is_the_logarithm() -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(-0.6, 0.6, (3, 40, 2))
    goals, slope = spiral(truth)
    found, missed, slopes = trace_back(spiral, truth + rng.uniform(-0.2, 0.2, truth.shape), goals)
    np.testing.assert_allclose(found, truth, atol=1e-9)
    np.testing.assert_allclose(slopes, slope, atol=1e-8)
    assert missed.shape == (3, 40) and missed.max() < 1e-9


def test_what_no_point_is_sent_to_is_missed() -> None:
    found, missed, _ = trace_back(
        lambda p: (p**2, 2 * p[..., None] * np.eye(2)), np.ones((1, 2)), -np.ones((1, 2))
    )
    assert found.shape == (1, 2) and missed[0] > 0.9


def test_derivatives_are_those_of_the_exponential() -> None:
    points = np.random.default_rng(1).uniform(-0.6, 0.6, (40, 2))
    np.testing.assert_allclose(derivatives(lambda p: spiral(p)[0], points), spiral(points)[1], atol=1e-8)
    assert derivatives(lambda p: p[:, 0] * p[:, 1], points).shape == (40, 2)
