"""examples/training/finer.py: the same drawing, on a finer square."""

import math
import runpy
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mhvae_cli.checkpoints.folder import load_state, read_config, save_model
from mhvae_cli.checkpoints.model_card import model_card
from mhvae_cli.diffusion.refiner import Refiner
from mhvae_cli.inference.loading import load_refiner

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "training" / "finer.py"


def _at(refiner: Refiner, level: float, seen: Tensor) -> Tensor:
    with torch.inference_mode():
        return refiner.network.unet(seen, torch.tensor([level]))


def test_a_finer_network_begins_as_the_coarse_one(tiny_refined: Path, tmp_path: Path) -> None:
    content, state = read_config(tiny_refined), load_state(tiny_refined, "cddpm")
    torch.manual_seed(0)
    state = {name: value + 0.3 * torch.randn(value.shape) for name, value in state.items()}
    states = {"vae": load_state(tiny_refined), "cddpm": state}
    save_model(tmp_path / "coarse", config=content, states=states, card=model_card(content))
    runpy.run_path(str(SCRIPT))["main"](tmp_path / "coarse", tmp_path / "finer", 3)
    config = read_config(tmp_path / "finer")["cddpm"]["model"]
    assert config["image_size"] == content["model"]["image_size"] * 3 // 2 and config["unet"]["patch"] == 3
    seen = torch.randn(1, 2, 48, 48)
    averaged = F.avg_pool2d(seen.repeat_interleave(2, 2).repeat_interleave(2, 3), 3)
    shift = math.log(9 / 5)  # the sd of noise is (2/3)^2 + (1/3)^2 of what it was
    old = _at(load_refiner(tmp_path / "coarse"), 1.0 + shift, averaged)
    new = _at(load_refiner(tmp_path / "finer"), 1.0, seen)
    assert old.std() > 0.1
    torch.testing.assert_close(new[..., ::3, ::3], old[..., ::2, ::2], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(new[..., 2::3, ::3], old[..., 1::2, ::2], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(new[..., 1::3, 1::3], F.avg_pool2d(old, 2), atol=1e-3, rtol=1e-3)
