"""Refined pictures are draws about the VAE's picture, keyed on seed and name."""

from typing import Any

import numpy as np
import pytest
import torch
from support.score_stubs import TINY, Stub, exact_v, noise

from mhvae_cli.config import DiffusionConfig
from mhvae_cli.diffusion.frames import Frames
from mhvae_cli.diffusion.refiner import Refiner
from mhvae_cli.diffusion.score import Known
from mhvae_cli.diffusion.sde import SDE
from mhvae_cli.errors import UsageError


def refiner(spread: float = 1.0, scale: float = 0.2, **given: Any) -> Refiner:
    made = Refiner(DiffusionConfig(unet=TINY, sees="residual", **given), channels=1, codes=3)
    made.network.unet = Stub(exact_v(spread))
    made.network.scale.fill_(scale)
    return made


@pytest.mark.parametrize(
    ("solver", "steps"),
    [("dpm++2m", 20), ("dpm++2m-sde", 30), ("unipc", 20), ("heun", 60), ("euler-maruyama", 100)],
)
def test_refined_pictures_are_draws_about_x_hat(solver: str, steps: int) -> None:
    x_hat = torch.linspace(-0.3, 0.3, 60)[None, None, :, None].expand(2, 1, 60, 70)
    found = refiner(spread=0.5).refine(x_hat, ["a", "b"], solver=solver, steps=steps)
    assert found.shape == x_hat.shape
    added = found - x_hat
    assert added.std() == pytest.approx(0.1, rel=0.04) and abs(added.mean()) < 0.006
    assert abs(torch.corrcoef(added.flatten(1))[0, 1]) < 0.05


@pytest.mark.parametrize("strength", [0.05, 0.3, 0.6])
def test_less_strength_adds_less(strength: float) -> None:
    x_hat = torch.linspace(-0.3, 0.3, 60)[None, None, :, None].expand(1, 1, 60, 70)
    found = refiner(spread=0.5).refine(x_hat, ["a"], solver="dpm++2m", strength=strength)
    sde = SDE()
    alpha, sigma = sde.alpha(strength), sde.sigma(strength)
    # The flow of N(0, 0.5^2) from noise of sd sigma, where alpha^2 0.5^2 of the variance is missing.
    sd = 0.2 * 0.5 * sigma / (0.25 * alpha**2 + sigma**2) ** 0.5
    assert (found - x_hat).std() == pytest.approx(sd, rel=0.05)


def test_diffusevae_starts_from_the_noised_picture() -> None:
    x_hat = torch.full((1, 1, 60, 70), 0.05)
    made = refiner(spread=0.5, process="diffusevae")
    means = [float(made.refine(x_hat, ["a"], solver="dpm++2m", strength=s).mean()) for s in (0.02, 1.0)]
    assert means[0] == pytest.approx(0.05, abs=0.006) and abs(means[1]) < 0.006


def test_the_strength_is_the_models_own() -> None:
    x_hat = torch.zeros(1, 1, 20, 20)
    own = refiner(strength=0.2).refine(x_hat, ["a"], steps=5)
    assert torch.equal(own, refiner().refine(x_hat, ["a"], steps=5, strength=0.2))
    assert not torch.equal(own, refiner().refine(x_hat, ["a"], steps=5))


@pytest.mark.parametrize("strength", [0.0, 0.001, 1.01, float("nan")])
def test_a_strength_that_is_none(strength: float) -> None:
    with pytest.raises(UsageError, match="strength"):
        refiner().refine(torch.zeros(1, 1, 8, 8), ["a"], strength=strength)


def test_diffusevaes_draws_are_not_added_to_x_hat() -> None:
    x_hat = torch.full((1, 1, 60, 70), 0.7)
    found = refiner(spread=0.5, process="diffusevae").refine(x_hat, ["a"], solver="dpm++2m")
    assert abs(found.mean()) < 0.006 and found.std() == pytest.approx(0.1, rel=0.04)


def test_a_draw_is_keyed_on_seed_and_name_alone() -> None:
    made, x_hat = refiner(), 0.2 * noise(3, 1, 9, 11)
    three = made.refine(x_hat, ["a", "b", "c"], seed=4, steps=8)
    for order in ([2, 0, 1], [1], [1, 2]):
        again = made.refine(x_hat[order], ["abc"[i] for i in order], seed=4, steps=8)
        torch.testing.assert_close(again, three[order], atol=1e-6, rtol=0)
    for keys, seed in ((["a", "b", "d"], 4), (["a", "b", "c"], 5)):
        other = made.refine(x_hat, keys, seed=seed, steps=8)
        assert (other[2] - three[2]).abs().max() > 0.05
    assert (made.refine(x_hat, ["a"] * 3, steps=8) - x_hat).std(0).max() < 1e-5


def test_what_is_refined_stays_in_the_range() -> None:
    found = refiner(scale=3.0).refine(torch.zeros(1, 1, 20, 20), ["a"], steps=8)
    assert found.min() == -1 and found.max() == 1


def test_an_unknown_solver_is_named_with_the_known() -> None:
    with pytest.raises(UsageError, match="no solver 'ddim'") as caught:
        refiner().refine(torch.zeros(1, 1, 8, 8), ["a"], solver="ddim")
    assert "dpm++2m" in caught.value.hint


def test_an_image_of_which_nothing_is_known_gets_the_frame_that_suits_it() -> None:
    left, bottom = (torch.zeros(40, 40, dtype=torch.bool) for _ in range(2))
    left[:, :12], bottom[30:] = True, True
    made = refiner(spread=0.5)
    evidence = np.repeat(np.array([2, -2], np.float32), [8, 56])  # dark x_hat speaks for black
    made.frames = Frames(torch.stack([left, bottom]).numpy(), evidence, np.zeros(3, np.float32))
    x_hat = torch.full((3, 1, 40, 40), 0.1)
    for image, frame in zip(x_hat, (left, bottom), strict=False):
        image[:, frame] = -0.85
    found = made.refine(x_hat, ["a", "b", "c"])
    for image, frame in zip(found, (left, bottom), strict=False):
        assert (image[:, frame] == -1).all()
        assert image[:, ~frame].std() == pytest.approx(0.1, rel=0.15)
        assert image[:, ~frame].mean() == pytest.approx(0.1, abs=0.02)
    assert found[2].std() == pytest.approx(0.1, rel=0.15) and found[2].min() > -0.6  # suited by none
    known = torch.zeros(3, 1, 40, 40)
    known[0, :, :, :20] = 1  # what is known of an image wins over a frame, in the same batch as one without
    kept = Known(torch.full_like(x_hat, 0.7), known, torch.zeros_like(known), torch.ones_like(known))
    found = made.refine(x_hat, ["a", "b", "c"], known=kept)
    assert found[0, :, :, :20].mean() == pytest.approx(0.7, abs=0.02)
    assert (found[1][:, bottom] == -1).all()
