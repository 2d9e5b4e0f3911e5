"""How strong an image's detail is: energies of known fields, principal components, and what they make."""

import math

import numpy as np
import pytest
import torch
from support.score_stubs import TINY, Stub, noise
from torch import Tensor

from mhvae_cli.config import TEXTURE, DiffusionConfig
from mhvae_cli.diffusion.refiner import Refiner
from mhvae_cli.diffusion.texture import CELLS, SIDE, Texture, amplitude, energies
from mhvae_cli.errors import UsageError

SEES = "residual+recon+mask+known+place+texture"


@pytest.mark.parametrize("channels", [1, 3])
def test_the_amplitude_of_noise_is_its_standard_deviation(channels: int) -> None:
    """Ten times as strong in the right half as in the left."""
    residual = 0.02 * noise(4, channels, 240, 240)
    residual[..., 120:] *= 10
    found = amplitude(energies(residual))
    assert found.shape == (4, channels, CELLS, CELLS)
    left, right = found[..., : CELLS // 2 - 1], found[..., CELLS // 2 + 1 :]
    assert left.mean() == pytest.approx(0.02, rel=0.1) and right.mean() == pytest.approx(0.2, rel=0.1)


def test_energies_tell_fine_from_coarse_and_lightness_from_colours() -> None:
    ticks = torch.arange(240) / 240
    waves = [0.1 * (2 * math.pi * cycles * ticks).sin().expand(1, 1, 240, 240) for cycles in (80, 5)]
    for wave, other in zip(waves, (1, 0), strict=True):
        fine_and_coarse = energies(wave).mean((0, 2, 3)).exp()
        assert fine_and_coarse[1 - other] == pytest.approx(0.005, rel=0.15)
        assert fine_and_coarse[other] < 0.0005
    grey = energies(waves[0].expand(1, 3, -1, -1)).mean((0, 2, 3)).exp()
    assert grey[0] == pytest.approx(3 * 0.005, rel=0.15) and grey[2] < 1e-4
    coloured = energies(torch.cat([waves[0], -waves[0], 0 * waves[0]], 1)).mean((0, 2, 3)).exp()
    assert coloured[2] == pytest.approx(2 * 0.005, rel=0.15) and coloured[0] < 1e-4


def some_layers(count: int, rank: int) -> Tensor:
    """Layers of `rank` independent causes, (N, 2, 3, SIDE, SIDE)."""
    mixed = noise(count, rank) * torch.linspace(2, 0.5, rank) @ noise(rank, 6 * SIDE**2, seed=1) * 0.1
    return (mixed - 5).unflatten(1, (2, 3, SIDE, SIDE))


def test_codes_are_standardised_and_hold_what_varies_most() -> None:
    texture = Texture(3)
    layers = some_layers(200, 40)
    texture.fit(layers)
    codes = texture.encode(layers)
    assert codes.shape == (200, TEXTURE)
    covariance = np.cov(codes.numpy().T, bias=True)
    np.testing.assert_allclose(covariance, np.eye(TEXTURE), atol=1e-3)
    assert codes.mean(0).abs().max() < 1e-4
    flat = layers.flatten(1).double().numpy()
    values = np.linalg.svd(flat - flat.mean(0), compute_uv=False)
    missed = (texture.layers(codes) - layers).square().sum()
    assert float(missed) == pytest.approx((values[TEXTURE:] ** 2).sum(), rel=1e-3)


def test_few_causes_are_held_whole_and_few_images_suffice() -> None:
    texture = Texture(3)
    layers = some_layers(7, 3)
    texture.fit(layers)
    torch.testing.assert_close(texture.layers(texture.encode(layers)), layers, atol=1e-4, rtol=0)
    assert texture.encode(layers)[:, 3:].abs().max() == 0


@pytest.mark.parametrize("solver", ["dpm++2m-sde", "heun"])
def test_detail_is_drawn_as_strong_as_asked_for(solver: str) -> None:
    """By a network that knows nothing but the spectrum, which is flat."""
    refiner = Refiner(DiffusionConfig(unet=TINY, sees=SEES, spectral=True), channels=1, codes=2)
    refiner.network.unet = Stub(lambda seen, _level: torch.zeros_like(seen[:, :1]))  # type: ignore[assignment]
    maps = torch.full((8, 2, 32, 32), math.log(0.02**2 / 2))
    maps[..., 16:] += 2 * math.log(5)
    level = torch.ones(8, 1, 32, 32)
    x_hat = torch.zeros(8, 1, 32, 32)
    keys = [str(i) for i in range(8)]
    drawn = refiner.refine(x_hat, keys, steps=40, solver=solver, level=level, texture=maps)
    assert drawn[..., :16].std() == pytest.approx(0.02, rel=0.15)
    assert drawn[..., 16:].std() == pytest.approx(0.1, rel=0.15)
    with pytest.raises(UsageError, match="needs the texture"):
        refiner.refine(x_hat, keys, steps=2, level=level)


def test_the_network_sees_the_energies_last() -> None:
    network = Refiner(DiffusionConfig(unet=TINY, sees=SEES), channels=3, codes=2).network
    maps = -5 + 2 * noise(2, 3, 8, 8)
    hints = network.hints(torch.zeros(2, 3, 8, 8), torch.ones(2, 1, 8, 8), maps)
    assert hints is not None and hints.shape[1] == 1 + 4 + 8 + 3
    torch.testing.assert_close(hints[:, -3:], (maps + 5) / 2)
