"""Limits of quality control are calibrated on images that were not trained on."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

Mhvae = Callable[..., Any]


def test_limits_of_normal_values_are_the_normal_ones() -> None:
    from mhvae_cli.training.calibration import normal_limit

    quantiles = NormalDist(3, 2).quantiles(10_000)
    assert normal_limit(np.array(quantiles)) == pytest.approx(NormalDist(3, 2).inv_cdf(0.995), abs=0.01)


def test_limits_go_on_as_the_tail_does() -> None:
    from mhvae_cli.training.calibration import EXCEEDANCE, limit

    values = np.random.default_rng(0).exponential(size=200_000)
    assert limit(values) == pytest.approx(-math.log(EXCEEDANCE), rel=0.02)
    assert limit(np.ones(30)) == 1


def test_training_leaves_the_statistics_behind(mhvae: Mhvae, many_heads: Path, tmp_path: Path) -> None:
    recipe = {
        "model": {
            "image_size": 32,
            "z_dim": 4,
            "tones": 16,
            "warp": {"family": "affine"},
            "encoder": {"arch": "resnet18", "width": 0.125, "reduce": 4, "hidden": 16},
            "decoder": {"channels": 8, "max_size": 32},
        },
        "train": {"epochs": 1, "batch_size": 8, "val_fraction": 0.4},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(recipe))
    run = tmp_path / "run"
    ended = mhvae(
        "train-vae", "--data", many_heads, "--out", run, "--config", tmp_path / "tiny.json", "-j", 0
    )
    assert ended.code == 0
    statistics = json.loads((run / "config.json").read_text())["trust"]
    assert statistics["images"] == 24 and "errors" in statistics
    assert all(len(values) == 33 for values in statistics["quantiles"].values())
    ended = mhvae("segment", many_heads / "images", "-m", run, "-o", tmp_path / "masks", "--json")
    flags = [json.loads(line)["foreign"] for line in ended.lines]
    assert ended.code == 0 and flags.count("no") >= 50
    _assert_settled(run, many_heads)


def _assert_settled(run: Path, data: Path) -> None:
    """Nothing is left in the tones that a filter made of the validation images would take away."""
    import torch

    from mhvae_cli.inference.networks import Networks
    from mhvae_cli.training.datasets import Images, discover, split
    from mhvae_cli.vae.fitting import shrink_tones

    model = Networks.load(run, device="cpu", dtype="float32").model
    _, val = split(discover(data), fraction=0.4, seed=0)
    image = Images(val, image_size=32, channels=1, workers=1).plain(range(len(val)))
    with torch.inference_mode():
        layers = model.layers(image, model.examine(image).q_theta.mean)
        z, before = model.encoder.style_of_layers(layers).mean, model.image_head.tones.weight.clone()
        assert before.abs().max() > 0.1
        shrink_tones(model, z, layers)
        torch.testing.assert_close(model.image_head.tones.weight, before, atol=0.01, rtol=0.05)
