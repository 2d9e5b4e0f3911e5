"""What segmenting costs beside UNet++ and DeepLabV3+ of the same ResNet50: GFLOP and time an image.

    pip install --no-deps segmentation-models-pytorch timm
    python examples/benchmarks/segmentation_cost.py [--size 256] [--batch 8] [--repeats 5] [--dtype bfloat16]

mhvae is the preset `paper` (ResNet50, circular thin-plate spline): the encoder, the position head, the
warp's grid and the mask at the network's size. The rivals are segmentation_models_pytorch's with its
defaults, and timm's ResNet50 as encoder. Weights are random, which changes no cost; one grey channel; all
in channels-last and with their batch norms folded into the convolutions. GFLOP are those of
torch.utils.flop_counter: 2 a multiply-add, of convolutions and matrix products alone. Those two packages
name torchvision when they are imported; where there is none, `rivals.torchvision_stub` stands in for it.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise

from common import interleaved, table  # first: see there

# isort: split
import torch
from rivals.torchvision_stub import stub_torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mhvae_cli.config import Recipe, from_dict
from mhvae_cli.training.recipe import PRESETS
from mhvae_cli.vae.encoder import fold_batch_norms
from mhvae_cli.vae.model import MultiHeadedVAE, build


def rivals() -> dict[str, nn.Module]:
    """UNet++ and DeepLabV3+."""
    stub_torchvision()
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        sys.exit(f"{error}\nhint: pip install --no-deps segmentation-models-pytorch timm")
    kinds = {"UNet++": smp.UnetPlusPlus, "DeepLabV3+": smp.DeepLabV3Plus}
    nets = {name: kind("tu-resnet50", encoder_weights=None, in_channels=1) for name, kind in kinds.items()}
    return {name: _folded(net.eval()) for name, net in nets.items()}


def _folded(net: nn.Module) -> nn.Module:
    """Every batch norm folded into the convolution that comes before it."""
    for parent in list(net.modules()):
        children = list(parent.named_children())
        for (before, elder), (name, norm) in pairwise(children):
            conv = elder[-1] if isinstance(elder, nn.Sequential) and len(elder) else elder
            if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
                continue
            fused = nn.utils.fuse_conv_bn_eval(conv, norm)
            if conv is elder:
                setattr(parent, before, fused)
            else:
                elder[-1] = fused
            # timm's batch norms may hold the activation too
            setattr(parent, name, getattr(norm, "act", nn.Identity()))
    left = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    if left:
        print(f"{type(net).__name__}: {left} batch norms are not folded", file=sys.stderr)
    return net


def paper(size: int) -> MultiHeadedVAE:
    """The preset's model at `size`, as `Pipeline` prepares it."""
    model = build(from_dict(Recipe, PRESETS["paper"] | {"model": {"image_size": size}}).model, seed=0).eval()
    fold_batch_norms(model.encoder.convnet)
    return model


def segment(model: MultiHeadedVAE, image: torch.Tensor) -> torch.Tensor:
    """The segmentation path: theta of each image, its warp, its mask bool (B, S, S)."""
    source = model.warp(model.locate(image).mean, image.shape[2:])
    return model.segmentation_head.level(source) >= 0


def gflop(task: Callable[[], object], images: int) -> float:
    """Of one image."""
    with FlopCounterMode(display=False) as counter:
        task()
    return counter.get_total_flops() / 1e9 / images


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    number = getattr(torch, args.dtype)
    image = torch.rand(args.batch, 1, args.size, args.size).contiguous(memory_format=torch.channels_last)
    ours = paper(args.size).to(memory_format=torch.channels_last)
    ours.encoder.convnet.to(number)  # the heads and the warp stay in float32, as in Pipeline
    tasks: dict[str, Callable[[], object]] = {"mhvae": partial(segment, ours, image)}
    for name, net in rivals().items():
        tasks[name] = partial(net.to(number, memory_format=torch.channels_last), image.to(number))
    with torch.inference_mode():
        cost = {name: gflop(task, args.batch) for name, task in tasks.items()}
        seconds = interleaved(tasks, args.repeats)
    print(f"{args.size} px, batch {args.batch}, {args.dtype}, {torch.get_num_threads()} threads")
    rows = []
    for name in tasks:
        ratios = (f"{each[name] / each['mhvae']:.2f} x" for each in (cost, seconds))
        rows.append([name, f"{cost[name]:.2f}", f"{1e3 * seconds[name] / args.batch:.1f}", *ratios])
    table(["an image", "GFLOP", "ms", "GFLOP / mhvae", "time / mhvae"], *rows)


if __name__ == "__main__":
    main()
