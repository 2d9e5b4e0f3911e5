"""The rivals of table 1: libraries' networks where there are such, and what each paper trained it with.

Every rival is an `nn.Module` with `loss(batch)`, a scalar, and `segment(images, size)`, masks bool (B, H, W)
of images (B, C, S, S) in [-1, 1]. All start from random weights: ImageNet's cannot be had here for them.
"""

import importlib.util
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from mhvae_cli.errors import UsageError
from mhvae_cli.training.datasets import Batch
from mhvae_cli.vae.losses import soft_dice

from .fcsn import FCSN
from .torchvision_stub import stub_torchvision
from .transunet import TransUNet

INSTALL = "pip install --no-deps -r examples/benchmarks/rivals/requirements.txt"


def bce(logit: Tensor, mask: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logit, mask)


def dice(logit: Tensor, mask: Tensor) -> Tensor:
    return 1 - soft_dice(logit.sigmoid(), mask).mean()


def constant(progress: float) -> float:
    return 1.0


def poly(progress: float) -> float:
    return (1 - progress) ** 0.9


def warm_cosine(progress: float) -> float:
    """A linear rise over 1/16 of the training, then half a cosine to 0."""
    rise = 1 / 16
    if progress < rise:
        return (progress + 1e-3) / (rise + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


class Pixelwise(nn.Module):
    """A network that gives a logit (B, 1, S, S) per pixel."""

    def __init__(self, net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.criterion = net, loss

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)

    def loss(self, batch: Batch) -> Tensor:
        device = next(self.parameters()).device
        logit = self.net(batch.image.to(device, memory_format=torch.channels_last))
        return self.criterion(logit[:, 0].float(), batch.mask.to(device))

    @torch.no_grad()
    def segment(self, image: Tensor, size: tuple[int, int]) -> np.ndarray:
        logit = self.net(image.to(memory_format=torch.channels_last)).float()
        return (F.interpolate(logit, size, mode="bilinear", align_corners=False)[:, 0] > 0).cpu().numpy()


@dataclass(frozen=True)
class Rival:
    """A model, and how its paper trained it: `build(channels, size)`, an optimiser and the learning rate's
    factor by the progress of the training, 0 to 1. `needs` are the modules to import."""

    title: str
    encoder: str
    build: Callable[[int, int], nn.Module]
    optimiser: Callable[[Iterable[nn.Parameter]], Optimizer]
    schedule: Callable[[float], float]
    settings: str
    needs: tuple[str, ...] = ()


def _smp(kind: str, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[int, int], nn.Module]:
    def build(channels: int, size: int) -> nn.Module:
        stub_torchvision()
        import segmentation_models_pytorch as smp

        return Pixelwise(getattr(smp, kind)("tu-resnet50", encoder_weights=None, in_channels=channels), loss)

    return build


def _monai(
    kind: str, loss: Callable[[Tensor, Tensor], Tensor], **options: Any
) -> Callable[[int, int], nn.Module]:
    def build(channels: int, size: int) -> nn.Module:
        stub_torchvision()
        import monai.networks.nets

        sized = {"img_size": size} if kind == "UNETR" else {}
        net = getattr(monai.networks.nets, kind)
        return Pixelwise(net(in_channels=channels, out_channels=1, spatial_dims=2, **sized, **options), loss)

    return build


SMP, MONAI = ("segmentation_models_pytorch", "timm"), ("monai", "einops")

RIVALS = {
    "unet++": Rival(
        "UNet++",
        "ResNet50",
        _smp("UnetPlusPlus", lambda x, y: bce(x, y) / 2 + dice(x, y)),
        lambda parameters: Adam(parameters, 3e-4),
        constant,
        "Adam, 3e-4, constant; cross-entropy / 2 + Dice",
        SMP,
    ),
    "deeplabv3+": Rival(
        "DeepLabV3+",
        "ResNet50",
        _smp("DeepLabV3Plus", bce),
        lambda parameters: SGD(parameters, 7e-3, momentum=0.9, weight_decay=4e-5),
        poly,
        "SGD, momentum 0.9, 7e-3, poly 0.9, decay 4e-5; cross-entropy",
        SMP,
    ),
    "unetr": Rival(
        "UNETR",
        "ViT-B/16",
        _monai("UNETR", lambda x, y: dice(x, y) + bce(x, y), feature_size=16),
        lambda parameters: AdamW(parameters, 1e-4, weight_decay=1e-5),
        constant,
        "AdamW, 1e-4, constant, decay 1e-5; Dice + cross-entropy",
        MONAI,
    ),
    "swin-unetr": Rival(
        "Swin-UNETR",
        "Swin, 48 wide",
        _monai("SwinUNETR", dice, feature_size=48),
        lambda parameters: AdamW(parameters, 8e-4, weight_decay=1e-5),
        warm_cosine,
        "AdamW, 8e-4, warm-up and cosine, decay 1e-5; Dice",
        MONAI,
    ),
    "transunet": Rival(
        "TransUNet",
        "ResNet50+ViT-B/16",
        lambda channels, size: Pixelwise(
            TransUNet(channels, size), lambda x, y: bce(x, y) / 2 + dice(x, y) / 2
        ),
        lambda parameters: SGD(parameters, 1e-2, momentum=0.9, weight_decay=1e-4),
        poly,
        "SGD, momentum 0.9, 1e-2, poly 0.9, decay 1e-4; cross-entropy / 2 + Dice / 2",
    ),
    "fcsn": Rival(
        "FCSN",
        "dilated ResNet50",
        lambda channels, size: FCSN(channels),
        lambda parameters: Adam(parameters, 3e-4),
        constant,
        "Adam, 3e-4, constant; errors of coefficients + divergence of heat maps",
    ),
}


def check_installed(names: Iterable[str]) -> None:
    """UsageError if packages that these rivals need are missing."""
    needed = {module for name in names if name in RIVALS for module in RIVALS[name].needs}
    if missing := sorted(module for module in needed if importlib.util.find_spec(module) is None):
        raise UsageError(f"not installed: {', '.join(missing)}", hint=INSTALL)
