"""How strong each spatial frequency of an image is, and what can be said of the image from that alone.

Of images that are stationary Gaussian fields, the cosine transform (DCT-II, orthonormal, over channels, rows
and columns) has independent coefficients, so that the score is known exactly. The score network starts from
it and learns the rest (`Spectrum.velocity`). Over three channels, the transform separates an image's
lightness from its colours, whose detail is far weaker.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

KNOTS = 18
"""Radial frequencies at which the power is stored, in half octaves up to sqrt(2) times Nyquist's."""
LEAST = 1e-5
"""The least power, of a mean of 1."""


class Spectrum(nn.Module):
    """The power of the coefficients of images (C, H, W) of unit variance, as `log_power` (C, KNOTS)."""

    log_power: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("log_power", torch.zeros(channels, KNOTS))

    def store(self, power: Tensor) -> None:
        """Keep the power (C, KNOTS) of the images, as `band_power` gives it."""
        self.log_power.copy_(power.clamp_min(LEAST).log())

    def power(self, height: int, width: int) -> Tensor:
        """The power float32 (C, height, width) of the coefficients of images of this size."""
        low, share = (x.to(self.log_power.device) for x in _knots(height, width))
        log_power = self.log_power.float()
        return torch.lerp(log_power[:, low], log_power[:, low + 1], share).exp()

    def velocity(self, u: Tensor, alpha: Tensor, sigma: Tensor, learnt: Tensor) -> Tensor:
        """v = alpha eps - sigma u(0), from u = alpha u(0) + sigma eps and the network's answer `learnt`.

        All (B, C, H, W); `alpha` and `sigma` (B,). Without an answer, v is the mean of v given u for a
        Gaussian field of this spectrum; the answer is counted in the sd of v given u, of each coefficient.
        """
        with torch.autocast(u.device.type, enabled=False):
            exact = torch.promote_types(u.dtype, torch.float32)
            alpha, sigma = (x.to(exact).view(-1, 1, 1, 1) for x in (alpha, sigma))
            power = self.power(u.shape[-2], u.shape[-1])
            total = alpha**2 * power + sigma**2
            known = alpha * sigma * (1 - power) / total * cosine(u.to(exact))
            return cosine(known + (power / total).sqrt() * cosine(learnt.to(exact)), inverse=True)


def band_power(images: Tensor) -> Tensor:
    """The mean power float32 (C, KNOTS) of images (B, C, H, W) near each stored frequency."""
    power = cosine(images).square().mean(0).flatten(1)
    low, share = (x.to(images.device).flatten() for x in _knots(images.shape[-2], images.shape[-1]))
    total, weight = power.new_zeros(len(power), KNOTS), power.new_zeros(KNOTS)
    for knot, part in ((low, 1 - share), (low + 1, share)):
        total.index_add_(1, knot, power * part)
        weight.index_add_(0, knot, part)
    # Small images have no coefficient near some of the knots, which take the power of the next lower one.
    found = torch.cummax(torch.where(weight > 0, torch.arange(KNOTS, device=weight.device), 0), 0).values
    return (total / weight.clamp_min(1e-9))[:, found]


def cosine(images: Tensor, *, inverse: bool = False) -> Tensor:
    """The orthonormal DCT-II of images (B, C, H, W) over all but the first axis, or its inverse."""
    h, w = (_matrix(n, images.dtype).to(images.device) for n in images.shape[2:])
    if inverse:
        h, w = h.T, w.T
    return components(h @ images @ w.T, inverse=inverse)


def components(images: Tensor, *, inverse: bool = False) -> Tensor:
    """The orthonormal DCT-II of images (B, C, H, W) over their channels, lightness first, or its inverse."""
    if images.shape[1] == 1:
        return images
    c = _matrix(images.shape[1], images.dtype).to(images.device)
    return torch.einsum("cd,bchw->bdhw" if inverse else "dc,bchw->bdhw", c, images)


@lru_cache(maxsize=16)
@torch.inference_mode(False)  # a tensor that is kept may serve a training later
def _matrix(length: int, dtype: torch.dtype) -> Tensor:
    """The orthonormal DCT-II of `length` values as a matrix."""
    n, k = torch.arange(length, dtype=torch.float64), torch.arange(length, dtype=torch.float64)[:, None]
    rows = math.sqrt(2 / length) * torch.cos(math.pi * (n + 0.5) * k / length)
    rows[0] /= math.sqrt(2)
    return rows.to(dtype)


@lru_cache(maxsize=4)
@torch.inference_mode(False)
def _knots(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The knot below the radial frequency of each coefficient of an image, int64 (height, width), and the
    share of the knot above it."""
    ys, xs = (torch.arange(n, dtype=torch.float64) / n for n in (height, width))
    radius = torch.hypot(ys[:, None], xs[None, :])
    position = (2 * torch.log2(radius / 2**0.5) + KNOTS - 1).clamp(0, KNOTS - 1).float()
    low = position.floor().long().clamp(max=KNOTS - 2)
    return low, position - low
