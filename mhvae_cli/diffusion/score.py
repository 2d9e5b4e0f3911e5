"""Sections 2.2 and 4.2, equation 8: the network that learns the score, and its loss."""

import math
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn

from ..config import DiffusionConfig
from ..errors import UsageError
from .sde import SDE
from .spectrum import Spectrum, components
from .texture import USUAL, Texture, amplitude
from .unet import UNet

CLIP = 0.25
"""Level, in reference units, at and beyond which the network sees a mask's level function as 1 or -1."""

PERIODS = (4.0, 0.5)
"""The periods, in the image's frame of side 2, of the waves that tell the network where a pixel lies."""


@dataclass(frozen=True)
class Known:
    """What is known of images to be drawn.

    `image` (B, C, H, W) in [-1, 1]; `weight` (B, 1, H, W) from 0, unknown, to 1; `until` (B, 1, H, W): the
    time in [0, 1] below which the pixel may change; `sharp` (B, 1, H, W): the share of `weight` that holds in
    all detail, not only in structures coarser than the noise at that time.
    """

    image: Tensor
    weight: Tensor
    until: Tensor
    sharp: Tensor


class Given(TypedDict, total=False):
    """What a network may see beside x_hat: the level function (B, 1, H, W) of the requested masks, positive
    inside; the log energies (B, M, H, W) of the detail (`Texture`); and what is known of the images."""

    level: Tensor | None
    texture: Tensor | None
    known: Known | None


class ScoreNetwork(nn.Module):
    """The score of p_t(u | x_hat), u = (x - x_hat) / spread, of the process `config.process`.

    The paper's process starts at the residual x0 - x_hat, DiffuseVAE's form 2 at the image x0 itself; both
    are VP processes of u (`SDE`). `scale` is the sd of the starting point, measured on training images (1 if
    `config.normalise` is off). The spread is `scale`; for a network that sees the texture, times the detail's
    local amplitude, in each of the components of `spectrum.components`: `texture` (B, M, H, W) are its log
    energies. The paper writes the score as S(x, t); the network's input is `config.sees`.
    """

    scale: Tensor

    def __init__(self, config: DiffusionConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.sde = SDE(config.beta_min, config.beta_max)
        self.register_buffer("scale", torch.ones(()))
        self.sees_mask = "mask" in config.sees
        self.sees_known = "known" in config.sees
        self.sees_place = "place" in config.sees
        self.texture = Texture(channels) if "texture" in config.sees else None
        inputs = channels * (2 if "recon" in config.sees else 1)
        inputs += self.sees_mask + (channels + 1) * self.sees_known + 4 * len(PERIODS) * self.sees_place
        inputs += 0 if self.texture is None else self.texture.shape[1]
        self.unet = UNet(inputs, channels, config.unet)
        self.spectrum = Spectrum(channels) if config.spectral and config.sees != "x" else None

    def target(self, image: Tensor, x_hat: Tensor, texture: Tensor | None = None) -> Tensor:
        """u(0) of images and their reconstructions, (B, C, H, W) in [-1, 1]."""
        start = image if self.config.process == "diffusevae" else image - x_hat
        if self.texture is None:
            return start / self.scale
        return components(components(start) / self._spread(texture), inverse=True)

    def image(self, u: Tensor, x_hat: Tensor, texture: Tensor | None = None) -> Tensor:
        """The inverse of `target`."""
        if self.texture is None:
            start = u * self.scale
        else:
            start = components(components(u) * self._spread(texture), inverse=True)
        return start if self.config.process == "diffusevae" else x_hat + start

    def _spread(self, texture: Tensor | None) -> Tensor:
        """What each component (B, C, H, W) of u is counted in."""
        if texture is None:
            raise UsageError("this cDDPM needs the texture of each image")
        return self.scale * amplitude(texture)

    def hints(
        self,
        x_hat: Tensor,
        level: Tensor | None = None,
        texture: Tensor | None = None,
        known: Known | None = None,
    ) -> Tensor | None:
        """The further channels (B, ..., H, W) that the network sees, if any, of what is `Given`.

        UsageError without a level or a texture that the network sees.
        """
        parts: list[Tensor] = []
        if self.sees_mask:
            if level is None:
                raise UsageError("this cDDPM needs the mask of each image")
            parts.append((level / CLIP).clamp(-1, 1))
        if self.sees_known:
            share = torch.zeros_like(x_hat[:, :1]) if known is None else known.weight * known.sharp
            image = x_hat if known is None else known.image
            parts += [self.target(image, x_hat, texture) * share, share]
        if self.sees_place:
            parts.append(place(x_hat))
        if self.texture is not None and texture is not None:
            parts.append((texture - USUAL[0]) / USUAL[1])
        return torch.cat(parts, dim=1) if parts else None

    def forward(self, u: Tensor, t: Tensor, x_hat: Tensor, hints: Tensor | None = None) -> Tensor:
        """v = alpha eps - sigma u(0), from u(t) (B, C, H, W), t (B,) and x_hat: of unit variance at every t.

        With `config.sees` = "x" it is eps: the paper's S(x, t), which has no x_hat to compute v from.
        """
        if self.config.sees == "x":
            seen = u * self.scale + x_hat
        elif self.config.sees == "x+recon":
            seen = torch.cat([u * self.scale + x_hat, x_hat], dim=1)
        elif self.config.sees == "residual":
            seen = u
        else:
            seen = torch.cat([u, x_hat] if hints is None else [u, x_hat, hints], dim=1)
        out: Tensor = self.unet(seen.to(self.unet.enter.weight.dtype), self.sde.log_snr(t)).to(u.dtype)
        if self.spectrum is None:
            return out
        return self.spectrum.velocity(u, self.sde.alpha(t), self.sde.sigma(t), out).to(u.dtype)

    def score(self, u: Tensor, t: float, x_hat: Tensor, hints: Tensor | None = None) -> Tensor:
        """grad log p_t(u | x_hat), (B, C, H, W), as the solvers need it."""
        times = torch.full((len(u),), t, device=u.device)
        found = self(u, times, x_hat, hints)
        eps = found if self.config.sees == "x" else self.sde.sigma(t) * u + self.sde.alpha(t) * found
        score: Tensor = -eps / self.sde.sigma(t)
        return score

    def loss(
        self,
        image: Tensor,
        x_hat: Tensor,
        t: Tensor,
        eps: Tensor,
        hints: Tensor | None = None,
        texture: Tensor | None = None,
    ) -> Tensor:
        """Equation 8 per sample (B,), with lambda such that errors of v (or eps) count the same at any t."""
        start = self.target(image, x_hat, texture)
        u, _ = self.sde.marginal(start, t)
        alpha, sigma = (s.view(-1, 1, 1, 1) for s in (self.sde.alpha(t), self.sde.sigma(t)))
        sought = eps if self.config.sees == "x" else alpha * eps - sigma * start
        loss: Tensor = (self(u + sigma * eps, t, x_hat, hints).float() - sought).square().flatten(1).mean(1)
        return loss


def place(image: Tensor) -> Tensor:
    """Where the pixels of images (B, C, H, W) lie: sines and cosines (B, 4 len(PERIODS), H, W) of their
    coordinates in [-1, 1], x before y.

    A scan's frame, its sector's edges and bars, lies at fixed places, which a convolution alone cannot know.
    """
    b, _, h, w = image.shape
    xs, ys = ((2 * torch.arange(n, device=image.device) + 1) / n - 1 for n in (w, h))
    angles = [2 * math.pi / period * ticks for period in PERIODS for ticks in (xs[None, :], ys[:, None])]
    waves = [wave.expand(h, w) for angle in angles for wave in (angle.sin(), angle.cos())]
    return torch.stack(waves).to(image.dtype).expand(b, -1, h, w)
