"""What the tests of inference share: a pipeline and an image."""

from pathlib import Path

import numpy as np
import pytest

from mhvae_cli.inference.pipeline import Pipeline
from mhvae_cli.training.phantoms import phantom


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> Pipeline:
    return Pipeline.load(tiny_model, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return phantom("fetal-head", 3, (120, 200))[0]
