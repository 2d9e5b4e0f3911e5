"""Section 4.2: solvers of equation 15, from x(start) back to the image x(0).

At t = 1 x is x_hat + noise. Solvers need only score(x, t), not the network. The paper's is Euler-Maruyama.
The fast ones integrate the known, linear part of the process exactly and approximate only
D(t) = E[x0 - x_hat | x(t)], which changes slowly. With u = x - x_hat and l = log(alpha / sigma), a step from
l to l + h is

    u' = sigma'/sigma exp(-(k - 1) h) u + alpha' int_0^h k exp(-k (h - s)) D(l + s) ds (+ noise),

k = 1 for the ODE that shares equation 15's marginals (the probability flow), k = 2 for equation 15 itself.
They take equal steps in l from `start` to t = `END` and return x_hat + D there.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Protocol

from torch import Tensor

from .noise import Noise
from .sde import SDE

Score = Callable[[Tensor, float], Tensor]
"""(x (B, ...), t) -> the gradient of log p_t at x, shaped like x."""

END = 1e-3
"""The time at which the fast solvers remove the remaining noise in a single step (Tweedie's formula)."""


class Solver(Protocol):
    """Solves from x = x(start) (B, ...) to an estimate of x(0), of the same shape and dtype.

    `steps` >= 1 is the number of evaluations of the score; only stochastic solvers use `noise`.
    """

    def __call__(
        self,
        score: Score,
        x: Tensor,
        sde: SDE,
        *,
        steps: int,
        noise: Noise,
        x_hat: Tensor | float = 0.0,
        start: float = 1.0,
    ) -> Tensor: ...


def euler_maruyama(
    score: Score,
    x: Tensor,
    sde: SDE,
    *,
    steps: int,
    noise: Noise,
    x_hat: Tensor | float = 0.0,
    start: float = 1.0,
) -> Tensor:
    """Equation 15 as the paper solves it, on a uniform grid of t; the last step, to t = 0, adds no noise."""
    dt = start / steps
    for i in range(steps):
        t = start - i * dt
        # Backwards in time: the drift's sign is reversed, and the score term has diffusion^2 = beta.
        x = x + dt * (sde.beta(t) * score(x, t) - sde.drift(x, t, x_hat))
        if i < steps - 1:
            x = x + math.sqrt(dt) * sde.diffusion(t) * noise()
    return x


def heun(
    score: Score,
    x: Tensor,
    sde: SDE,
    *,
    steps: int,
    noise: Noise,
    x_hat: Tensor | float = 0.0,
    start: float = 1.0,
) -> Tensor:
    """Second order, single-step: D at both ends of a step, then the step repeated with D linear in between.

    Two evaluations per step and one at the end, so with an even number of `steps` one remains unused.
    """
    times, u = _times(sde, (steps + 1) // 2, start), x - x_hat
    clean = _clean(score, u, times[0], sde, x_hat)
    for t, after in pairwise(times):
        h = sde.log_snr(after) - sde.log_snr(t)
        alpha, weight = sde.alpha(after), -math.expm1(-h)  # the integral of exp(-(h - s)) over the step
        u = sde.sigma(after) / sde.sigma(t) * u + alpha * weight * clean
        found = _clean(score, u, after, sde, x_hat)
        u = u + alpha * (1 - weight / h) * (found - clean)
        clean = _clean(score, u, after, sde, x_hat)
    return x_hat + clean


def _multistep(
    score: Score,
    x: Tensor,
    sde: SDE,
    *,
    steps: int,
    noise: Noise,
    x_hat: Tensor | float = 0.0,
    start: float = 1.0,
    stochastic: bool = False,
    corrected: bool = False,
) -> Tensor:
    """Second order, from the last two D: DPM-Solver++(2M) or, if `stochastic`, SDE-DPM-Solver++(2M).

    `corrected` is UniPC-2: with D known at a step's end, the step is repeated with D through the last three.
    """
    k, times, u = 2 if stochastic else 1, _times(sde, steps, start), x - x_hat
    clean, slope = _clean(score, u, times[0], sde, x_hat), None
    for t, after in pairwise(times):
        h = sde.log_snr(after) - sde.log_snr(t)
        alpha, sigma, weight = sde.alpha(after), sde.sigma(after), -math.expm1(-k * h)
        base = sigma / sde.sigma(t) * math.exp((1 - k) * h) * u + alpha * weight * clean
        if stochastic:  # the noise's variance over the step: sigma'^2 (1 - exp(-2 h))
            base = base + sigma * math.sqrt(weight) * noise()
        u = base if slope is None else base + alpha * weight * h / 2 * slope
        found = _clean(score, u, after, sde, x_hat)
        new = (found - clean) / h
        if corrected:  # the integrals of s and of s (s - h), weighted with exp(-(h - s))
            linear, bent = h - weight, h * h - (2 + h) * (h - weight)
            u = base + alpha * linear * new
            if slope is not None:
                u = u + alpha * bent * (new - slope) / (2 * h)
        clean, slope = found, new
    return x_hat + clean


def _times(sde: SDE, count: int, start: float) -> list[float]:
    """`count` times from `start` to `END`, equally spaced in log(alpha / sigma)."""
    first, last = sde.log_snr(start), sde.log_snr(END)
    inner = [sde.time_of(first + (last - first) * i / (count - 1)) for i in range(1, count - 1)]
    return [start, *inner, END][:count]


def _clean(score: Score, u: Tensor, t: float, sde: SDE, x_hat: Tensor | float) -> Tensor:
    """D(t) = E[x0 - x_hat | x(t) = x_hat + u], from the score by Tweedie's formula."""
    return (u + sde.sigma(t) ** 2 * score(x_hat + u, t)) / sde.alpha(t)


SOLVERS: dict[str, Solver] = {
    "dpm++2m": _multistep,
    "dpm++2m-sde": partial(_multistep, stochastic=True),
    "unipc": partial(_multistep, corrected=True),
    "heun": heun,
    "euler-maruyama": euler_maruyama,
}
"""The solvers by name, as used by --solver."""
