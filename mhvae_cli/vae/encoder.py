"""Section 3.1: a ConvNet whose spatial map is kept, and two fully connected heads for theta and z."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ..config import EncoderConfig, ModelConfig
from .latents import Gaussian


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the statistics of all processes when training with several.

    torch's SyncBatchNorm has no CPU kernel; this one runs wherever the process group does.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        dist = torch.distributed
        if not (
            self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        ):
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce

        world = dist.get_world_size()
        full = x.float()
        mean, square = (all_reduce(m) / world for m in (full.mean((0, 2, 3)), full.square().mean((0, 2, 3))))
        var = (square - mean.square()).clamp_min(0)
        with torch.no_grad():
            n = x.numel() / x.shape[1] * world
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1), self.momentum)
            self.num_batches_tracked += 1
        shift = [v[:, None, None] for v in (mean, torch.rsqrt(var + self.eps) * self.weight, self.bias)]
        return ((full - shift[0]) * shift[1] + shift[2]).to(x.dtype)


class Block(nn.Module):
    """ResNet's basic block (18, 34) or bottleneck (50); parameter names as in torchvision."""

    def __init__(self, inputs: int, planes: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        self.bottleneck = bottleneck
        outputs = planes * 4 if bottleneck else planes
        if bottleneck:
            self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
            self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
            self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
            self.bn3 = BatchNorm2d(outputs)
        else:
            self.conv1 = nn.Conv2d(inputs, planes, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = BatchNorm2d(planes), BatchNorm2d(planes)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), BatchNorm2d(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.bottleneck:
            y = self.bn3(self.conv3(torch.relu(y)))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet 18, 34 or 50 without its classifier: (B, C, S, S) -> (B, out_channels, S / 32, S / 32).

    Like the other ConvNets, it also returns the maps of strides 2, 4 and 8, with `map_channels` channels.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, arch: str, channels: int, width: float) -> None:
        super().__init__()
        depths = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}[arch]
        bottleneck = arch == "resnet50"
        base = max(8, round(64 * width / 8) * 8)
        self.conv1 = nn.Conv2d(channels, base, 7, 2, 3, bias=False)
        self.bn1 = BatchNorm2d(base)
        inputs = base
        for i, depth in enumerate(depths):
            blocks = []
            for j in range(depth):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(Block(inputs, base * 2**i, stride, bottleneck=bottleneck))
                inputs = base * 2**i * (4 if bottleneck else 1)
            setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
        self.out_channels = inputs
        wide = base * (4 if bottleneck else 1)
        self.map_channels = (base, wide, 2 * wide)
        _initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, maps = self.fine(x)
        for layer in (self.layer3, self.layer4):
            x = layer(x)
        return x, maps

    def fine(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The map of stride 8, and those of strides 2, 4 and 8."""
        stem = torch.relu(self.bn1(self.conv1(x)))
        first = self.layer1(nn.functional.max_pool2d(stem, 3, 2, 1))
        second = self.layer2(first)
        return second, [stem, first, second]


class HybridViT(nn.Module):
    """ResNet50 whose map is the token sequence of a ViT-B/16 (12 layers, 768 wide), as in TransUNet.

    The ResNet's last stage is omitted, so that its stride is 16 and each cell is one token.
    """

    def __init__(self, channels: int, width: float, size: int) -> None:
        super().__init__()
        self.resnet = ResNet("resnet50", channels, width)
        del self.resnet.layer4
        dim, side = max(64, round(768 * width / 64) * 64), size // 16
        self.patch = nn.Conv2d(self.resnet.out_channels // 2, dim, 1)
        self.position = nn.Parameter(torch.zeros(1, side * side, dim))
        nn.init.normal_(self.position, std=0.02)
        layer = nn.TransformerEncoderLayer(
            dim, dim // 64, 4 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 12, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
        self.out_channels, self.map_channels = dim, self.resnet.map_channels

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, maps = self.resnet.fine(x)
        x = self.patch(self.resnet.layer3(x))
        tokens = self.layers(x.flatten(2).transpose(1, 2) + self.position)
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:]), maps


class MobileBlock(nn.Module):
    """An inverted residual: expand, depthwise, project; its batch norms are folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = nn.Conv2d(inputs, hidden, 1) if expand > 1 else None
        # The ImageNet weights were trained with TensorFlow's padding: at stride 2 one pixel more at the end.
        self.pad = () if stride == 1 else ((kernel - 2) // 2, (kernel - 1) // 2) * 2
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, 0 if self.pad else kernel // 2, groups=hidden
        )
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        # In place: no backward pass needs the convolutions' outputs, and on a CPU memory is the bottleneck.
        y = x if self.expand is None else torch.relu_(self.expand(x))
        y = nn.functional.pad(y, self.pad) if self.pad else y
        y = self.project(torch.relu_(self.depthwise(y)))
        out: Tensor = x + y if self.residual else y
        return out


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0's blocks, stride 32, with batch norms folded and ReLU in place of ReLU6.

    Meant to start from ImageNet weights (`--from imagenet`). Without norms and ReLU6's slow backward pass it
    trains 1.7 x faster on a CPU, and results do not depend on the batch size or the number of processes.
    """

    STAGES = (  # blocks, channels, kernel, stride, expansion
        (1, 16, 3, 1, 1),
        (2, 24, 3, 2, 6),
        (2, 40, 5, 2, 6),
        (3, 80, 3, 2, 6),
        (3, 112, 5, 1, 6),
        (4, 192, 5, 2, 6),
        (1, 320, 3, 1, 6),
    )
    MAPS = (0, 2, 4)  # the last blocks of strides 2, 4 and 8

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 32, 3, 2)
        blocks, inputs = [], 32
        for count, outputs, kernel, stride, expand in self.STAGES:
            for i in range(count):
                blocks.append(MobileBlock(inputs, outputs, kernel, stride if i == 0 else 1, expand))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.out_channels, self.map_channels = inputs, (16, 24, 40)
        _initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = []
        # On a CPU the depthwise convolutions' backward pass is slower in bfloat16 than in float32.
        slow = torch.is_grad_enabled() and x.device.type == "cpu"
        with torch.autocast(x.device.type, enabled=False) if slow else nullcontext():
            x = torch.relu_(self.stem(nn.functional.pad(x, (0, 1, 0, 1))))
            for i, block in enumerate(self.blocks):
                x = block(x)
                if i in self.MAPS:
                    maps.append(x)
            return x, maps


class Encoder(nn.Module):
    """Image (B, C, S, S) in [-1, 1] -> posteriors of theta (B, P) and z (B, Z), as `Gaussian`s."""

    def __init__(self, config: ModelConfig, theta_dim: int) -> None:
        super().__init__()
        self.convnet = convnet(config.encoder, config.channels, config.image_size)
        stride = 16 if isinstance(self.convnet, HybridViT) else 32
        side = -(-config.image_size // stride)
        self.reduce = nn.Conv2d(self.convnet.out_channels, config.encoder.reduce, 1)
        flat = config.encoder.reduce * side * side
        self.theta = None if config.single_head else _head(flat, config.encoder.hidden, theta_dim)
        layers = 2 * config.channels * config.tones**2
        self.z: nn.Module = (
            nn.Linear(layers, 2 * config.z_dim)
            if layers
            else _head(flat, config.encoder.hidden, config.z_dim)
        )

    def features(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """An image (B, C, S, S) -> the reduced map, flattened (B, F), since pooling would lose the position;
        and the ConvNet's fine maps."""
        weight = next(self.convnet.parameters())
        seen, maps = self.convnet(image.to(weight.dtype))
        flat: Tensor = self.reduce(seen.to(self.reduce.weight.dtype)).flatten(1)
        return flat, maps

    def position(self, flat: Tensor) -> Gaussian:
        """Theta's posterior from the `features` of an image."""
        if self.theta is None:
            raise TypeError("a single-headed VAE has no position code")
        return _gaussian(self.theta, flat)

    def style(self, flat: Tensor) -> Gaussian:
        """z's posterior from the `features` of an image."""
        return _gaussian(self.z, flat)

    def style_of_layers(self, layers: Tensor) -> Gaussian:
        """z's posterior from the layers (B, 2, C, t, t) of an image (`tones.split`)."""
        return _gaussian(self.z, layers.flatten(1).to(next(self.z.parameters()).dtype))


def convnet(config: EncoderConfig, channels: int, size: int) -> ResNet | HybridViT | EfficientNetLite0:
    """The encoder's ConvNet for `channels` input channels and images of `size` pixels per side."""
    if config.arch == "efficientnet-lite0":
        return EfficientNetLite0(channels)
    if config.arch == "resnet50-vit-b16":
        return HybridViT(channels, config.width, size)
    return ResNet(config.arch, channels, config.width)


def fold_batch_norms(net: nn.Module) -> None:
    """Fold every batch norm of a ResNet into the preceding convolution, in place: for inference only."""
    for module in net.modules():
        if isinstance(module, Block | ResNet):
            pairs = [(f"conv{i}", f"bn{i}") for i in (1, 2, 3) if hasattr(module, f"bn{i}")]
        elif isinstance(module, nn.Sequential) and len(module) == 2 and isinstance(module[1], BatchNorm2d):
            pairs = [("0", "1")]
        else:
            continue
        for conv, norm in pairs:
            before, after = module.get_submodule(conv), module.get_submodule(norm).eval()
            assert isinstance(before, nn.Conv2d) and isinstance(after, BatchNorm2d)
            fused = nn.utils.fuse_conv_bn_eval(before, after)
            setattr(module, conv, fused)
            setattr(module, norm, nn.Identity())


def _head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    head = nn.Sequential(nn.Linear(inputs, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2 * outputs))
    last = head[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():  # start near theta = z = 0 with a small spread, for plausible first masks
        last.weight.mul_(0.1)
        last.bias.zero_()
        last.bias[outputs:] = -7.0
    return head


def _gaussian(head: nn.Module, flat: Tensor) -> Gaussian:
    mean, logvar = head(flat).float().chunk(2, dim=1)
    return Gaussian(mean, logvar.clamp(-12.0, 4.0))


def _initialise(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
