"""How far to trust a result: signals and verdicts against known truths."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from support.quality import STRIPES, evidence, grid, odd_pictures, trust

from mhvae_cli.errors import ModelError
from mhvae_cli.inference.qc import (
    COLUMNS,
    SIGNALS,
    QCStatistics,
    layout,
    parse_statistics,
    smallest_jacobian,
    tones,
)

SQUARE = np.array([[10.0, 10], [90, 10], [90, 90], [10, 90]])
HOLE = np.array([[30.0, 30], [30, 60], [60, 60], [60, 30]])


def test_tones_of_known_pictures() -> None:
    mean, contrast, fine, coarse = tones(STRIPES)
    assert mean == pytest.approx(0, abs=1e-6) and contrast == pytest.approx(math.log(0.508))
    assert fine == pytest.approx(math.log(1.008)) and coarse == pytest.approx(math.log(0.008))
    black = tones(np.full((1, 32, 32), -1, np.float32))
    assert black[0] == -1 and black[1:] == pytest.approx(math.log(0.008))
    grey = np.repeat(STRIPES, 3, axis=0)
    colours = tones(grey)
    assert len(colours) == 11 and colours[-3:] == pytest.approx(math.log(0.008))
    grey[0] += 0.25
    assert tones(grey)[-3] == pytest.approx(math.log(0.258), rel=1e-5)


def bent(p: np.ndarray) -> np.ndarray:
    """A warp whose determinant is 1 + 1.6 x."""
    return np.stack([p[:, 0] + 0.8 * p[:, 0] ** 2, p[:, 1]], axis=1)


def test_the_smallest_jacobian_is_the_analytic_one() -> None:
    inside = np.ones((64, 64), bool)
    for matrix in ([[2.0, 0.5], [-0.3, 1.0]], [[-1.0, 0.0], [0.2, 1.0]]):  # the second mirrors
        affine = grid(lambda p, matrix=matrix: p @ np.array(matrix).T + 0.3)
        assert smallest_jacobian(affine, inside) == pytest.approx(1, abs=1e-9)

    assert smallest_jacobian(grid(bent, 512), np.ones((512, 512), bool)) == pytest.approx(-0.6, abs=0.01)
    right = np.zeros((512, 512), bool)
    right[:, 256:] = True
    assert smallest_jacobian(grid(bent, 512), right) == pytest.approx(1 / 1.8, abs=0.01)
    assert smallest_jacobian(grid(bent), np.zeros((64, 64), bool)) is None


def test_a_verdict_names_what_is_off() -> None:
    fine = trust().judge(evidence(), [SQUARE], 1.0)
    assert fine.qc == "ok" and fine.why == () and (fine.components, fine.holes) == (1, 0)
    assert fine.percentiles["theta"] == pytest.approx(25) and fine.percentiles["recon"] == pytest.approx(5)
    far = evidence(features=np.array([5.0, 5.0]), theta=np.full(6, -2.5), recon=None)
    odd = trust().judge(far, [SQUARE], 1.0)
    assert odd.why == ("features", "theta") and odd.percentiles["features"] == 100
    assert "recon" not in odd.percentiles and odd.fields()["recon_pct"] is None
    assert trust().judge(evidence(), [SQUARE, HOLE], -0.6).why == ("holes", "folds")
    assert trust().judge(evidence(), [SQUARE, SQUARE + 200], 0.5).why == ("pieces",)
    assert trust().judge(evidence(), [], None).why == ("empty",)
    assert tuple(odd.fields()) == COLUMNS and odd.fields()["qc_why"] == "features;theta"


def test_a_little_of_everything_is_foreign_too() -> None:
    """Three distances, each within its own limit: the mean of their logarithms is beyond its own."""
    steps = np.exp(np.linspace(-2, 2, 33))  # the logarithms' median is 0, and 1.36 at 84 %
    limits = {**dict.fromkeys(SIGNALS, 10.0), "combined": 1.2}
    quantiles = {**dict.fromkeys(SIGNALS, steps), "combined": np.linspace(-2, 2, 33)}
    unit = {"tones": np.eye(4), "layout": np.ones(64), "features": np.ones(2)}
    means = {"tones": tones(STRIPES), "layout": layout(STRIPES), "features": np.zeros(2)}

    def judged(*distances: float) -> tuple[str, ...]:
        off = [mean - far for mean, far in zip(means.values(), distances, strict=True)]
        statistics = QCStatistics(dict(zip(means, off, strict=True)), unit, quantiles, limits)
        return statistics.judge(evidence(recon=None), [SQUARE], 1.0).why

    assert judged(6, 6, 6) == ("combined",)  # ln 6 / 1.36 = 1.32
    assert judged(9, 9, 1) == ()
    assert judged(20, 1, 1) == ("tones",)


def test_models_without_the_combined_signal_are_judged_by_the_others() -> None:
    sizes = {"tones": 4, "layout": 64, "features": 2}
    content = trust().to_dict()
    for part in ("quantiles", "limits"):
        content[part] = {name: value for name, value in content[part].items() if name != "combined"}
    found = parse_statistics(content, sizes, where="here").judge(evidence(), [SQUARE], 1.0)
    assert found.qc == "ok" and found.fields()["combined_pct"] is None
    assert found.fields()["tones_pct"] == trust().judge(evidence(), [SQUARE], 1.0).fields()["tones_pct"]


def test_statistics_outlive_the_file() -> None:
    sizes = {"tones": 4, "layout": 64, "features": 2}
    content = json.loads(json.dumps(trust().to_dict()))
    again = parse_statistics(content, sizes, where="here")
    found, told = (each.judge(evidence(), [SQUARE], 1.0) for each in (again, trust()))
    assert found.percentiles == pytest.approx(told.percentiles, abs=0.01) and found.why == told.why
    damaged = [
        {**content, "limits": {}},
        {**content, "distances": {**content["distances"], "layout": {"mean": [0], "scale": [1]}}},
        {**content, "quantiles": {**content["quantiles"], "theta": [3, 2, 1]}},
        {**content, "quantiles": []},
    ]
    for other in damaged:
        with pytest.raises(ModelError, match="here"):
            parse_statistics(other, sizes, where="here")


def test_the_pipeline_judges_what_it_finds(judged_model: Path, tiny_model: Path) -> None:
    from mhvae_cli import Pipeline
    from mhvae_cli.training.phantoms import phantom

    pipeline = Pipeline.load(judged_model, device="cpu", dtype="float32")
    usual = [pipeline.segment(phantom("fetal-head", seed, (64, 80))[0]) for seed in range(500, 530)]
    flags = [found.quality is not None and "tones" in found.quality.why for found in usual]
    assert np.mean(flags) <= 0.1
    for picture in odd_pictures():
        quality = pipeline.segment(picture, recon=True).quality
        assert quality is not None and quality.qc == "warn" and "recon" in quality.percentiles
    assert Pipeline.load(tiny_model).segment(odd_pictures()[0]).quality is None
