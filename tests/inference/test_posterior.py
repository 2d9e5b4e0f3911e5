"""Draws from the posterior depend on the seed and the image alone, and have the errors to expect."""

from pathlib import Path

import numpy as np
import pytest

from mhvae_cli.inference.certainty import Certainty
from mhvae_cli.inference.looking import Position
from mhvae_cli.inference.posterior import draw


def test_draws_depend_on_the_seed_and_the_image_alone() -> None:
    given = Position(np.full(6, 0.5, np.float32), np.full(6, 0.1, np.float32), np.zeros(2))
    factor = np.array([[1, 0], [0.5, 0.1], [0, 0], [0, 0], [0, 0], [0, 2]])
    certainty = Certainty(0.9, {}, factor)
    drawn = draw(given, 4000, certainty=certainty, seed=1, key="a")
    assert np.array_equal(drawn, draw(given, 4000, certainty=certainty, seed=1, key="a"))
    assert not np.array_equal(drawn, draw(given, 4000, certainty=certainty, seed=2, key="a"))
    assert not np.array_equal(drawn, draw(given, 4000, certainty=certainty, seed=1, key="b"))
    assert drawn.dtype == np.float32 and drawn.mean(0) == pytest.approx(given.theta, abs=0.1)
    assert np.cov(drawn.T) == pytest.approx(factor @ factor.T, abs=0.2)
    unknown = draw(given, 4000, certainty=None, seed=1, key="a")
    assert unknown.std(0) == pytest.approx(given.sd, rel=0.05)


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
