"""Figure 1: the latent variables, style z and position theta, and their diagonal Gaussian posteriors."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """A diagonal normal distribution; `mean` and `logvar` are (B, D) float."""

    mean: Tensor
    logvar: Tensor

    @property
    def sd(self) -> Tensor:
        """The standard deviations (B, D)."""
        return torch.exp(0.5 * self.logvar)

    def rsample(self, eps: Tensor) -> Tensor:
        """mean + sigma * eps (B, D), differentiable; `eps` (B, D) is the caller's standard normal noise."""
        return self.mean + self.sd * eps

    def kl(self) -> Tensor:
        """KL(self || N(0, I)) per sample, (B,), in nats (section 3.4)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).sum(1)


@dataclass(frozen=True)
class Latents:
    """A latent code per sample: style `z` (B, Z), position `theta` (B, P), `pose` (B, 2, 3) or None.

    `pose` maps points of the image to the frame of theta, both in [-1, 1] (see `editing.LatentCode`).
    """

    z: Tensor
    theta: Tensor
    pose: Tensor | None = None
