"""What the tests of runs share: scans to work on."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def three_scans(here: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, phantom_folder: Path) -> None:
    """Three phantoms in scans/ of the current folder, and the tiny model as the default."""
    monkeypatch.setenv("MHVAE_MODEL", str(tiny_model))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    (here / "scans").mkdir()
    for name, image in zip("abc", sorted((phantom_folder / "images").iterdir()), strict=False):
        shutil.copy(image, here / "scans" / f"{name}.png")
