"""The score of Gaussian fields, against scipy's cosine transform and dense linear algebra."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from support.score_stubs import TINY, Stub, noise

from mhvae_cli.config import DiffusionConfig
from mhvae_cli.diffusion.refiner import Refiner
from mhvae_cli.diffusion.score import ScoreNetwork
from mhvae_cli.diffusion.spectrum import KNOTS, Spectrum, band_power, cosine


def sloped(channels: int) -> torch.Tensor:
    """Log-power that falls with frequency, and from channel to channel."""
    return torch.linspace(3, -4, KNOTS) - 1.5 * torch.arange(channels)[:, None]


def field(spectrum: Spectrum, count: int, height: int, width: int) -> torch.Tensor:
    """Gaussian fields of a spectrum."""
    power = spectrum.power(height, width)
    return cosine(power.sqrt() * noise(count, *power.shape), inverse=True)


@pytest.mark.parametrize("shape", [(2, 3, 7, 10), (1, 1, 16, 16)])
def test_the_cosine_transform_is_scipys(shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    np.testing.assert_allclose(cosine(images), dctn(images.numpy(), axes=(1, 2, 3), norm="ortho"), atol=1e-5)
    torch.testing.assert_close(cosine(cosine(images), inverse=True), images)


def test_the_power_of_noise_is_flat_and_that_of_a_field_is_found_again() -> None:
    white = band_power(noise(400, 3, 24, 32))
    torch.testing.assert_close(white, torch.ones_like(white), atol=0.15, rtol=0)
    spectrum = Spectrum(3)
    spectrum.log_power.copy_(sloped(3))
    found = band_power(field(spectrum, 400, 48, 64)).log()
    # Below the frequency of one half wave an image says nothing.
    torch.testing.assert_close(found[:, 6:], sloped(3)[:, 6:], atol=0.25, rtol=0)


def test_without_an_answer_the_velocity_is_the_mean_for_a_gaussian_field() -> None:
    """By dense matrices: u0 ~ N(0, K), u = alpha u0 + sigma eps, v = alpha eps - sigma u0."""
    spectrum, (c, h, w) = Spectrum(3), (3, 5, 4)
    spectrum.log_power.copy_(sloped(3))
    basis = cosine(torch.eye(c * h * w).view(-1, c, h, w)).flatten(1).double()  # row i: the transform of e_i
    covariance = basis @ torch.diag(spectrum.power(h, w).flatten().double()) @ basis.T
    u = noise(2, c, h, w)
    alpha, sigma = torch.tensor([0.9, 0.3]), torch.tensor([0.19**0.5, 0.91**0.5])
    found = spectrum.velocity(u, alpha, sigma, torch.zeros_like(u))
    for i, (a, s) in enumerate(zip(alpha.double(), sigma.double(), strict=True)):
        whole = a**2 * covariance + s**2 * torch.eye(c * h * w)
        flat = u[i].flatten().double()
        start = a * covariance @ torch.linalg.solve(whole, flat)
        eps = s * torch.linalg.solve(whole, flat)
        torch.testing.assert_close(found[i].flatten().double(), a * eps - s * start, atol=1e-5, rtol=1e-4)


def test_what_inference_keeps_serves_training() -> None:
    images = noise(1, 1, 9, 11).requires_grad_()
    with torch.inference_mode():
        cosine(images)
    cosine(images).square().sum().backward()
    torch.testing.assert_close(images.grad, 2 * images.detach())


def test_a_flat_spectrum_changes_nothing() -> None:
    u, learnt = noise(2, 1, 8, 8), noise(2, 1, 8, 8, seed=1)
    alpha = torch.tensor([0.6, 0.8])
    torch.testing.assert_close(Spectrum(1).velocity(u, alpha, (1 - alpha**2).sqrt(), learnt), learnt)


@pytest.mark.parametrize("solver", ["dpm++2m-sde", "heun"])
def test_an_untrained_network_draws_fields_of_the_measured_spectrum(solver: str) -> None:
    refiner = Refiner(DiffusionConfig(unet=TINY, sees="residual", spectral=True), channels=3, codes=2)
    refiner.network.unet = Stub(lambda seen, _level: torch.zeros_like(seen))  # type: ignore[assignment]
    assert refiner.network.spectrum is not None
    refiner.network.spectrum.log_power.copy_(sloped(3))
    refiner.network.scale.fill_(0.02)  # the image is clipped to [-1, 1]
    drawn = refiner.refine(torch.zeros(64, 3, 32, 32), [str(i) for i in range(64)], steps=40, solver=solver)
    found = band_power(drawn / 0.02).log()
    torch.testing.assert_close(found[:, 7:], sloped(3)[:, 7:], atol=0.35, rtol=0)


def test_a_network_that_sees_x_has_no_such_start() -> None:
    assert ScoreNetwork(DiffusionConfig(unet=TINY, sees="x", spectral=True), 1).spectrum is None
