"""The configuration and the weights of a small model, and what a refusal looks like."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch

from mhvae_cli.checkpoints.checksums import SUMS
from mhvae_cli.checkpoints.folder import FILES
from mhvae_cli.errors import ModelError

CONFIG: dict[str, Any] = {
    "format": 1,
    "kind": "mhvae",
    "name": "heads",
    "model": {"image_size": 192},
    "training": {"command": "mhvae train-vae --data heads/ --out run/", "train": {"epochs": 3}},
    "card": {
        "license": "CC BY 4.0",
        "attribution": "T. van den Heuvel et al.: HC18",
        "data": {"name": "HC18 | ultrasound", "images": 999},
        "splits": "folds 0-2 train, 3 is held out",
    },
    "figures": {"validation": {"dice": 0.97231, "hd": 4.9}, "images": 200, "hd_mm": float("nan")},
}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 5, 5, generator=generator).to(memory_format=torch.channels_last),
        "bn.running_var": torch.full((4,), 1e-7),
        "bn.num_batches_tracked": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }


def refused(match: str, call: Any, *args: Any, **options: Any) -> ModelError:
    with pytest.raises(ModelError, match=match) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value) and "\n" not in (caught.value.hint or "")
    return caught.value


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name in FILES}


def sums_of(folder: Path) -> dict[str, str]:
    found = {name: hashlib.sha256(data).hexdigest() for name, data in files_of(folder).items()}
    return {name: sha256 for name, sha256 in found.items() if name != SUMS}
