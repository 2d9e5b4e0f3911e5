"""The models that ship, and the README's own commands, on the synthetic scans in examples/."""

import csv
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mhvae_cli.checkpoints.folder import read_config
from mhvae_cli.checkpoints.registry import MODELS, bundled
from mhvae_cli.cli import VERBS

ROOT = Path(__file__).parents[1]
MODELS_OF = {"heads": "fetal-head", "lesions": "skin-lesion"}
LEAST_DICE = {"heads": 0.95, "lesions": 0.85}


def test_both_models_ship_and_are_small() -> None:
    assert bundled() == ["fetal-head", "skin-lesion"]
    sizes = {path: path.stat().st_size for path in MODELS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) < 45e6
    assert sizes[MODELS / "imagenet" / "encoder.safetensors"] < 9e6


def test_the_encoder_names_its_licence_and_is_no_model(mhvae: Any, tmp_path: Path) -> None:
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for file in (MODELS / "imagenet").iterdir():
        assert any(file.relative_to(MODELS.parent).match(pattern) for pattern in packaged["mhvae_cli"])
    card = (MODELS / "imagenet" / "README.md").read_text()
    assert "license: apache-2.0" in card and "EfficientNet-Lite0" in card
    images = ROOT / "examples" / "heads" / "images"
    ended = mhvae("segment", images, "-m", "imagenet", "-o", f"{tmp_path}/out/")
    assert ended.code == 6 and len(ended.stderr.splitlines()) == 2
    assert "imagenet: an encoder's weights, not a model" in ended.stderr
    assert "train-vae --from imagenet" in ended.stderr


@pytest.mark.parametrize(
    ("name", "licence", "source"),
    [("fetal-head", "CC BY 4.0", "van den Heuvel"), ("skin-lesion", "CC BY-NC-SA 4.0", "Tschandl")],
)
def test_a_model_names_its_licence_its_source_and_its_making(name: str, licence: str, source: str) -> None:
    config, card = read_config(MODELS / name), (MODELS / name / "README.md").read_text()
    assert config["name"] == name and config["card"]["license"] == licence
    assert source in card and "mhvae train-vae" in card and "not a medical device" in card
    assert config["figures"]["held-out fold"]["images"] > 100


@pytest.mark.parametrize("folder", MODELS_OF)
def test_the_models_find_the_objects_of_the_examples(folder: str, mhvae: Any, tmp_path: Path) -> None:
    scans = ROOT / "examples" / folder
    options = ["-m", MODELS_OF[folder], "-o", f"{tmp_path}/out/", "--offline"]
    ended = mhvae("segment", scans / "images", *options)
    assert ended.code == 0, ended.stderr
    scored = mhvae("evaluate", tmp_path / "out", scans / "masks", "--json")
    assert json.loads(scored.lines[0])["summary"]["dice"]["mean"] > LEAST_DICE[folder]


def readme_commands() -> list[str]:
    """README's command that installs and segments, then the example of each row of its table of verbs."""
    text = (ROOT / "README.md").read_text()
    install = text.split("## Install", 1)[1].split("```")[1].strip()
    rows = re.findall(r"^\| `[a-z-]+` \|.*\|$", text.split("## Use", 1)[1].split("## ", 1)[0], re.MULTILINE)
    return [install, *(row.split("`")[-2] for row in rows)]


@pytest.mark.parametrize("name", MODELS_OF.values())
def test_a_sample_of_each_model_is_audited(name: str, mhvae: Any, tmp_path: Path) -> None:
    out = tmp_path / "sampled"
    ended = mhvae("sample", "-m", name, "-n", 1, "--no-refine", "--audit", "-o", f"{out}/", "--device", "cpu")
    assert ended.code == 0, ended.stderr
    with open(out / "results.csv", newline="") as file:
        [row] = csv.DictReader(file)
    assert float(row["training_distance"]) > 0


def test_the_readme_shows_commands_that_work(
    mhvae: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    first, *table = readme_commands()
    assert first.startswith("pip install . && mhvae segment ")
    assert [line.split()[1] for line in table] == list(VERBS)
    lines = [first.partition("&& ")[2], *(line for line in table if "--data DIR" not in line)]
    verbs = (
        "segment segment evaluate reconstruct swap-style interpolate warp sample status inspect models doctor"
    )
    lines = [shlex.split(line)[1:] for line in lines]
    assert [words[0] for words in lines] == verbs.split()
    for words in lines:
        found = [sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in words]
        ended = mhvae(*(word for group in found for word in group))
        assert ended.code == 0, ended.stderr
    assert len(list(Path("masks").glob("head*.png"))) == 4
    assert len(list(Path("lesions").glob("*__overlay.png"))) == 4
    assert Path("warped/head0__rot45_scale0.7_mask.png").exists()
    assert len(list(Path("set/masks").glob("sample_s0_*.png"))) == 4
