"""A ResNet by the book, and networks with weights and statistics that differ."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(net: nn.Module, seed: int = 0) -> nn.Module:
    """The net in eval mode, its batch norms' statistics no longer 0 and 1."""
    rng = seeded(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=rng)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.2, generator=rng)
    return net.eval()


def reference_resnet(state: dict[str, Tensor], arch: str, x: Tensor) -> Tensor:
    """torchvision's ResNet in eval mode, from the names of its weights alone.

    The stride is a basic block's first convolution's, a bottleneck's second's: in both its first 3 x 3.
    """

    def norm(name: str, x: Tensor) -> Tensor:
        parts = [state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *parts, training=False)

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = F.max_pool2d(F.relu(norm("bn1", conv("conv1", x, 2))), 3, 2, 1)
    last = 3 if arch == "resnet50" else 2
    for layer, depth in enumerate(DEPTHS[arch], 1):
        for block in range(depth):
            at, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = x
            for i in range(1, last + 1):  # one before the last is strided, 1 of 2 or 2 of 3
                y = norm(f"{at}.bn{i}", conv(f"{at}.conv{i}", y, stride if i == last - 1 else 1))
                y = F.relu(y) if i < last else y
            if f"{at}.downsample.0.weight" in state:
                x = norm(f"{at}.downsample.1", conv(f"{at}.downsample.0", x, stride))
            x = F.relu(x + y)
    return x
