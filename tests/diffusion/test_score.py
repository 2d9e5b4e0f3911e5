"""Equation 8 and what a score network sees, against Gaussians whose score, loss and draws are known."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from support.score_stubs import TINY, Stub, exact_v, noise
from torch import Tensor

from mhvae_cli.config import DiffusionConfig
from mhvae_cli.diffusion.noise import path_noise
from mhvae_cli.diffusion.score import ScoreNetwork, place
from mhvae_cli.diffusion.solvers import SOLVERS

SEES = ["residual+recon", "residual", "x"]
TIMES = [0.02, 0.2, 0.5, 0.9]


def stubbed(answer: Callable[[Tensor, Tensor], Tensor], scale: float = 1.0, **given: Any) -> ScoreNetwork:
    network = ScoreNetwork(DiffusionConfig(unet=TINY, **given), 1)
    network.unet = Stub(answer)
    network.scale.fill_(scale)
    return network


def nothing(seen: Tensor, _level: Tensor) -> Tensor:
    return torch.zeros_like(seen[:, :1])


# What goes in and out


@pytest.mark.parametrize("process", ["mhvae", "diffusevae"])
def test_the_start_of_the_process_and_the_image_are_inverse(process: str) -> None:
    network = stubbed(nothing, scale=0.15, process=process)
    image, x_hat = noise(2, 1, 4, 4), noise(2, 1, 4, 4, seed=1)
    start = image - x_hat if process == "mhvae" else image
    torch.testing.assert_close(network.target(image, x_hat) * 0.15, start)
    torch.testing.assert_close(network.image(network.target(image, x_hat), x_hat), image)


@pytest.mark.parametrize("sees", [*SEES, "x+recon"])
def test_the_network_is_shown_what_the_configuration_says(sees: str) -> None:
    network = stubbed(nothing, scale=0.2, sees=sees)
    u, x_hat, t = noise(2, 1, 3, 3), noise(2, 1, 3, 3, seed=1), torch.tensor([0.1, 0.7])
    network(u, t, x_hat)
    ((seen, level),) = network.unet.given
    parts = {"residual": u, "x": x_hat + 0.2 * u, "recon": x_hat}
    torch.testing.assert_close(seen, torch.cat([parts[name] for name in sees.split("+")], dim=1))
    torch.testing.assert_close(level, torch.tensor([network.sde.log_snr(float(s)) for s in t]))


def test_the_real_network_takes_as_many_channels_as_it_sees() -> None:
    for sees in [*SEES, "x+recon"]:
        network = ScoreNetwork(DiffusionConfig(unet=TINY, sees=sees), 3)
        u, x_hat = noise(2, 3, 7, 9), noise(2, 3, 7, 9, seed=1)
        assert network.score(u, 0.5, x_hat).shape == (2, 3, 7, 9)
        assert network.unet.enter.in_channels == 4 * 3 * (2 if "recon" in sees else 1)


# Score and loss


@pytest.mark.parametrize("spread", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("t", TIMES)
def test_a_perfect_v_gives_the_analytic_score(spread: float, t: float) -> None:
    network = stubbed(exact_v(spread), sees="residual")
    u = noise(2, 1, 5, 5)
    variance = network.sde.alpha(t) ** 2 * spread**2 + network.sde.sigma(t) ** 2
    torch.testing.assert_close(network.score(u, t, torch.zeros_like(u)), -u / variance, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("process", ["mhvae", "diffusevae"])
@pytest.mark.parametrize("t", TIMES)
def test_a_perfect_v_has_the_irreducible_loss_and_any_other_more(process: str, t: float) -> None:
    """Var(v | u) of a Gaussian; a change d of v costs the mean of d^2, whatever t."""
    spread, scale = 0.5, 0.3
    x_hat, eps = noise(40, 1, 64, 64, seed=1), noise(40, 1, 64, 64, seed=2)
    start = spread * scale * noise(40, 1, 64, 64)
    image = start if process == "diffusevae" else x_hat + start
    times = torch.full((40,), t)

    def loss(change: Callable[[Tensor], Tensor]) -> float:
        answer = exact_v(spread)
        network = stubbed(
            lambda seen, level: change(answer(seen, level)), scale, sees="residual", process=process
        )
        per_sample = network.loss(image, x_hat, times, eps)
        assert per_sample.shape == (40,)
        return float(per_sample.mean())

    sde = stubbed(nothing).sde
    variance = sde.alpha(t) ** 2 * spread**2 + sde.sigma(t) ** 2
    best = loss(lambda v: v)
    assert best == pytest.approx(spread**2 / variance, rel=0.01)
    size = (sde.alpha(t) * sde.sigma(t) * (1 - spread**2)) ** 2 / variance  # E[v^2] of the perfect v
    assert loss(lambda v: 1.5 * v) - best == pytest.approx(size / 4, rel=0.1, abs=1e-5)
    assert loss(lambda v: 0.5 * v) - best == pytest.approx(size / 4, rel=0.1, abs=1e-5)
    assert loss(lambda v: v + 0.2) - best == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize("t", TIMES)
def test_the_papers_form_gives_the_score_of_what_it_sees(t: float) -> None:
    """S(x, t) = -E[eps | x] / sigma, in which x_hat has no part; x0 and x_hat of sd 1 and 0.8, apart."""
    scale, x_hat = 1.25, 0.8 * noise(60, 1, 32, 32, seed=1)
    image, eps = noise(60, 1, 32, 32), noise(60, 1, 32, 32, seed=2)
    sde = stubbed(nothing).sde
    alpha, noised = sde.alpha(t), scale * sde.sigma(t)
    share = noised / (alpha**2 + 0.64 * (1 - alpha) ** 2 + noised**2)  # E[eps | x] / x
    network = stubbed(lambda seen, _level: share * seen, scale, sees="x")
    losses = network.loss(image, x_hat, torch.full((60,), t), eps)
    assert float(losses.mean()) == pytest.approx(1 - share * noised, rel=0.02)
    u = noise(2, 1, 3, 3)
    x = x_hat[:2, :, :3, :3] + scale * u
    score = network.score(u, t, x_hat[:2, :, :3, :3])
    torch.testing.assert_close(score, -share * x / sde.sigma(t))


def test_the_target_has_unit_size_at_every_time() -> None:
    network = stubbed(nothing, 0.3)
    image, x_hat, eps = 0.3 * noise(8, 1, 64, 64), torch.zeros(8, 1, 64, 64), noise(8, 1, 64, 64, seed=2)
    losses = network.loss(image, x_hat, torch.linspace(1e-3, 1, 8), eps)
    assert losses.tolist() == pytest.approx([1.0] * 8, rel=0.06)


# What it must see (section 4.2 writes S(x, t))


def fitted(sees: str, x0: Tensor, x_hat: Tensor, times: list[float]) -> ScoreNetwork:
    """A network that answers linearly in what it sees, by least squares of equation 8 at each time."""
    network = stubbed(nothing, float((x0 - x_hat).std()), sees=sees)
    sde, start = network.sde, network.target(x0, x_hat)
    lines = {}
    for i, t in enumerate(times):
        eps = noise(*x0.shape, seed=10 + i)
        network.loss(x0, x_hat, torch.full((len(x0),), t), eps)
        seen = network.unet.given.pop()[0].flatten(1)
        sought = eps if sees == "x" else sde.alpha(t) * eps - sde.sigma(t) * start
        lines[sde.log_snr(t)] = torch.linalg.lstsq(seen, sought.flatten(1)).solution

    def answer(seen: Tensor, level: Tensor) -> Tensor:
        line = lines[min(lines, key=lambda known: abs(known - float(level[0])))]
        return (seen.flatten(1) @ line)[:, :, None, None]

    network.unet.answer = answer
    return network


def test_without_x_hat_the_mean_that_it_should_return_to_is_missed() -> None:
    """x0 ~ N(0, 1) and a VAE that shrinks: E[x0 | x_hat] = 1.4 x_hat, with an sd of 0.3.

    The best linear S(x, t) there is, and the best of the residual alone, draw about another mean; with the
    residual and x_hat the draws are those of p(x0 | x_hat). By the paper's solver (equation 15).
    """
    slope, left, count, steps = 1.4, 0.3, 10_000, 60
    x_hat = math.sqrt(1 - left**2) / slope * noise(count, 1, 1, 1)
    x0 = slope * x_hat + left * noise(count, 1, 1, 1, seed=1)
    shown = torch.tensor([-1.0, 0.5, 1.0])[:, None].expand(3, 2500).reshape(-1, 1, 1, 1)
    times = [1 - i / steps for i in range(steps)]
    slopes, spreads = {}, {}
    for sees in SEES:
        network = fitted(sees, x0, x_hat, times)
        draw = path_noise([""], shown.shape, seed=0)
        score = partial(network.score, x_hat=shown)
        u = SOLVERS["euler-maruyama"](
            score, draw()[0], network.sde, steps=steps, noise=lambda draw=draw: draw()[0]
        )
        draws = network.image(u, shown).view(3, -1)
        slopes[sees], spreads[sees] = draws.mean(1) / shown.view(3, -1)[:, 0], draws.std(1)
    assert slopes["residual+recon"].tolist() == pytest.approx([slope] * 3, abs=0.04)
    assert spreads["residual+recon"].tolist() == pytest.approx([left] * 3, rel=0.05)
    for sees in ("residual", "x"):
        assert (slopes[sees] - slope).abs().min() > 0.3, slopes


def test_the_place_of_a_pixel_is_that_of_the_images_frame() -> None:
    seen = place(torch.zeros(2, 3, 4, 8))
    xs, ys = np.meshgrid((np.arange(8) - 3.5) / 4, (np.arange(4) - 1.5) / 2)
    turns = np.stack([xs / 4, ys / 4, 2 * xs, 2 * ys])
    truth = np.stack([np.sin(2 * np.pi * turns), np.cos(2 * np.pi * turns)], axis=1).reshape(8, 4, 8)
    np.testing.assert_allclose(seen, np.stack([truth, truth]), atol=1e-6)
