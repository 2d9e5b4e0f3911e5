"""Draws from the posterior depend on the seed and the image alone, and their intervals hold nine of ten."""

from pathlib import Path

import numpy as np
import pytest
from support.quality import evidence

from mhvae_cli.inference.posterior import calibrated_sd, draw, interval


def test_intervals_hold_nine_of_ten() -> None:
    low, high = interval(list(range(1, 100)))
    assert (low, high) == (pytest.approx(5), pytest.approx(95))
    rng = np.random.default_rng(0)
    for count in (20, 100):
        inside = [low <= rng.normal() <= high for low, high in map(interval, rng.normal(size=(2000, count)))]
        assert np.mean(inside) == pytest.approx(0.9, abs=0.03)
    assert interval([None, *range(9)]) != (None, None)
    assert interval([None, None, *range(8)]) == (None, None)


def test_draws_depend_on_the_seed_and_the_image_alone() -> None:
    given = evidence(sd=np.array([0, 0.01, 0.1, 1, 10, 100], np.float32))
    drawn = draw(given, 4000, temperature=3.0, seed=1, key="a")
    assert np.array_equal(drawn, draw(given, 4000, temperature=3.0, seed=1, key="a"))
    assert not np.array_equal(drawn, draw(given, 4000, temperature=3.0, seed=2, key="a"))
    assert not np.array_equal(drawn, draw(given, 4000, temperature=3.0, seed=1, key="b"))
    assert drawn.dtype == np.float32 and drawn.mean(0) == pytest.approx(given.theta, abs=0.07)
    assert drawn.std(0) == pytest.approx(calibrated_sd(given.sd, 3.0), rel=0.05, abs=1e-6)
    assert calibrated_sd(given.sd, 3.0)[1] == pytest.approx(0.03, rel=1e-3)
    assert (calibrated_sd(given.sd, 1e6) <= 1).all()  # never wider than the prior


def test_draws_of_the_pipeline(judged_model: Path, many_heads: Path) -> None:
    from mhvae_cli import Pipeline

    pipeline = Pipeline.load(judged_model, device="cpu", dtype="float32")
    image = sorted((many_heads / "images").iterdir())[0]
    found = pipeline.segment(image, posterior=25)
    assert found.thetas is not None and found.thetas.shape == (25, len(found.theta))
    assert np.array_equal(found.thetas, pipeline.segment(image, posterior=25).thetas)
    masks = [pipeline.networks.mask(theta, (64, 80), found.pose) for theta in found.thetas]
    assert found.probability is not None and found.probability == pytest.approx(np.mean(masks, axis=0))
    assert pipeline.segment(image).thetas is None
