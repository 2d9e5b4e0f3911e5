"""Whether an image is closer to a training image than new ones: against brute force, and known copies."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from mhvae_cli import Pipeline
from mhvae_cli.checkpoints.folder import load_state, rewrite_model
from mhvae_cli.errors import ModelError
from mhvae_cli.images.read import read_scan
from mhvae_cli.inference.audit import MAX_IMAGES, PROJECTED, load_audit, make_index, nearest
from mhvae_cli.inference.networks import Networks


@pytest.fixture(scope="module")
def networks(tiny_refined: Path) -> Networks:
    return Pipeline.load(tiny_refined, device="cpu").networks


@pytest.fixture(scope="module")
def paths(many_heads: Path) -> list[Path]:
    return sorted((many_heads / "images").iterdir())


def _with_index(networks: Networks, index: dict[str, torch.Tensor], folder: Path) -> Networks:
    for file in networks.folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    rewrite_model(folder, states={"audit": index})
    return Pipeline.load(folder, device="cpu").networks


def test_the_nearest_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    some, others = rng.normal(size=(7, 5)), rng.normal(size=(11, 5))
    assert nearest(some, others) == pytest.approx(cdist(some, others).min(1) / np.sqrt(5))


def test_training_images_are_near_and_new_ones_are_not(
    networks: Networks, paths: list[Path], tmp_path: Path
) -> None:
    index = make_index(networks, paths[:30], paths[30:])
    assert index["index"].dtype == torch.float16
    assert index["index"].shape == (30, networks.config.encoder.reduce + PROJECTED)
    audit = load_audit(_with_index(networks, index, tmp_path))
    copies = [audit.distance(networks, read_scan(path)) for path in paths[:30]]
    new = [audit.distance(networks, read_scan(path)) for path in paths[30:]]
    assert max(copies) < 0.1  # not 0: float16
    assert sum(each < 1 for each in new) <= 1 and min(new) > 0.9


def test_no_more_than_so_many_are_kept(
    networks: Networks, paths: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_IMAGES == 1000
    monkeypatch.setattr("mhvae_cli.inference.audit.MAX_IMAGES", 20)
    index = make_index(networks, paths[:30], paths[30:])["index"]
    assert len(index) == 20 and len(index.unique(dim=0)) == 20


def test_a_missing_index_and_one_that_does_not_fit(
    networks: Networks, paths: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no index of its training images"):
        load_audit(networks)
    index = make_index(networks, paths[:30], paths[30:])
    (tmp_path / "wide").mkdir()
    wide = _with_index(networks, {**index, "index": index["index"][:, 1:]}, tmp_path / "wide")
    with pytest.raises(ModelError, match="does not fit"):
        load_audit(wide)
    (tmp_path / "zero").mkdir()
    zero = _with_index(networks, {**index, "limit": torch.zeros(1)}, tmp_path / "zero")
    with pytest.raises(ModelError, match="not positive"):
        load_audit(zero)
    assert set(load_state(wide.folder, "audit")) == set(index)
