"""Initialise section 3.1's ConvNet from ImageNet weights: names and input channels are adapted."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .encoder import EfficientNetLite0, HybridViT

STEMS = ("stem.weight", "conv1.weight")
"""The first layer of EfficientNet-Lite0, and of a ResNet."""


def adapt_stem(weight: Tensor, channels: int) -> Tensor:
    """A first layer's weights (O, C, h, w) for grey input in place of colour, or the reverse.

    To a grey image it responds as the colour layer does to three equal channels.
    """
    if weight.shape[1] == 3 and channels == 1:
        return weight.sum(1, keepdim=True)
    return weight.expand(-1, 3, -1, -1) / 3 if weight.shape[1] == 1 and channels == 3 else weight


def start_from(convnet: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into an encoder's ConvNet, in place, without the classifier.

    ResNets: torchvision's names (timm's are the same). EfficientNet-Lite0: its own names, or those of the
    common PyTorch port (`_conv_stem`, `_blocks.N._expand_conv`, ...), whose batch norms are folded. The stem
    is adapted to the number of channels. ModelError if a tensor is missing or has the wrong shape.
    """
    target: nn.Module = convnet.resnet if isinstance(convnet, HybridViT) else convnet
    source = dict(weights)
    if isinstance(target, EfficientNetLite0) and "stem.weight" not in weights:
        source = _folded(target, weights)
    own = target.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        given = source.get(name)
        if given is not None and name in STEMS:
            given = adapt_stem(given, tensor.shape[1])
        if given is None or given.shape != tensor.shape:
            shapes = "absent" if given is None else str(tuple(given.shape))
            raise ModelError(
                f"the pretrained weights do not match: {name} is {shapes}, not {tuple(tensor.shape)}",
                hint="pretrained weights need the same architecture at width 1",
            )
        tensor.copy_(given)


def _folded(net: EfficientNetLite0, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pairs = {"stem": ("_conv_stem", "_bn0")}
    for i, block in enumerate(net.blocks):
        names = ["expand", "depthwise", "project"] if block.expand is not None else ["depthwise", "project"]
        for name, number in zip(names, range(0 if block.expand is not None else 1, 3), strict=True):
            pairs[f"blocks.{i}.{name}"] = (f"_blocks.{i}._{name}_conv", f"_blocks.{i}._bn{number}")
    folded = {}
    for own, (conv, norm) in pairs.items():
        parts = [weights.get(f"{conv}.weight")]
        parts += [weights.get(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            continue
        kernel, gain, bias, mean, var = found
        factor = gain * torch.rsqrt(var + 1e-3)  # TensorFlow's epsilon
        folded[f"{own}.weight"] = kernel * factor[:, None, None, None]
        folded[f"{own}.bias"] = bias - mean * factor
    return folded
