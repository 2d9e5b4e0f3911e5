"""A model's name finds its folder, and a name that finds none is answered with help."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from support.model_folders import refused

from mhvae_cli.checkpoints import registry
from mhvae_cli.checkpoints.registry import bundled, load_pretrained, resolve


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two bundled models."""
    for name in ("fetal-head", "skin-lesion"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    monkeypatch.setattr(registry, "MODELS", tmp_path / "models")
    return tmp_path / "models"


def test_names_then_folders(shelf: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert bundled() == ["fetal-head", "skin-lesion"]
    assert resolve("fetal-head") == shelf / "fetal-head"
    assert resolve(folder) == resolve(f"{folder}/") == folder
    monkeypatch.chdir(folder.parent)
    assert resolve("./heads").samefile(folder)
    (folder.parent / "fetal-head").mkdir()
    assert resolve("fetal-head") == shelf / "fetal-head"  # a bundled name wins
    refused("no config.json", resolve, "./fetal-head")


def test_unknown_names_are_helped(shelf: Path, folder: Path):
    assert "'fetal-head'" in refused("no model 'fetal-haed'", resolve, "fetal-haed").hint
    hint = refused("no model 'xyz'", resolve, "xyz").hint
    assert "fetal-head, skin-lesion" in hint and "ORG/NAME" in hint
    for ref in ("", "a/b/c", "no such place/", "lab/heads@"):
        refused("no model", resolve, ref)
    assert str(folder) in refused("not a model folder", resolve, folder / "vae.safetensors").hint


def test_pretrained_weights_from_a_file(tmp_path: Path):
    path = tmp_path / "resnet50.safetensors"
    path.write_bytes(save({"conv1.weight": torch.ones(1, 3, 7, 7, dtype=torch.float16)}))
    state = load_pretrained(path)
    assert state["conv1.weight"].dtype == torch.float16 and state["conv1.weight"].sum() == 147
    for ref in (tmp_path, tmp_path / "none.safetensors", "weights/none.safetensors"):
        refused("no weights", load_pretrained, ref)
