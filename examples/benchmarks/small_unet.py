"""A small U-Net that segments: what a lab would write itself. A part of made_pairs.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mhvae_cli.training.datasets import Batch

CHANNELS = (16, 32, 64, 96)


class Block(nn.Sequential):
    """Two 3 x 3 convolutions with batch norms: (B, inputs, h, w) -> (B, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        layers: list[nn.Module] = []
        for channels in (inputs, outputs):
            convolution = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class SmallUNet(nn.Module):
    """Images (B, C, S, S) in [-1, 1], S a multiple of 16, to logits (B, 1, S, S).

    The image is folded into four times as many channels at half its size, and the logits out of four.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(map(Block, (4 * channels, *CHANNELS), CHANNELS))
        beside = zip(CHANNELS[:0:-1], CHANNELS[-2::-1], strict=True)
        self.up = nn.ModuleList(Block(below + level, level) for below, level in beside)
        self.last = nn.Conv2d(CHANNELS[0], 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels: list[Tensor] = []
        x = F.pixel_unshuffle(x, 2)
        for block in self.down:
            x = block(F.max_pool2d(x, 2) if levels else x)
            levels.append(x)
        for block, level in zip(self.up, levels[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2), level], dim=1))
        logits: Tensor = F.pixel_shuffle(self.last(x), 2)
        return logits


class UNetObjective(nn.Module):
    """Cross-entropy and 1 - Dice of a batch."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = SmallUNet(channels)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        logits = self.model(batch.image.contiguous(memory_format=torch.channels_last))[:, 0].float()
        found, true = logits.sigmoid().flatten(1), batch.mask.flatten(1)
        overlap = (2 * (found * true).sum(1) + 1) / (found.sum(1) + true.sum(1) + 1)
        loss = F.binary_cross_entropy_with_logits(logits, batch.mask) + (1 - overlap).mean()
        return {"loss": loss}
