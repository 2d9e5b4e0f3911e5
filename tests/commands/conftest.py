"""What the tests of commands share: images of three sizes, and the model that they are given to."""

from pathlib import Path

import pytest
from PIL import Image
from support.ended import SIZES

from mhvae_cli import Pipeline
from mhvae_cli.training.phantoms import phantom


@pytest.fixture
def three_sizes(here: Path, monkeypatch: pytest.MonkeyPatch, tiny_refined: Path) -> None:
    """a.png, b.png and c.png of three sizes in the current folder; the tiny refined model as the default."""
    monkeypatch.setenv("MHVAE_MODEL", str(tiny_refined))
    monkeypatch.setenv("MHVAE_DEVICE", "cpu")
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    for number, (name, size) in enumerate(SIZES.items()):
        Image.fromarray(phantom("fetal-head", number, size)[0]).save(here / f"{name}.png")


@pytest.fixture(scope="module")
def pipeline(tiny_refined: Path) -> Pipeline:
    return Pipeline.load(tiny_refined, device="cpu", dtype="float32")
