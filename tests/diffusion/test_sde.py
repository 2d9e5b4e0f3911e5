"""The process against numerical integration and step-by-step simulation of equations 9 and 13."""

import math
from math import inf, nan

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from mhvae_cli.diffusion.sde import SDE
from mhvae_cli.errors import UsageError

SCHEDULES = [SDE(), SDE(1.0, 30.0), SDE(20.0, 20.0)]
TIMES = [1e-4, 1e-3, 0.02, 0.3, 0.5, 0.9, 1.0]
N = 1000  # steps of the simulations
CHECKED = (100, 400, 1000)  # after which of them
PARTICLES = 10_000


@pytest.mark.parametrize("sde", SCHEDULES)
@pytest.mark.parametrize("t", TIMES)
def test_alpha_and_sigma_are_the_integral_of_beta(sde: SDE, t: float) -> None:
    integral = quad(sde.beta, 0, t, epsabs=0, epsrel=1e-13)[0]
    assert sde.alpha(t) == pytest.approx(math.exp(-integral / 2), rel=1e-12)
    assert sde.sigma(t) == pytest.approx(math.sqrt(-math.expm1(-integral)), rel=1e-12)
    assert sde.log_snr(t) == pytest.approx(math.log(sde.alpha(t) / sde.sigma(t)), abs=1e-12)
    assert sde.diffusion(t) ** 2 == pytest.approx(sde.beta(t))


@pytest.mark.parametrize("sde", SCHEDULES)
def test_beta_runs_from_its_least_to_its_most(sde: SDE) -> None:
    assert sde.beta(0.0) == sde.beta_min and sde.beta(1.0) == pytest.approx(sde.beta_max)
    assert sde.beta(0.25) == pytest.approx(0.75 * sde.beta_min + 0.25 * sde.beta_max)


@pytest.mark.parametrize("sde", SCHEDULES)
def test_time_of_is_the_inverse_of_log_snr(sde: SDE) -> None:
    for t in [1e-9, *TIMES]:
        assert sde.time_of(sde.log_snr(t)) == pytest.approx(t, rel=1e-9)
    ts = torch.tensor(TIMES, dtype=torch.float64)
    torch.testing.assert_close(sde.time_of(sde.log_snr(ts)), ts, rtol=1e-9, atol=0)
    assert 0 <= sde.time_of(500.0) < 1e-100 and 1 < sde.time_of(-500.0) < math.inf


@pytest.mark.parametrize("dtype, rtol", [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_a_tensor_of_times_is_each_time_by_itself(dtype: torch.dtype, rtol: float) -> None:
    """And of the tensor's own dtype: sigma loses nothing at small t, as sqrt(1 - alpha^2) would."""
    sde, ts = SDE(), torch.tensor(TIMES, dtype=dtype)
    for name in ("beta", "alpha", "sigma", "diffusion", "log_snr"):
        found = getattr(sde, name)(ts)
        truth = torch.tensor([getattr(sde, name)(t) for t in TIMES], dtype=torch.float64)
        assert found.dtype == dtype, name
        torch.testing.assert_close(found.double(), truth, rtol=rtol, atol=rtol)
    assert torch.allclose(
        sde.sigma(ts).double(), torch.tensor([sde.sigma(t) for t in TIMES]).double(), 2e-5, 0
    )


def test_each_sample_has_its_own_time() -> None:
    sde, rng = SDE(), torch.Generator().manual_seed(0)
    x0, x_hat = (torch.empty(3, 2, 4, 5, dtype=torch.float64).normal_(generator=rng) for _ in range(2))
    ts = [0.1, 0.4, 1.0]
    mean, sd = sde.marginal(x0, torch.tensor(ts, dtype=torch.float64), x_hat)
    drift = sde.drift(x0, torch.tensor(ts, dtype=torch.float64), x_hat)
    assert mean.shape == drift.shape == x0.shape and sd.shape == (3, 1, 1, 1)
    for i, t in enumerate(ts):
        one, its_sd = sde.marginal(x0[i : i + 1], t, x_hat[i : i + 1])
        torch.testing.assert_close(mean[i : i + 1], one)
        assert sd[i].item() == pytest.approx(its_sd)
        torch.testing.assert_close(drift[i : i + 1], sde.drift(x0[i : i + 1], t, x_hat[i : i + 1]))


def moments(x: Tensor) -> tuple[float, float]:
    return x.mean().item(), x.std().item()


def test_the_marginal_is_where_equation_13_leads() -> None:
    """Euler's method on equation 13 as printed, written out."""
    sde, x0, x_hat, rng = SDE(), 1.7, -0.9, torch.Generator().manual_seed(1)
    x, dt = torch.full((PARTICLES,), x0, dtype=torch.float64), 1 / N
    for i in range(N):
        beta = 0.1 + 19.9 * (i + 0.5) * dt
        dw = torch.empty_like(x).normal_(generator=rng) * math.sqrt(dt)
        x = x - 0.5 * beta * (x - x_hat) * dt + math.sqrt(beta) * dw
        if i + 1 in CHECKED:
            mean, sd = sde.marginal(torch.tensor([x0], dtype=torch.float64), (i + 1) / N, x_hat)
            assert moments(x) == (pytest.approx(mean.item(), abs=0.03), pytest.approx(sd, rel=0.03))


def form_2(x0: float, x_hat: float, noise: list[Tensor], *, printed: bool = False) -> list[Tensor]:
    """The Markov chain of equation 9, its indicator put right, or as printed."""
    chain, x = [], torch.full_like(noise[0], x0)
    for i, eps in enumerate(noise, start=1):
        beta = (0.1 + 19.9 * i / N) / N
        indicator = (i == 1) if printed else (i != 1)
        gamma = 1 - indicator * math.sqrt(1 - beta)
        x = math.sqrt(1 - beta) * x + gamma * x_hat + math.sqrt(beta) * eps
        chain.append(x)
    return chain


def test_form_2_of_diffusevae_starts_at_the_image_and_x_hat() -> None:
    """Equation 9 is `marginal` from x0 + x_hat, and by no means from x0: that is equation 13."""
    sde, x0, x_hat, rng = SDE(), 1.7, -0.9, torch.Generator().manual_seed(2)
    noise = [torch.empty(PARTICLES, dtype=torch.float64).normal_(generator=rng) for _ in range(N)]
    chain, start = form_2(x0, x_hat, noise), torch.tensor([x0], dtype=torch.float64)
    for i in CHECKED:
        mean, sd = sde.marginal(start + x_hat, i / N, x_hat)
        assert moments(chain[i - 1]) == (pytest.approx(mean.item(), abs=0.03), pytest.approx(sd, rel=0.03))
    assert abs(moments(chain[99])[0] - sde.marginal(start, 0.1, x_hat)[0].item()) > 0.7
    printed = form_2(x0, x_hat, noise[:100], printed=True)
    assert abs(moments(printed[-1])[0]) > 50 * abs(x_hat)  # not a process that anyone meant


def test_form_2_less_x_hat_is_the_plain_chain_of_the_image() -> None:
    rng = torch.Generator().manual_seed(3)
    noise = [torch.empty(5, dtype=torch.float64).normal_(generator=rng) for _ in range(N)]
    plain = form_2(1.7, 0.0, noise)
    for with_x_hat, without in zip(form_2(1.7, -0.9, noise), plain, strict=True):
        torch.testing.assert_close(with_x_hat + 0.9, without, rtol=0, atol=1e-12)


def test_forward_in_x_and_in_the_residual_agree() -> None:
    """Equation 13 with x_hat, and with none on x - x_hat, on the same noise."""
    sde, rng = SDE(), torch.Generator().manual_seed(4)
    draw = lambda: torch.empty(4, 1, 8, 8, dtype=torch.float64).normal_(generator=rng)  # noqa: E731
    x, x_hat = draw(), draw()
    u = x - x_hat
    for i in range(N):
        dw = draw() * math.sqrt(sde.beta(i / N) / N)
        x, u = x + sde.drift(x, i / N, x_hat) / N + dw, u + sde.drift(u, i / N) / N + dw
        torch.testing.assert_close(x - x_hat, u, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "beta_min, beta_max",
    [(0.1, 5), (0.1, 18), (0.1, 1000), (0, 20), (-1, 20), (20, 0.1), (0.1, inf), (nan, 20), (0.1, nan)],
)
def test_a_schedule_that_does_not_lead_to_noise_is_refused(beta_min: float, beta_max: float) -> None:
    with pytest.raises(UsageError, match="noise schedule") as raised:
        SDE(beta_min, beta_max)
    assert raised.value.hint and "\n" not in str(raised.value)


@pytest.mark.parametrize("beta_sum", [19, 55])
def test_the_sums_that_the_hint_names_are_good(beta_sum: float) -> None:
    assert 1e-6 < SDE(0.1, beta_sum - 0.1).alpha(1.0) < 0.01
