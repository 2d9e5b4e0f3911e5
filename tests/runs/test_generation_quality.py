"""`mhvae sample --audit`: samples that are training images are flagged, and others are not."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhvae_cli import Pipeline
from mhvae_cli.checkpoints.folder import rewrite_model
from mhvae_cli.inference.audit import make_index


@pytest.fixture
def memorised(
    mhvae: Callable[..., Any], tiny_refined: Path, many_heads: Path, tmp_path: Path
) -> tuple[Path, list[Path]]:
    """A model that was "trained" on three of its own samples, and these samples."""
    ended = mhvae("sample", "-n", 3, "--model", tiny_refined, "--out", f"{tmp_path / 'first'}/", "--steps", 2)
    assert ended.code == 0, ended.stderr
    samples = sorted((tmp_path / "first" / "images").iterdir())
    model = tmp_path / "model"
    model.mkdir()
    for file in tiny_refined.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    networks = Pipeline.load(model, device="cpu").networks
    new = sorted((many_heads / "images").iterdir())
    rewrite_model(model, states={"audit": make_index(networks, samples, new)})
    return model, samples


def _rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_memorised_samples_are_flagged(
    mhvae: Callable[..., Any], memorised: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    model, _ = memorised
    out = tmp_path / "again"
    ended = mhvae("sample", "-n", 5, "--audit", "--model", model, "--out", f"{out}/", "--steps", 2)
    assert ended.code == 0, ended.stderr
    distances = [float(row["training_distance"]) for row in _rows(out)]
    assert max(distances[:3]) < 0.05 < min(distances[3:])
    flagged = ["training_distance" in row["qc_why"].split(";") for row in _rows(out)]
    assert flagged == [distance < 1 for distance in distances]
    assert {row["qc"] for row in _rows(out)[:3]} == {"warn"}
    assert "closer to a training image than 99 % of new images are" in ended.stderr


def test_without_audit_there_is_no_such_column(
    mhvae: Callable[..., Any], memorised: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    model, _ = memorised
    ended = mhvae("sample", "-n", 1, "--model", model, "--out", f"{tmp_path / 'set'}/", "--steps", 2)
    assert ended.code == 0 and "training_distance" not in _rows(tmp_path / "set")[0]


def test_a_model_without_an_index(mhvae: Callable[..., Any], tiny_refined: Path, tmp_path: Path) -> None:
    ended = mhvae("sample", "-n", 1, "--audit", "--model", tiny_refined, "--out", f"{tmp_path / 'set'}/")
    assert ended.code == 6 and "no index of its training images" in ended.stderr
    assert not (tmp_path / "set").exists()
