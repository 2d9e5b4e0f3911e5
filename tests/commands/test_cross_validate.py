"""`mhvae cross-validate`: folds kept apart, cut and gone on with, figures recomputed by hand."""

import csv
import json
import shutil
import signal
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mhvae_cli.checkpoints.folder import read_config
from mhvae_cli.runs import console
from mhvae_cli.training import train as recipe
from mhvae_cli.training.datasets import Sample
from mhvae_cli.training.phantoms import write_phantoms

CONFIG: dict[str, Any] = {
    "model": {
        "image_size": 32,
        "z_dim": 4,
        "encoder": {"arch": "resnet18", "width": 0.125, "hidden": 16, "reduce": 4},
        "decoder": {"channels": 8, "max_size": 32},
    },
    "train": {"epochs": 1, "batch_size": 4, "val_fraction": 0.3},
}
SIDE = 48


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve phantoms of 48 x 64 px in the four folds of index.csv."""
    folder = tmp_path_factory.mktemp("data") / "heads"
    write_phantoms(folder, "fetal-head", 12, size=(SIDE, 64))
    return folder


@pytest.fixture
def cross(mhvae: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """cross(data, out, *options, **train): the command with the tiny configuration."""

    def run(data: Path, out: Path, *options: object, **train: Any) -> Any:
        config = tmp_path / "config.json"
        config.write_text(json.dumps({**CONFIG, "train": {**CONFIG["train"], **train}}))
        fixed = ("--preset", "small", "--config", config, "--device", "cpu", "--dtype", "float32")
        return mhvae("cross-validate", "--data", data, "--out", out, *fixed, *options)

    return run


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The ids that each data set was read for, in turn: to train on, to choose on, fold by fold."""
    seen: list[list[str]] = []

    class Seen(recipe.MaskedImages):
        def __init__(self, samples: list[Sample], **options: Any) -> None:
            seen.append([sample.id for sample in samples])
            super().__init__(samples, **options)

    monkeypatch.setattr(recipe, "MaskedImages", Seen)
    return seen


def _index(data: Path, rows: dict[str, str], columns: str) -> None:
    (data / "index.csv").write_text(f"id,{columns}\n" + "".join(f"{i},{text}\n" for i, text in rows.items()))


def _ids(data: Path) -> list[str]:
    return sorted(path.stem for path in (data / "images").iterdir())


def _mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) > 0


def _figures(
    data: Path, out: Path, folds: dict[str, int], chosen: list[int]
) -> tuple[list[float], list[float]]:
    """Each fold's mean Dice, and IoU, of the masks on disk, in native pixels."""
    dices, ious = [], []
    for fold in chosen:
        ids = [i for i in folds if folds[i] == fold]
        assert {path.stem for path in (out / f"fold{fold}-masks").iterdir()} == set(ids)
        pairs = [
            (_mask(out / f"fold{fold}-masks" / f"{i}.png"), _mask(data / "masks" / f"{i}.png")) for i in ids
        ]
        assert all(found.shape == (SIDE, 64) for found, _ in pairs)
        dices.append(statistics.mean(2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs))
        ious.append(statistics.mean((a & b).sum() / (a | b).sum() for a, b in pairs))
    return dices, ious


def test_the_figures_are_mean_and_population_sd_over_the_folds(
    heads: Path, cross: Any, parts: list[list[str]], tmp_path: Path
) -> None:
    out = tmp_path / "cv"
    ended = cross(heads, out, "--folds", 4, "--profile", "native", "--json", "-q")
    assert ended.code == 0, ended.stderr
    assert all("same mask for every image" in line for line in ended.stderr.splitlines())
    (line,) = ended.lines
    said = json.loads(line)
    folds = {i: number % 4 for number, i in enumerate(_ids(heads))}  # as index.csv has them
    dices, ious = _figures(heads, out, folds, [0, 1, 2, 3])
    assert said["profile"] == "native" and said["folds"] == [0, 1, 2, 3]
    for name, values in (("dice", dices), ("iou", ious)):
        assert said["summary"][name]["mean"] == pytest.approx(statistics.mean(values))
        assert said["summary"][name]["sd"] == pytest.approx(statistics.pstdev(values))
        assert said["summary"][name]["folds"] == 4
    assert statistics.pstdev(dices) > 0
    for fold in range(4):
        learnt, chosen = parts[2 * fold], parts[2 * fold + 1]
        tested = {i for i in folds if folds[i] == fold}
        assert set(learnt) | set(chosen) == set(folds) - tested and not set(learnt) & set(chosen)
        assert f"fold {fold} of 4 held out" in read_config(out / f"fold{fold}")["training"]["splits"]
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["id"]: int(row["fold"]) for row in rows} == folds
    mean = statistics.mean(float(row["dice"]) for row in rows if row["fold"] == "2")
    assert mean == pytest.approx(dices[2])


def test_a_fold_under_test_is_not_opened_before_its_model_is_done(
    heads: Path, cross: Any, tmp_path: Path
) -> None:
    """Its files are unreadable while its model is trained; the fault comes with the first test image."""
    data = tmp_path / "data"
    shutil.copytree(heads, data)
    for number, name in enumerate(_ids(data)):
        if number % 4 == 2:
            (data / "images" / f"{name}.png").write_text("no picture")
            (data / "masks" / f"{name}.png").write_text("no picture")
    channels = ["model", "channels"]
    config = tmp_path / "grey.json"
    config.write_text(json.dumps({**CONFIG, channels[0]: {**CONFIG["model"], channels[1]: 1}}))
    ended = cross(data, tmp_path / "cv", "--folds", 4, "--only", 2, "--config", config)
    assert ended.code == 4 and "0002.png" in ended.stderr
    assert (tmp_path / "cv" / "fold2" / "vae.safetensors").exists()


def test_folds_are_dealt_by_subject_where_index_has_another_number(
    heads: Path, cross: Any, parts: list[list[str]], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads, data)
    home = {name: f"s{number // 2}" for number, name in enumerate(_ids(data))}
    _index(data, {i: f"{s},{n // 2 % 2}" for n, (i, s) in enumerate(home.items())}, "subject,fold")
    ended = cross(data, tmp_path / "cv", "--folds", 3, "-q")
    assert ended.code == 0, ended.stderr
    tested = []
    for fold in range(3):
        ids = {path.stem for path in (tmp_path / "cv" / f"fold{fold}-masks").iterdir()}
        rest = set(parts[2 * fold] + parts[2 * fold + 1])
        assert ids and not {home[i] for i in ids} & {home[i] for i in rest}
        assert ids | rest == set(home)
        tested += ids
    assert sorted(tested) == sorted(home)
    ended = cross(data, tmp_path / "nine", "--folds", 9)
    assert ended.code == 2 and "too few subjects for 9 folds: 6" in ended.stderr


def test_it_goes_on_where_it_was_cut(
    heads: Path, cross: Any, parts: list[list[str]], tmp_path: Path, monkeypatch: Any
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "cut"
    only = ("--folds", 4, "--only", 0, "--only", 1)
    first = cross(heads, whole, *only, epochs=2)
    assert first.code == 0, first.stderr
    tell = console.TrainingProgress.__call__

    def told(teller: console.TrainingProgress, event: dict[str, Any]) -> None:
        tell(teller, event)
        if event.get("step") == 1 and (out / "fold0-masks").exists():
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(console.TrainingProgress, "__call__", told)
        ended = cross(heads, out, *only, epochs=2)
    assert ended.code == 143 and ended.lines == []
    assert ended.stderr.endswith("stopped in epoch 1; resume with the same command\n")
    kept = {path: path.stat().st_mtime_ns for path in out.glob("fold0*/**/*")}
    del parts[:]
    ended = cross(heads, out, *only, epochs=2)
    assert ended.code == 0 and ended.stdout == first.stdout
    assert len(parts) == 2  # fold 1 alone was read
    assert {path: path.stat().st_mtime_ns for path in out.glob("fold0*/**/*")} == kept
    for fold in (0, 1):
        names = (
            f"fold{fold}/vae.safetensors",
            *(f"fold{fold}-masks/{p.name}" for p in out.glob(f"fold{fold}-masks/*")),
        )
        assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in names)
    assert (whole / "results.csv").read_bytes() == (out / "results.csv").read_bytes()


def test_max_time_is_for_all_folds_together(heads: Path, cross: Any, tmp_path: Path) -> None:
    for epochs, where in ((2, " in epoch 1"), (1, "")):  # one step an epoch: that of fold 0 is always made
        out = tmp_path / str(epochs)
        ended = cross(heads, out, "--folds", 4, "--max-time", "0.001s", epochs=epochs)
        assert (ended.code, ended.lines) == (0, [])
        assert ended.stderr.endswith(f"stopped{where}; resume with the same command\n")
        assert (out / "fold0").exists() and not (out / "fold1").exists()


def test_runs_of_another_recipe_are_refused(heads: Path, cross: Any, tmp_path: Path) -> None:
    out = tmp_path / "cv"
    assert cross(heads, out, "--folds", 4, "--only", 3).code == 0
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    for options, train, named in [((), {"lr": 0.5}, "train.lr"), ((), {"epochs": 2}, "train.epochs")]:
        ended = cross(heads, out, "--folds", 4, *options, **train)
        assert ended.code == 7 and f"fold3: cannot resume: {named}" in ended.stderr and ended.lines == []
    ended = cross(heads, out, "--folds", 5, "--only", 3)
    assert ended.code == 7 and "cannot resume: data" in ended.stderr
    assert all(path.stat().st_mtime_ns == time for path, time in before.items() if "fold3" in path.parts[-2])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--folds", "4", "--only", "4"], "no fold 4 of 4"),
        (["--folds", "1"], "--folds"),
        (["--only", "-1"], "--only"),
        (["--max-time", "soon"], "--max-time"),
        (["--epochs", "3"], "--epochs"),
    ],
)
def test_options_that_make_no_sense(
    options: list[str], said: str, heads: Path, cross: Any, tmp_path: Path
) -> None:
    ended = cross(heads, tmp_path / "cv", *options)
    assert ended.code == 2 and said in ended.stderr
    assert not (tmp_path / "cv").exists()


def test_several_processes_share_folds_not_a_run(
    heads: Path, cross: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = cross(heads, tmp_path / "cv", "--folds", 4)
    assert ended.code == 2 and "--only" in ended.stderr


def test_the_table_names_what_it_shows(heads: Path, cross: Any, tmp_path: Path) -> None:
    ended = cross(heads, tmp_path / "cv", "--folds", 4, "--only", 0, "-q")
    assert ended.code == 0 and len(ended.stderr.splitlines()) <= 1  # it is hardly trained
    assert ended.lines[0].split() == ["paper256", "folds", "mean", "sd"]
    assert ended.lines[1].split()[:2] == ["dice", "1"] and ended.lines[1].split()[3] == "0.0000"
