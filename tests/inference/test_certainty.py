"""What is certain of a result: evidence against analytic outlines, and intervals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mhvae_cli import Pipeline
from mhvae_cli.inference.certainty import Certainty
from mhvae_cli.inference.looking import Position, evidence_of


def test_the_gap_of_a_shrunken_look_is_its_logarithm(tiny_model: Path) -> None:
    """The outline is that of the first look, larger by a factor."""
    networks = Pipeline.load(tiny_model, device="cpu", dtype="float32").networks
    warp, size = networks.model.warp, (64, 80)
    assert warp is not None
    theta = np.zeros(warp.theta_dim, np.float32)
    rings = networks.contour(theta, size)
    identity = np.eye(2, 3)
    for scale in (1.0, 0.8):
        pose = identity * [[1], [1]] * scale
        # The outline of `theta` under a pose is 1 / scale times as large about the origin.
        larger = networks.contour(theta, size, pose)
        position = Position(theta, theta, np.zeros(3), pose, first=theta)
        evidence = evidence_of(networks, position, larger, size)
        middle = 1 - networks.model.level_of(_tensor(theta))(np.zeros((1, 2)))[0] / 0.5
        if middle < 1e-3:  # centred: exactly a ratio of radii
            assert evidence.gap == pytest.approx(-np.log(scale), abs=0.02)
        assert (abs(evidence.gap) < 1e-6) == (scale == 1)
        assert len(evidence.inputs) == 7 and evidence.inputs[3] == 0
    alone = evidence_of(networks, replace(position, first=None), rings, size)
    assert np.isnan(alone.gap) and np.isnan(alone.inputs[:2]).all() and alone.inputs[3] == 1
    assert np.isfinite(evidence_of(networks, position, [], size).inputs[2:]).all()


def _tensor(theta: np.ndarray):  # type: ignore[no-untyped-def]
    import torch

    return torch.from_numpy(theta)[None]


def test_an_interval_holds_its_value_and_errors_are_those_of_a_logarithm() -> None:
    found = Certainty(0.9, {"area": (0.1, 0.2), "height": (0.5, 0.1)}, np.zeros((1, 0)))
    assert found.interval("area", 100.0) == pytest.approx((100 * np.exp(-0.3), 100 * np.exp(0.1)))
    low, high = found.interval("height", 10.0)
    assert low == pytest.approx(10 * np.exp(-0.6)) and high == 10.0
    cup = Certainty(0.9, {"height": (0.5, 0.24), "area": (0.0, 0.1)}, np.zeros((1, 0)))
    assert found.ratio(cup, "height", 0.5) == pytest.approx((0.5 * np.exp(-0.26), 0.5 * np.exp(0.26)))
    assert found.ratio(cup, "perimeter", 0.5) == found.interval("hc", 1.0) == (None, None)


def test_the_pipeline_says_how_certain_it_is(judged_model: Path, tiny_model: Path, many_heads: Path) -> None:
    image = sorted((many_heads / "images").iterdir())[0]
    pipeline = Pipeline.load(judged_model, device="cpu", dtype="float32")
    found = pipeline.segment(image)
    assert found.certainty is not None and found.quality is not None
    assert found.quality.dice == found.certainty.dice and 0 <= found.certainty.dice <= 1
    assert found.quality.doubtful == ("doubtful" in found.quality.why)
    assert pipeline.segment(image, looks=1).certainty is None
    assert Pipeline.load(tiny_model).segment(image).certainty is None
