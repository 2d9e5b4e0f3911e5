"""Section 4.2: the temporal U-Net. Fully convolutional: trained on crops, applied to whole images."""

import math
from collections.abc import Iterable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import UNetConfig
from ..devices import layout


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel: unlike a group norm, it gives the same result in a crop."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias)
        return y.permute(0, 3, 1, 2)


class Block(nn.Module):
    """A residual block, scaled and shifted by the noise level's embedding."""

    def __init__(self, inputs: int, outputs: int, embedding: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(inputs)
        self.level = nn.Linear(embedding, 2 * inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        for layer in (self.level, self.conv2):
            assert layer.bias is not None
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.level(embedding)[:, :, None, None].chunk(2, dim=1)
        y = F.silu(torch.addcmul(shift, self.norm(x), 1 + scale))
        out: Tensor = self.skip(x) + self.conv2(F.silu(self.conv1(y)))
        return out


class UNet(nn.Module):
    """(B, inputs, H, W) and the noise level's log-SNR (B,) -> (B, outputs, H, W), of any H and W."""

    def __init__(self, inputs: int, outputs: int, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * (i + 2) // 2 for i in range(config.levels)]
        size, embedding = config.patch**2, 4 * config.channels
        self.embed = nn.Sequential(
            nn.Linear(config.channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.enter = nn.Conv2d(inputs * size, widths[0], 3, padding=1)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            before = widths[max(0, i - 1)]
            first: nn.Module = nn.Conv2d(before, width, 3, 2, 1) if i else nn.Identity()
            blocks = [Block(width, width, embedding) for _ in range(config.blocks)]
            self.down.append(nn.ModuleList([first, *blocks]))
        self.middle = Block(widths[-1], widths[-1], embedding)
        for i, width in reversed(list(enumerate(widths))):
            above = widths[min(i + 1, config.levels - 1)]
            first = nn.ConvTranspose2d(above, width, 2, 2) if i + 1 < config.levels else nn.Identity()
            blocks = [Block(width if j else 2 * width, width, embedding) for j in range(config.blocks)]
            self.up.append(nn.ModuleList([first, *blocks]))
        self.leave = nn.Sequential(
            ChannelNorm(widths[0]), nn.SiLU(), nn.Conv2d(widths[0], outputs * size, 3, padding=1)
        )
        last = self.leave[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        h, w = x.shape[2:]
        step = self.config.patch * 2 ** (self.config.levels - 1)
        x = F.pad(x, (0, -w % step, 0, -h % step), mode="replicate")
        embedding = self.embed(_waves(log_snr, self.config.channels).to(self.enter.weight.dtype))
        y = self.enter(F.pixel_unshuffle(x, self.config.patch).contiguous(memory_format=layout(x.device)))
        kept = []
        for first, *blocks in cast(Iterable[nn.ModuleList], self.down):
            y = first(y)
            for block in blocks:
                y = block(y, embedding)
            kept.append(y)
        y = self.middle(y, embedding)
        for first, *blocks in cast(Iterable[nn.ModuleList], self.up):
            y = torch.cat([first(y), kept.pop()], dim=1)
            for block in blocks:
                y = block(y, embedding)
        return F.pixel_shuffle(self.leave(y), self.config.patch)[:, :, :h, :w]


def _waves(level: Tensor, count: int) -> Tensor:
    """Sines and cosines (B, count) of a level (B,) of about -6 to 6, with periods from 40 down to 0.4."""
    half = count // 2
    rates = torch.exp(torch.linspace(math.log(2 * math.pi / 40), math.log(2 * math.pi / 0.4), half))
    angles = level.float()[:, None] * rates.to(level.device)
    return torch.cat([angles.sin(), angles.cos(), torch.zeros_like(angles[:, : count % 2])], dim=1)
