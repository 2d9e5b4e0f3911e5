"""Sections 2.2 and 4.1: the diffusion process that leads from an image to x_hat + noise.

With x_hat = 0 it is DDPM's process (equation 6). Equation 13 is the same process for the residual
u = x - x_hat: x with x_hat and u without are equivalent. Solved back to t = 0, x is the image.

DiffuseVAE's form 2 (equation 9) is different: there x - x_hat is a DDPM process that starts at the image x0
ITSELF, not at the residual, that is x(0) = x0 + x_hat. Its marginal is marginal(x0 + x_hat, t, x_hat), and
x_hat is subtracted from a solver's result; with equation 13 nothing may be subtracted. (Equation 9's
indicator is printed inverted: gamma is 1 at the first step, 1 - sqrt(1 - beta) at the others. As printed,
x_hat would accumulate.)
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import UsageError

Time = TypeVar("Time", float, Tensor)
"""A time in [0, 1]: a float, or one per sample, (B,) float. Functions of time return the same kind."""

LEFT = (1e-6, 0.01)
"""Limits of alpha(1), the share of x0 left at t = 1: solvers start without it, but divide by it."""


@dataclass(frozen=True)
class SDE:
    """Equation 13: dx = -1/2 beta(t) (x - x_hat) dt + sqrt(beta(t)) dw, t in [0, 1]; beta is linear in t.

    Raises UsageError unless 0 < beta_min <= beta_max < inf and alpha(1) is within `LEFT`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        name = f"noise schedule from beta {self.beta_min:g} to {self.beta_max:g}"
        if not 0 < self.beta_min <= self.beta_max < math.inf:
            raise UsageError(f"{name} is not positive and rising", hint="0 < beta_min <= beta_max")
        left, (least, most) = self.alpha(1.0), LEFT
        if not least <= left <= most:
            # alpha(1) = exp(-(beta_min + beta_max) / 4), so the limits of alpha(1) limit the sum.
            low, high = math.ceil(-4 * math.log(most)), math.floor(-4 * math.log(least))
            raise UsageError(
                f"{name} leaves {left:.2g} of the image at its end, not {least:g} to {most:g}",
                hint=f"the sum of beta_min and beta_max must be {low} to {high}",
            )

    def beta(self, t: Time) -> Time:
        """The rate at which noise is added, per unit of t."""
        return self.beta_min + (self.beta_max - self.beta_min) * t

    def integral(self, t: Time) -> Time:
        """The integral of beta from 0 to t."""
        return (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * t) * t

    def alpha(self, t: Time) -> Time:
        """exp(-1/2 integral): the remaining share of x0 - x_hat, from 1 down to about 0 (equation 14)."""
        half = -0.5 * self.integral(t)
        return torch.exp(half) if isinstance(half, Tensor) else math.exp(half)

    def sigma(self, t: Time) -> Time:
        """sqrt(1 - alpha^2), the sd of the noise (equation 14), without cancellation at small t."""
        # 1 - alpha^2 = -expm1(-integral), exact where alpha is so close to 1 that the difference is not.
        whole = -self.integral(t)
        return torch.expm1(whole).neg().sqrt() if isinstance(whole, Tensor) else math.sqrt(-math.expm1(whole))

    def log_snr(self, t: Time) -> Time:
        """log(alpha / sigma), t in (0, 1]: decreases with t, to about -5 at t = 1."""
        whole = self.integral(t)
        if isinstance(whole, Tensor):
            return -0.5 * torch.expm1(whole).log()
        return -0.5 * math.log(math.expm1(whole))

    def time_of(self, log_snr: Time) -> Time:
        """The inverse of `log_snr`."""
        if isinstance(log_snr, Tensor):
            whole = torch.nn.functional.softplus(-2 * log_snr)
        else:  # log(1 + exp(-2 log_snr)), whose exp may not overflow
            whole = max(-2 * log_snr, 0.0) + math.log1p(math.exp(-abs(2 * log_snr)))
        # The root of the quadratic `integral(t) = whole`, in the form that does not cancel at small t and
        # also holds for beta_min = beta_max.
        root = (self.beta_min**2 + 2 * (self.beta_max - self.beta_min) * whole) ** 0.5
        t: Time = 2 * whole / (self.beta_min + root)
        return t

    def drift(self, x: Tensor, t: Time, x_hat: Tensor | float = 0.0) -> Tensor:
        """-1/2 beta(t) (x - x_hat), shaped like x (B, ...)."""
        return -0.5 * _beside(self.beta(t), x) * (x - x_hat)

    def diffusion(self, t: Time) -> Time:
        """sqrt(beta(t))."""
        g: Time = self.beta(t) ** 0.5
        return g

    def marginal(self, x0: Tensor, t: Time, x_hat: Tensor | float = 0.0) -> tuple[Tensor, Time]:
        """Equation 14: x(t) given x(0) = x0 (B, ...) is normal with this mean, like x0, and this sd.

        The sd is a float for a float t, else (B, 1, ...).
        """
        return x_hat + (x0 - x_hat) * _beside(self.alpha(t), x0), _beside(self.sigma(t), x0)


def _beside(value: Time, x: Tensor) -> Time:
    """One scalar per sample, (B,), as (B, 1, ...) to broadcast with x (B, ...); a float is unchanged."""
    return value.view(-1, *[1] * (x.dim() - 1)) if isinstance(value, Tensor) else value
