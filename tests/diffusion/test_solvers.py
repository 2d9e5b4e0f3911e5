"""Solvers against the analytic scores of a Gaussian and a mixture."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mhvae_cli.diffusion.noise import Noise
from mhvae_cli.diffusion.sde import SDE
from mhvae_cli.diffusion.solvers import END, SOLVERS, Score

STOCHASTIC = {"dpm++2m-sde", "euler-maruyama"}
ORDERS = {"dpm++2m": 2, "heun": 2, "unipc": 3}  # of the ODE solvers; UniPC-2's corrector adds one
STEPS = {"dpm++2m": 50, "dpm++2m-sde": 50, "unipc": 20, "heun": 101, "euler-maruyama": 1000}  # that suffice
EVERY = pytest.mark.parametrize("name", SOLVERS)
ODES = pytest.mark.parametrize("name", ORDERS)
MEAN, SD = 0.7, 0.3


def normal(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Noise:
    rng = torch.Generator().manual_seed(seed)
    return lambda: torch.empty(*shape, dtype=dtype).normal_(generator=rng)


def no_noise() -> Tensor:
    raise AssertionError("a solver of the ODE asked for noise")


def gaussian(mean: float | Tensor, sd: float, x_hat: float | Tensor = 0.0, sde: SDE | None = None) -> Score:
    """The score of equation 13's x(t) where x(0) is N(mean, sd^2)."""
    sde = sde or SDE()

    def score(x: Tensor, t: float) -> Tensor:
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        return -(x - x_hat - alpha * (mean - x_hat)) / ((alpha * sd) ** 2 + sigma**2)

    return score


def flow(u: Tensor, sde: SDE, start: float = 1.0) -> Tensor:
    """Where the probability flow takes u(start) by `END`, u(0) being N(MEAN, SD^2), and D there."""
    spread = {t: (sde.alpha(t) * SD) ** 2 + sde.sigma(t) ** 2 for t in (start, END)}
    moved = math.sqrt(spread[END] / spread[start]) * (u - sde.alpha(start) * MEAN)
    return MEAN + sde.alpha(END) * SD**2 / spread[END] * moved


# A Gaussian


@ODES
@pytest.mark.parametrize("sde", [SDE(), SDE(1.0, 30.0), SDE(20.0, 20.0)])
@pytest.mark.parametrize("start", [1.0, 0.3])
def test_an_ode_solver_follows_the_flow(name: str, sde: SDE, start: float) -> None:
    u = torch.linspace(-3, 3, 31, dtype=torch.float64)
    score = gaussian(MEAN, SD, sde=sde)
    found = SOLVERS[name](score, u, sde, steps=101, noise=no_noise, start=start)
    torch.testing.assert_close(found, flow(u, sde, start), atol=5e-3, rtol=0)


@ODES
def test_an_ode_solver_has_its_order(name: str) -> None:
    """Twice the steps: a fourth of the error; an eighth for the third order."""
    sde, u = SDE(), torch.linspace(-3, 3, 31, dtype=torch.float64)
    errors = [
        SOLVERS[name](gaussian(MEAN, SD), u, sde, steps=steps, noise=no_noise) - flow(u, sde)
        for steps in (161, 321)
    ]
    order = math.log2((errors[0].abs().max() / errors[1].abs().max()).item())
    assert ORDERS[name] - 0.35 < order < ORDERS[name] + 0.6


def variance(name: str, steps: int) -> float:
    """Of what a solver makes of N(0, SD^2), to rounding: it is linear in x(1) and in each draw of noise.

    So x(1) and each draw are unit vectors here, and the result is its coefficients.
    """
    draws = iter(torch.eye(steps, dtype=torch.float64))
    x = SOLVERS[name](gaussian(0.0, SD), next(draws), SDE(), steps=steps, noise=lambda: next(draws))
    return x.square().sum().item()


@pytest.mark.parametrize("name, steps", STEPS.items())
def test_the_result_has_the_mean_and_variance_of_the_data(name: str, steps: int) -> None:
    assert variance(name, steps) == pytest.approx(SD**2, rel=0.02)
    x_hat = torch.tensor([-1.1, 0.0, 2.0], dtype=torch.float64)
    x = SOLVERS[name](
        gaussian(MEAN, SD, x_hat), x_hat, SDE(), steps=steps, noise=lambda: torch.zeros(()), x_hat=x_hat
    )
    torch.testing.assert_close(x, torch.full_like(x, MEAN), atol=0.015, rtol=0)


@pytest.mark.parametrize("name, order", [("euler-maruyama", 1), ("dpm++2m-sde", 2)])
def test_a_stochastic_solver_has_its_order_in_the_variance(name: str, order: int) -> None:
    sde = SDE()
    truth = SD**2  # and for the fast one, of D at END
    if order == 2:
        truth *= (sde.alpha(END) * SD) ** 2 / ((sde.alpha(END) * SD) ** 2 + sde.sigma(END) ** 2)
    errors = [abs(variance(name, steps) - truth) for steps in (401, 801)]
    assert order - 0.35 < math.log2(errors[0] / errors[1]) < order + 0.6


@pytest.mark.parametrize("name", [*ORDERS, "dpm++2m-sde"])
def test_one_evaluation_is_the_mean(name: str) -> None:
    """From noise alone E[x0 | x(1)] is all there is to know: a blurred picture, and no rubbish."""
    x_hat, noise = 0.4, normal(1, 100)
    x = SOLVERS[name](gaussian(MEAN, SD, x_hat), x_hat + noise(), SDE(), steps=1, noise=noise, x_hat=x_hat)
    torch.testing.assert_close(x, torch.full_like(x, MEAN), atol=0.01, rtol=0)


# x_hat: the paper's process, and DiffuseVAE's


@EVERY
def test_in_x_and_in_the_residual_are_one(name: str) -> None:
    """Equation 15 with x_hat, and with none on x - x_hat, on the same noise; nothing is subtracted after."""
    sde, steps = SDE(), STEPS[name]
    x_hat, mean, start = (normal(i, 2, 3, 8, 8)() for i in range(3))
    solve = SOLVERS[name]
    x = solve(
        gaussian(mean, SD, x_hat), start + x_hat, sde, steps=steps, noise=normal(9, 2, 3, 8, 8), x_hat=x_hat
    )
    u = solve(gaussian(mean - x_hat, SD), start, sde, steps=steps, noise=normal(9, 2, 3, 8, 8))
    torch.testing.assert_close(x, x_hat + u, rtol=0, atol=1e-12)


@EVERY
def test_form_2_gives_the_image_once_x_hat_is_subtracted(name: str) -> None:
    """There x(0) = x0 + x_hat. After the paper's process the same subtraction would lose x_hat."""
    x_hat = torch.tensor([-1.1, 0.8], dtype=torch.float64)
    score, steps = gaussian(MEAN + x_hat, SD, x_hat), STEPS[name]
    x = SOLVERS[name](score, x_hat, SDE(), steps=steps, noise=lambda: torch.zeros(()), x_hat=x_hat)
    torch.testing.assert_close(x - x_hat, torch.full_like(x, MEAN), atol=0.015, rtol=0)


# What a solver asks for, and what it gives


@EVERY
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 20, 25])
def test_steps_are_evaluations_of_the_score(name: str, steps: int) -> None:
    times: list[float] = []
    drawn: list[Tensor] = []
    inner, noise = gaussian(MEAN, SD), normal(3, 2, 1, 4, 4)

    def score(x: Tensor, t: float) -> Tensor:
        times.append(t)
        return inner(x, t)

    def counted() -> Tensor:
        drawn.append(noise())
        return drawn[-1]

    x = SOLVERS[name](score, noise(), SDE(), steps=steps, noise=counted)
    used = steps - 1 if name == "heun" and steps % 2 == 0 else steps
    assert len(times) == used and all(isinstance(t, float) for t in times)
    assert times[0] == 1 and times == sorted(times, reverse=True) and times[-1] > 0
    assert len(drawn) == (steps - 1 if name in STOCHASTIC else 0)
    assert x.isfinite().all()


class NoDouble(TorchDispatchMode):
    """Fails where a float64 tensor is made, which Apple's GPUs cannot hold."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        assert not (isinstance(out, Tensor) and out.dtype == torch.float64), func
        return out


@EVERY
def test_single_and_double_precision_agree(name: str) -> None:
    shape, sde = (2, 3, 8, 8), SDE()
    noise = [normal(seed, *shape)().float() for seed in range(60)]
    x_hat, start = noise.pop(), noise.pop()
    found = {}
    for dtype in (torch.float32, torch.float64):
        own = [z.to(dtype) for z in noise]
        hat = x_hat.to(dtype)
        x = start.to(dtype) + hat
        before, score = x.clone(), gaussian(MEAN, SD, hat)
        if dtype == torch.float32:
            with NoDouble():
                found[dtype] = SOLVERS[name](score, x, sde, steps=50, noise=own.pop, x_hat=hat)
        else:
            found[dtype] = SOLVERS[name](score, x, sde, steps=50, noise=own.pop, x_hat=hat)
        assert found[dtype].dtype == dtype and found[dtype].shape == shape and torch.equal(x, before)
    torch.testing.assert_close(found[torch.float32].double(), found[torch.float64], atol=2e-5, rtol=0)


# A mixture in 64 dimensions


DIMENSIONS, DRAWS = 64, 2048


class Mixture:
    """Eight Gaussians in 64 dimensions, about x_hat, and the score of equation 13 from there."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        means = torch.empty(8, DIMENSIONS).normal_(generator=rng)
        sds = 0.2 + 0.3 * torch.empty(8, 1).uniform_(generator=rng)
        means -= means.mean(0)
        scale = (means.square() + sds.square()).mean().sqrt()
        self.means, self.sds = means / scale, sds / scale
        self.x_hat = torch.empty(DIMENSIONS).uniform_(-1, 1, generator=rng)
        self.sde = SDE()

    def draw(self, seed: int) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        which = torch.randint(8, (DRAWS,), generator=rng)
        noise = torch.empty(DRAWS, DIMENSIONS).normal_(generator=rng)
        return self.x_hat + self.means[which] + self.sds[which] * noise

    def score(self, x: Tensor, t: float) -> Tensor:
        alpha, sigma, u = self.sde.alpha(t), self.sde.sigma(t), x - self.x_hat
        means, variance = alpha * self.means, ((alpha * self.sds) ** 2 + sigma**2)[:, 0]
        distance = u.square().sum(1, keepdim=True) - 2 * u @ means.T + means.square().sum(1)
        share = torch.softmax(-0.5 * (distance / variance + DIMENSIONS * variance.log()), 1) / variance
        return share @ means - share.sum(1, keepdim=True) * u

    def solve(self, solver: Callable[..., Tensor], steps: int) -> Tensor:
        noise = normal(5, DRAWS, DIMENSIONS, dtype=torch.float32)
        start = self.x_hat + noise()
        return solver(self.score, start, self.sde, steps=steps, noise=noise, x_hat=self.x_hat)


def sliced(a: Tensor, b: Tensor) -> float:
    """Sliced Wasserstein-2 distance of two equally large samples, over 256 directions."""
    lines = torch.empty(DIMENSIONS, 256).normal_(generator=torch.Generator().manual_seed(6))
    lines /= lines.norm(dim=0)
    return ((a @ lines).sort(0).values - (b @ lines).sort(0).values).square().mean().sqrt().item()


def ddim(score: Score, x: Tensor, sde: SDE, *, steps: int, noise: Noise, x_hat: Tensor) -> Tensor:
    """The first-order solver, even in log(alpha / sigma): what the second order must beat."""
    grid = torch.linspace(sde.log_snr(1.0), sde.log_snr(END), steps).tolist()
    times, u = [sde.time_of(level) for level in grid], x - x_hat
    for t, after in zip(times, [*times[1:], 0.0], strict=True):
        eps = -sde.sigma(t) * score(x_hat + u, t)
        u = sde.alpha(after) * (u - sde.sigma(t) * eps) / sde.alpha(t) + sde.sigma(after) * eps
    return x_hat + u


@cache
def mixture() -> tuple[Mixture, Tensor, Tensor]:
    """The mixture, a sample of it, and what the paper's solver makes in 1,000 evaluations."""
    truth = Mixture()
    return truth, truth.draw(1), truth.solve(SOLVERS["euler-maruyama"], 1000)


def test_euler_maruyama_in_a_thousand_draws_from_the_mixture() -> None:
    truth, sample, thousand = mixture()
    assert sliced(thousand, sample) < 1.3 * sliced(truth.draw(2), sample)
    assert thousand.var().item() == pytest.approx(sample.var().item(), rel=0.03)


@pytest.mark.parametrize("name", ["dpm++2m", "unipc"])
def test_fifteen_evaluations_do_what_a_thousand_of_euler_maruyama_do(name: str) -> None:
    truth, sample, thousand = mixture()
    distance = sliced(truth.solve(SOLVERS[name], 15), sample)
    assert distance <= sliced(thousand, sample)
    assert sliced(truth.solve(ddim, 15), sample) > 1.6 * distance
    assert truth.solve(SOLVERS[name], 20).var().item() == pytest.approx(thousand.var().item(), rel=0.015)


@pytest.mark.parametrize("name, steps", [("heun", 31), ("dpm++2m-sde", 30)])
def test_the_other_fast_solvers_reach_it_in_thirty(name: str, steps: int) -> None:
    truth, sample, thousand = mixture()
    assert sliced(truth.solve(SOLVERS[name], steps), sample) <= 1.2 * sliced(thousand, sample)
