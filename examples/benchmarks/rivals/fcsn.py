"""FCSN (Jeon et al. 2022, arXiv 2207.14477): a dilated ResNet50 regresses the outline's Fourier coefficients.

The outline is a closed curve x + i y in [-0.5, 0.5]; of its 71 points' Fourier transform the 21 coefficients
of the lowest frequencies are learnt. Each is the mean position of a heat map (softmax), times a scale: 1.2 x
the largest value in training. Not said in the paper, and chosen here: a curve begins where it is farthest to
the right of its centre, and runs clockwise on the screen.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from mhvae_cli.config import AugmentConfig
from mhvae_cli.polygons import signed_area
from mhvae_cli.training.datasets import Batch, MaskedImages
from mhvae_cli.training.validation import mask_level
from mhvae_cli.vae.contour import contours
from mhvae_cli.vae.encoder import Block, ResNet

POINTS, LEARNT = 71, 21
FREQUENCIES = np.r_[0 : LEARNT // 2 + 1, -(LEARNT // 2) : 0]
VARIANCE = 0.005
"""Of the Gaussian that each heat map should be like, in units of [-1, 1]."""
DRAWN = 360
"""Points of the curve that is drawn."""
SCALE_EPOCH, SCALE_IMAGES = 1_000_000, 256
"""The number that keys the augmentation of the images whose largest coefficients set the scale."""


class FCSN(nn.Module):
    """Images (B, C, S, S) -> coefficients (B, 21, 2) and heat maps (B, 21, h, h)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convnet = ResNet("resnet50", channels + 2, 1.0)
        for stage, dilation in ((self.convnet.layer3, 2), (self.convnet.layer4, 4)):
            for number, block in enumerate(stage):
                assert isinstance(block, Block)
                _dilate(block, dilation if number else 1)
        self.heat = nn.ConvTranspose2d(self.convnet.out_channels, LEARNT, 12, stride=6)
        self.register_buffer("scale", torch.ones(LEARNT))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        axis = torch.linspace(-1, 1, image.shape[-1], device=image.device, dtype=image.dtype)
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        where = torch.stack([x, y]).expand(len(image), -1, -1, -1)
        heat = self.heat(self.convnet(torch.cat([image, where], dim=1))[0]).float()
        heat = heat.flatten(2).softmax(2).view_as(heat)
        axis = torch.linspace(-1, 1, heat.shape[-1], device=heat.device)
        centre = torch.stack([heat.sum(2) @ axis, heat.sum(3) @ axis], dim=2)
        return centre * self.scale[:, None], heat

    def loss(self, batch: Batch) -> Tensor:
        """Weighted absolute and squared errors, and the Jensen-Shannon divergence of heat maps to Gaussians.

        A coefficient weighs more, up to 10, the less it varies in the batch.
        """
        device = self.scale.device
        found, heat = self(batch.image.to(device))
        true = torch.stack([coefficients(mask) for mask in batch.mask.numpy()]).to(device)
        spread = true.amax((0, 2)) - true.amin((0, 2))
        weight = (1 + 1 / (spread + 1e-5)).clamp(max=10)[:, None]
        error = found - true
        regression = ((error.abs() + error.square()) * weight).mean()
        return regression + _divergence(
            heat, _gaussians((found / self.scale[:, None]).detach(), heat.shape[-1])
        )

    @torch.no_grad()
    def segment(self, image: Tensor, size: tuple[int, int]) -> np.ndarray:
        """The masks bool (B, H, W)."""
        found = self(image)[0].cpu().numpy()
        return np.stack([fill(curve(each), size) for each in found])

    def prepare(self, train: MaskedImages, augment: AugmentConfig, seed: int) -> None:
        """Set the scale from training images, augmented."""
        top = torch.zeros(LEARNT)
        for start in range(0, min(len(train), SCALE_IMAGES), 16):
            indices = list(range(start, min(start + 16, len(train))))
            batch = train.batch(indices, augment, seed=seed, epoch=SCALE_EPOCH, dims=(0, 0))
            for mask in batch.mask.numpy():
                top = torch.maximum(top, coefficients(mask).abs().amax(1))
        self.scale.copy_(1.2 * top.clamp_min(1e-4))


def _dilate(block: Block, dilation: int) -> None:
    """Take the stride out of a block, and dilate its kernel of 3 x 3."""
    block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (dilation,) * 2, (dilation,) * 2
    if block.downsample is not None:
        block.downsample[0].stride = (1, 1)


def outline(mask: np.ndarray) -> np.ndarray:
    """POINTS points (POINTS, 2) xy in [-0.5, 0.5], evenly along the longest outline of a soft mask (S, S)."""
    rings = [ring for ring in contours(mask_level(mask), cells=len(mask)) if signed_area(ring) > 0]
    if not rings:
        return np.zeros((POINTS, 2))
    ring = max(rings, key=signed_area) / 2
    right = np.where(np.abs(ring[:, 1] - ring[:, 1].mean()) < 0.1 * np.ptp(ring[:, 1]), ring[:, 0], -1)
    ring = np.roll(ring, -int(right.argmax()), axis=0)
    ring = np.concatenate([ring, ring[:1]])
    along = np.concatenate([[0.0], np.hypot(*np.diff(ring, axis=0).T).cumsum()])
    at = np.linspace(0, along[-1], POINTS, endpoint=False)
    return np.stack([np.interp(at, along, axis) for axis in ring.T], axis=1)


def coefficients(mask: np.ndarray) -> Tensor:
    """The learnt coefficients (21, 2), real and imaginary, of a soft mask's outline."""
    points = outline(mask)
    found = np.fft.fft(points @ [1, 1j], norm="ortho")[FREQUENCIES]
    return torch.from_numpy(np.stack([found.real, found.imag], axis=1)).float()


def curve(found: np.ndarray) -> np.ndarray:
    """The curve (DRAWN, 2) xy in [-1, 1] of coefficients (21, 2)."""
    turns = np.exp(2j * math.pi * np.outer(np.arange(DRAWN) / DRAWN, FREQUENCIES))
    points = 2 * (turns @ (found @ [1, 1j])) / math.sqrt(POINTS)
    return np.stack([points.real, points.imag], axis=1)


def fill(ring: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask bool (H, W) of pixels whose centre is inside a closed curve (n, 2) by the even-odd rule."""
    height, width = size
    a = (ring + 1) / 2 * (width, height)
    b = np.roll(a, -1, axis=0)
    rows = np.arange(height)[:, None] + 0.5
    row, edge = np.nonzero((a[:, 1] > rows) != (b[:, 1] > rows))
    share = (row + 0.5 - a[edge, 1]) / (b[edge, 1] - a[edge, 1])
    x = a[edge, 0] + share * (b[edge, 0] - a[edge, 0])
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    crossings = np.zeros((height, width + 1), int)
    np.add.at(crossings, (row, column), 1)
    return crossings.cumsum(axis=1)[:, :width] % 2 == 1


def _gaussians(centre: Tensor, side: int) -> Tensor:
    axis = torch.linspace(-1, 1, side, device=centre.device)
    x, y = (torch.exp(-(axis - centre[..., i : i + 1]).square() / (2 * VARIANCE)) for i in (0, 1))
    rings = y[..., :, None] * x[..., None, :]
    return rings / rings.sum((2, 3), keepdim=True).clamp_min(1e-8)


def _divergence(heat: Tensor, target: Tensor) -> Tensor:
    middle = ((heat + target) / 2 + 1e-8).log()
    each = (p * ((p + 1e-8).log() - middle) for p in (heat, target))
    return sum(each).sum((2, 3)).mean() / 2
