"""Sections 2.2 and 4.2, equation 8: the network that learns the score, and its loss."""

import torch
from torch import Tensor, nn

from ..config import DiffusionConfig
from .sde import SDE
from .unet import UNet


class ScoreNetwork(nn.Module):
    """The score of p_t(u | x_hat), u = (x - x_hat) / scale, of the process `config.process`.

    The paper's process starts at the residual x0 - x_hat, DiffuseVAE's form 2 at the image x0 itself; both
    are VP processes of u (`SDE`). `scale` is the sd of the starting point, measured on training images (1 if
    `config.normalise` is off). The paper writes the score as S(x, t); the network's input is `config.sees`.
    """

    scale: Tensor

    def __init__(self, config: DiffusionConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.sde = SDE(config.beta_min, config.beta_max)
        self.register_buffer("scale", torch.ones(()))
        both = config.sees == "residual+recon"
        self.unet = UNet(channels * (2 if both else 1), channels, config.unet)

    def target(self, image: Tensor, x_hat: Tensor) -> Tensor:
        """u(0) of images and their reconstructions, (B, C, H, W) in [-1, 1]."""
        start = image if self.config.process == "diffusevae" else image - x_hat
        return start / self.scale

    def image(self, u: Tensor, x_hat: Tensor) -> Tensor:
        """The inverse of `target`."""
        start = u * self.scale
        return start if self.config.process == "diffusevae" else x_hat + start

    def forward(self, u: Tensor, t: Tensor, x_hat: Tensor) -> Tensor:
        """v = alpha eps - sigma u(0), from u(t) (B, C, H, W), t (B,) and x_hat: of unit variance at every t.

        With `config.sees` = "x" it is eps: the paper's S(x, t), which has no x_hat to compute v from.
        """
        if self.config.sees == "x":
            seen = u * self.scale + x_hat
        elif self.config.sees == "residual":
            seen = u
        else:
            seen = torch.cat([u, x_hat], dim=1)
        out: Tensor = self.unet(seen.to(self.unet.enter.weight.dtype), self.sde.log_snr(t)).to(u.dtype)
        return out

    def score(self, u: Tensor, t: float, x_hat: Tensor) -> Tensor:
        """grad log p_t(u | x_hat), (B, C, H, W), as the solvers need it."""
        times = torch.full((len(u),), t, device=u.device)
        found = self(u, times, x_hat)
        eps = found if self.config.sees == "x" else self.sde.sigma(t) * u + self.sde.alpha(t) * found
        score: Tensor = -eps / self.sde.sigma(t)
        return score

    def loss(self, image: Tensor, x_hat: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Equation 8 per sample (B,), with lambda such that errors of v (or eps) count the same at any t."""
        start = self.target(image, x_hat)
        u, _ = self.sde.marginal(start, t)
        alpha, sigma = (s.view(-1, 1, 1, 1) for s in (self.sde.alpha(t), self.sde.sigma(t)))
        sought = eps if self.config.sees == "x" else alpha * eps - sigma * start
        loss: Tensor = (self(u + sigma * eps, t, x_hat).float() - sought).square().flatten(1).mean(1)
        return loss
