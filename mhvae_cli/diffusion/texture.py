"""Beyond the paper: how strong an image's detail is, and where.

The VAE's image x_hat is as smooth for coarse skin as for fine, so that a network which sees nothing else can
only draw a mixture of all. The style code is therefore extended by a code of the detail's local energy, as
two coarse layers like those of `vae.tones`: the object's, which moves along with it, and the ground's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import TEXTURE
from .spectrum import components

SIDE = 10
"""Side of the layers."""
COARSE, CELLS = 40, 20
"""Cells per side at which coarse detail is told from fine, and in which energies are measured."""
LEAST, MOST = -11.5, 0.0
"""Bounds of the logarithm of an energy, of images in [-1, 1]: half a step of 8 bits, and 1."""
USUAL = (-5.0, 2.0)
"""The logarithm of an energy as the network sees it: less the first, divided by the second."""


class Texture(nn.Module):
    """Principal components of the layers of log energies (2, M, SIDE, SIDE): their `mean`, and `basis`
    (TEXTURE, 2 M SIDE^2) in standard deviations."""

    mean: Tensor
    basis: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shape = (2, count(channels), SIDE, SIDE)
        size = torch.Size(self.shape).numel()
        self.register_buffer("mean", torch.full((size,), USUAL[0]))
        self.register_buffer("basis", torch.zeros(TEXTURE, size))

    def fit(self, layers: Tensor) -> None:
        """Keep the largest principal components of layers (N, 2, M, SIDE, SIDE)."""
        flat = layers.double().flatten(1)
        mean = flat.mean(0)
        _, values, vectors = torch.linalg.svd(flat - mean, full_matrices=False)
        found = min(TEXTURE, int((values > 1e-6 * values[0]).sum()))
        self.mean.copy_(mean)
        self.basis.zero_()
        self.basis[:found] = (values[:found, None] / len(flat) ** 0.5 * vectors[:found]).float()

    def encode(self, layers: Tensor) -> Tensor:
        """The texture code (B, TEXTURE) of layers (B, 2, M, SIDE, SIDE), of zero mean and unit variance."""
        powers = self.basis.square().sum(1)
        forward = self.basis / powers.clamp_min(1e-12)[:, None]
        code: Tensor = (layers.flatten(1).to(self.mean) - self.mean) @ forward.T
        return code

    def layers(self, code: Tensor) -> Tensor:
        """The layers (B, 2, M, SIDE, SIDE) of texture codes (B, TEXTURE)."""
        flat: Tensor = self.mean + code.to(self.basis) @ self.basis
        return flat.clamp(LEAST, MOST).view(-1, *self.shape)


def count(channels: int) -> int:
    """The number M of energies: of fine and of coarse detail of the lightness, and of that of the colours."""
    return 2 if channels == 1 else 3


def energies(residual: Tensor) -> Tensor:
    """The logarithms of the local energies (B, M, CELLS, CELLS) of x - x_hat (B, C, S, S)."""
    low = F.adaptive_avg_pool2d(residual.float(), COARSE)
    fine = residual - F.interpolate(low, size=residual.shape[-2:], mode="bilinear", align_corners=False)
    powers = [F.adaptive_avg_pool2d(components(part).square(), CELLS) for part in (fine, low)]
    found = [power[:, :1] for power in powers]
    if residual.shape[1] > 1:
        found.append((powers[0] + powers[1])[:, 1:].sum(1, keepdim=True))
    return torch.cat(found, dim=1).log().clamp(LEAST, MOST)


def amplitude(maps: Tensor) -> Tensor:
    """The standard deviation of detail of these log energies (B, M, H, W), in each component of colours:
    (B, 3, H, W), or (B, 1, H, W) for greyscale images."""
    powers = maps.exp()
    lightness = powers[:, :2].sum(1, keepdim=True).sqrt()
    colours = (powers[:, 2:] / 2).sqrt()
    return torch.cat([lightness, colours, colours], dim=1)
