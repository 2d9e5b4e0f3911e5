"""TransUNet (Chen et al. 2021, arXiv 2102.04306), R50-ViT-B_16: a hybrid encoder and a cascaded upsampler.

A ResNet50 of three stages (3, 4 and 9 blocks), with group normalisation and standardised weights, turns the
image into a map of stride 16, each cell of which is one token of a ViT-B; the upsampler doubles the map four
times and joins the ResNet's maps of strides 8, 4 and 2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIM, LAYERS, HEADS, DROPOUT = 768, 12, 12, 0.1
STAGES = ((256, 3), (512, 4), (1024, 9))
"""Channels and number of blocks."""
DECODER = ((512, 256), (256, 128), (64, 64), (0, 16))
"""Channels that the encoder's map joins, and those that come out, each time the size is doubled."""


class TransUNet(nn.Module):
    """Images (B, C, S, S) -> logits (B, 1, S, S); S is a multiple of 16."""

    def __init__(self, channels: int, size: int, *, outputs: int = 1) -> None:
        super().__init__()
        self.root = nn.Sequential(_conv(channels, 64, 7, 2), _norm(64), nn.ReLU(inplace=True))
        stages, inputs = [], 64
        for width, depth in STAGES:
            first = _Block(inputs, width, stride=1 if inputs == 64 else 2)
            stages.append(nn.Sequential(first, *(_Block(width, width) for _ in range(depth - 1))))
            inputs = width
        self.stages = nn.ModuleList(stages)
        self.embed = nn.Conv2d(inputs, DIM, 1)
        self.position = nn.Parameter(torch.zeros(1, (size // 16) ** 2, DIM))
        self.drop = nn.Dropout(DROPOUT)
        layer = nn.TransformerEncoderLayer(
            DIM, HEADS, 4 * DIM, DROPOUT, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(DIM, eps=1e-6)
        self.transformer = nn.TransformerEncoder(layer, LAYERS, norm, enable_nested_tensor=False)
        self.widen = _conv_relu(DIM, 512)
        ups, inputs = [], 512
        for skip, width in DECODER:
            ups.append(nn.Sequential(_conv_relu(inputs + skip, width), _conv_relu(width, width)))
            inputs = width
        self.ups = nn.ModuleList(ups)
        self.head = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.root(image)
        maps = [x]
        x = F.max_pool2d(x, 3, 2, 1)
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        x = self.embed(maps.pop())
        tokens = self.transformer(self.drop(x.flatten(2).transpose(1, 2) + self.position))
        x = self.widen(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))
        for up in self.ups:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = up(torch.cat([x, maps.pop()], dim=1) if maps else x)
        return self.head(x)


class _StandardisedConv(nn.Conv2d):
    """A convolution each of whose kernels has mean 0 and variance 1."""

    def forward(self, x: Tensor) -> Tensor:
        kernels = self.weight.flatten(1)
        kernels = F.layer_norm(kernels, kernels.shape[1:], eps=1e-5).view_as(self.weight)
        return F.conv2d(x, kernels.to(x.dtype), None, self.stride, self.padding)


class _Block(nn.Module):
    """ResNet's bottleneck with group normalisation."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        planes = outputs // 4
        self.branch = nn.Sequential(
            _conv(inputs, planes, 1),
            _norm(planes),
            nn.ReLU(inplace=True),
            _conv(planes, planes, 3, stride),
            _norm(planes),
            nn.ReLU(inplace=True),
            _conv(planes, outputs, 1),
            _norm(outputs),
        )
        self.short = (
            nn.Sequential(_conv(inputs, outputs, 1, stride), nn.GroupNorm(outputs, outputs))
            if inputs != outputs
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.short(x))


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return _StandardisedConv(inputs, outputs, kernel, stride, kernel // 2, bias=False)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


def _conv_relu(inputs: int, outputs: int) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
