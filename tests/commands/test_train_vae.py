"""`mhvae train-vae` from the command line: data refused, runs cut and resumed, what RUN/ holds in the end."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.training_runs import (
    cut_by_a_signal,
    cut_by_max_time,
    log_rows,
    refused_to_resume,
    same_run,
    signal_at,
    write_json,
)
from support.two_processes import two_processes

from mhvae_cli.checkpoints.folder import read_config
from mhvae_cli.checkpoints.tensors import load_tensors, save_state
from mhvae_cli.config import merge
from mhvae_cli.runs import console
from mhvae_cli.training.phantoms import write_phantoms

CONFIG: dict[str, Any] = {
    "model": {
        "image_size": 32,
        "z_dim": 4,
        "encoder": {"arch": "resnet18", "width": 0.125, "hidden": 16, "reduce": 4},
        "decoder": {"channels": 8, "max_size": 32},
    },
    "train": {"epochs": 4, "batch_size": 4, "val_fraction": 0.2, "loss": {"contour": 20.0}},
}
LOSSES = ["loss", "recon", "kl_z", "dice", "kl_theta", "contour"]
FIGURES = ["val_recon", "val_dice", "val_hd", "follows", "score"]


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve grey phantoms, 48 x 64 px, in four folds: ten to train on, two to choose on."""
    folder = tmp_path_factory.mktemp("data") / "heads"
    write_phantoms(folder, "fetal-head", 12, size=(48, 64))
    return folder


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(CONFIG))
    return path


@pytest.fixture
def train(mhvae: Callable[..., Any], config: Path) -> Iterator[Callable[..., Any]]:
    """train(data, out, *options): the command with the tiny configuration, on the CPU in float32.

    On one thread, as `done`: sums over threads come out in another order.
    """
    import torch

    def run(data: Path, out: Path, *options: object, config: Path = config) -> Any:
        fixed = ("--preset", "small", "--config", config, "--device", "cpu", "--dtype", "float32")
        return mhvae("train-vae", "--data", data, "--out", out, *fixed, *options)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def done(heads: Path, config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, by a process of its own."""
    out = tmp_path_factory.mktemp("runs") / "run"
    ended = subprocess.run(_command(heads, out, config), capture_output=True, text=True, env=_env())
    assert (ended.returncode, ended.stdout) == (0, f"{out}\n"), ended.stderr
    return out


def _command(data: Path, out: Path, config: Path, *options: str) -> list[str]:
    fixed = ["--preset", "small", "--config", str(config), "--device", "cpu", "--dtype", "float32"]
    return [
        sys.executable,
        "-m",
        "mhvae_cli",
        "train-vae",
        "--data",
        str(data),
        "--out",
        str(out),
        *fixed,
        *options,
    ]


def _env() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def _with(**changes: Any) -> dict[str, Any]:
    """CONFIG with changed `train` values."""
    return {**CONFIG, "train": {**CONFIG["train"], **changes}}


# --- what a run leaves ---


def test_a_run_ends_as_a_model_folder(done: Path) -> None:
    names = {"README.md", "SHA256SUMS", "config.json", "vae.safetensors", "state.safetensors"}
    assert {path.name for path in done.iterdir()} == names | {"log.csv", "sheets"}
    content = read_config(done)
    assert content["kind"] == "mhvae" and content["name"] == "run"
    assert content["model"]["channels"] == 1 and content["model"]["image_size"] == 32
    best = max(log_rows(done), key=lambda row: float(row["smoothed"]))
    kept = content["figures"]["validation"]
    assert kept["epoch"] == int(best["epoch"])
    assert kept["val_dice"] == pytest.approx(float(best["val_dice"]), rel=1e-5)


def test_the_log_has_a_row_an_epoch_of_losses_and_figures(done: Path) -> None:
    rows = log_rows(done)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    names = list(rows[0])
    assert names[:8] == ["epoch", "seconds", *LOSSES] and set(FIGURES) < set(names)
    for row in rows:
        assert 0 < float(row["val_dice"]) <= 1 and 0 < float(row["val_hd"]) < 363
        score = float(row["val_dice"]) - float(row["val_hd"]) / 256 - (float(row["follows"]) < 0.25)
        assert float(row["score"]) == pytest.approx(score, abs=1e-4)
        parts = {name: float(row[name]) for name in LOSSES}
        whole = parts["recon"] + 1 - parts["dice"] + 20 * parts["contour"]  # the KL is warmed up from nothing
        assert whole < parts["loss"] < whole + 1e-4 * (parts["kl_z"] + parts["kl_theta"]) + 1e-3


def test_the_sheets_open(done: Path) -> None:
    sheets = sorted((done / "sheets").iterdir())
    names = ["curves.png", *(f"epoch{epoch:04}.png" for epoch in (1, 2, 3, 4)), "worst.png"]
    assert [sheet.name for sheet in sheets] == names
    with Image.open(sheets[-2]) as picture:
        assert picture.mode == "RGB" and picture.width > 4 * 100
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50


def test_the_card_says_what_the_run_was(done: Path) -> None:
    card = (done / "README.md").read_text()
    assert card.startswith("---\nlicense: ")
    assert "12 images of 12 subjects from heads" in card
    assert "trained on 10 images of 10 subjects, validated on 2 images of 2 subjects" in card
    assert "### Validation" in card and "| Dice | " in card and "type: dice" in card
    assert "not stated: all rights reserved" in card
    assert "mhvae train-vae --data" in card


def test_the_model_loads_and_segments(
    done: Path, heads: Path, tmp_path: Path, mhvae: Callable[..., Any]
) -> None:
    from mhvae_cli import Pipeline

    image = heads / "images" / "fetal-head_0000.png"
    found = Pipeline.load(done, device="cpu", dtype="float32").segment(image)
    assert found.mask.shape == (48, 64) and found.mask.any()
    ended = mhvae("segment", image, "-m", done, "-o", f"{tmp_path}/", "--device", "cpu", "--dtype", "float32")
    assert ended.code == 0, ended.stderr
    assert np.array_equal(np.asarray(Image.open(tmp_path / "fetal-head_0000.png")) > 0, found.mask)


def test_the_same_command_gives_the_same_bytes(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    ended = train(heads, tmp_path / "run", "--workers", "0", "-q")
    assert (ended.code, ended.lines) == (0, [f"{tmp_path}/run"])
    assert all(line.startswith("warning: ") for line in ended.stderr.splitlines())
    same_run(done, tmp_path / "run")


def test_lines_go_to_stderr_and_only_the_folder_to_stdout(heads: Path, train: Any, tmp_path: Path) -> None:
    ended = train(heads, tmp_path / "run", "--epochs", 1, "--progress", "off")
    assert ended.lines == [f"{tmp_path}/run"]
    assert "\r" not in ended.stderr and "\x1b" not in ended.stderr
    said = ended.stderr.splitlines()
    assert said[0] == "reading 12 images"
    assert said[1].startswith("training on 10 images of 10 subjects, validating on 2 images of 2 subjects; ")
    assert said[2].startswith("epoch 1 of 1, 0:0") and "val_dice" in said[2] and said[2].endswith("(best)")


def test_a_bar_is_drawn_on_request_and_wiped(
    heads: Path, train: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    clock = iter(range(100_000))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    signal_at(monkeypatch, 3)
    ended = train(heads, tmp_path / "run", "--progress", "on")
    assert "\r\x1b[Kepoch 1: step 2 of 8, loss " in ended.stderr and " left" in ended.stderr
    assert ended.stderr.endswith("\r\x1b[Kstopped in epoch 2; resume with --resume\n")


# --- cut and resumed ---


@pytest.mark.parametrize(("step", "number"), [(3, signal.SIGTERM), (4, signal.SIGINT)])
def test_a_signal_leaves_a_state_and_resume_ends_with_the_same_bits(
    step: int, number: int, done: Path, heads: Path, train: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    ended = cut_by_a_signal(train, heads, tmp_path / "run", monkeypatch, step, number)
    assert ended.stderr.count("epoch ") == (3 if step == 3 else 2)
    same_run(done, tmp_path / "run")


def test_max_time_ends_well_and_goes_on(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    cut_by_max_time(train, heads, tmp_path / "run", "vae.safetensors")
    same_run(done, tmp_path / "run")


@pytest.mark.parametrize("text", ["soon", "-1", "0s", "nan", "inf", ""])
def test_a_time_that_is_none_is_a_usage_error(text: str, heads: Path, train: Any, tmp_path: Path) -> None:
    ended = train(heads, tmp_path / "run", "--max-time", text)
    assert ended.code == 2 and "--max-time" in ended.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_real_signal_ends_the_process_cleanly(
    number: int, code: int, heads: Path, config: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        _command(heads, out, config, "--epochs", "5000"), stdout=-1, stderr=-1, text=True, env=_env()
    )
    try:
        while not (out / "log.csv").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        said, told = process.communicate(timeout=300)
    finally:
        process.kill()
    assert (process.returncode, said) == (code, ""), told
    assert "Traceback" not in told and told.splitlines()[-1].endswith("resume with --resume")
    assert load_tensors(out / "state.safetensors")
    assert not list(out.rglob("*.part"))


def test_resume_of_nothing_is_a_usage_error(heads: Path, train: Any, tmp_path: Path) -> None:
    ended = train(heads, tmp_path / "run", "--resume")
    assert ended.code == 2 and "nothing to resume" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_is_refused(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*")}
    ended = train(heads, done)
    assert ended.code == 7 and "not empty" in ended.stderr and "--resume" in ended.stderr
    assert {path: path.stat().st_mtime_ns for path in done.rglob("*")} == before
    (tmp_path / "file").write_text("")
    assert train(heads, tmp_path / "file").code == 7


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--lr", "0.1"], "train.lr was 0.0005, is now 0.1"),
        (["--image-size", "64"], "model.image_size was 32, is now 64"),
        (["--epochs", "9"], "train.epochs was 4, is now 9"),
        (["--hold-out", "1"], "data was "),
        (["--reference", "MASK"], "reference was None"),
        (["--from", "imagenet"], "start was scratch, is now imagenet"),
    ],
)
def test_resume_names_what_differs(
    options: list[str], named: str, done: Path, heads: Path, train: Any
) -> None:
    mask = str(heads / "masks" / "fetal-head_0000.png")
    ended = train(heads, done, "--resume", *[mask if option == "MASK" else option for option in options])
    refused_to_resume(ended, named)


def test_resume_of_a_finished_run_only_says_so(done: Path, heads: Path, train: Any) -> None:
    before = (done / "state.safetensors").read_bytes()
    ended = train(heads, done, "--resume")
    assert (ended.code, ended.lines) == (0, [str(done)])
    assert (done / "state.safetensors").read_bytes() == before


def test_a_damaged_state_is_one_line(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(done, out)
    state = out / "state.safetensors"
    state.write_bytes(state.read_bytes()[:5000])
    ended = train(heads, out, "--resume")
    assert ended.code == 6 and "state.safetensors" in ended.stderr and len(ended.stderr.splitlines()) <= 2
    save_state(state, {}, {})
    ended = train(heads, out, "--resume")
    assert ended.code == 7 and "not a training state" in ended.stderr


def test_nan_ends_in_one_line_and_keeps_what_is_good(
    done: Path, heads: Path, train: Any, tmp_path: Path
) -> None:
    bad = write_json(tmp_path / "bad.json", _with(lr=1e30, lr_warmup=0.0))
    ended = train(heads, tmp_path / "run", "--progress", "off", config=bad)
    assert ended.code == 8 and ended.lines == []
    faults = [line for line in ended.stderr.splitlines() if line.startswith(("error:", "hint:"))]
    assert len(faults) == 2 and " no" in faults[0] and "epoch 1" in faults[0] and "--lr" in faults[1]
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"state.safetensors", "sheets"}
    load_tensors(tmp_path / "run" / "state.safetensors")  # refuses NaN


# --- the data ---


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no mask", "fetal-head_0003 (no mask)"),
        ("no image", "extra (no image)"),
        ("empty", "fetal-head_0003.png: empty mask"),
        ("inverted", "fetal-head_0003.png: inverted mask: it covers the background, not the object"),
        ("nan", "fetal-head_0003.tif: no pixel has a finite value"),
        ("odd", "fetal-head_0003.png: 20 x 10 px, but its image is 64 x 48 px"),
        ("text", "fetal-head_0003.png"),
        ("no folder", "no files in"),
    ],
)
def test_bad_data_is_named_before_anything_is_made(
    fault: str, said: str, heads: Path, train: Any, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads, data)
    mask = data / "masks" / "fetal-head_0003.png"
    if fault == "no mask":
        mask.unlink()
    elif fault == "no image":
        shutil.copy(mask, data / "masks" / "extra.png")
    elif fault == "text":
        mask.write_text("not a picture")
    elif fault == "no folder":
        shutil.rmtree(data / "images")
    elif fault == "inverted":
        ImageOps.invert(Image.open(mask).convert("L")).save(mask)
    elif fault == "nan":
        (data / "images" / mask.name).unlink()
        Image.fromarray(np.full((48, 64), np.nan, np.float32)).save(data / "images" / "fetal-head_0003.tif")
    else:
        Image.new("L", (20, 10) if fault == "odd" else (64, 48), 0 if fault == "empty" else 255).save(mask)
    ended = train(data, tmp_path / "run")
    assert ended.code == 4 and ended.lines == []
    assert said in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


def test_full_masks_are_named_and_used(heads: Path, train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads, data)
    for number in (3, 7):
        Image.new("L", (64, 48), 255).save(data / "masks" / f"fetal-head_000{number}.png")
    ended = train(data, tmp_path / "run", "--epochs", 1, "--quiet")
    assert ended.code == 0, ended.stderr
    warning = ended.stderr.splitlines()[0]
    assert warning.startswith("warning: ") and warning.endswith(
        "(and 1 more): the mask covers the whole image"
    )


def test_one_subject_is_too_few(heads: Path, train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads, data)
    names = [path.stem for path in (data / "images").iterdir()]
    (data / "index.csv").write_text("id,subject\n" + "".join(f"{name},one\n" for name in names))
    ended = train(data, tmp_path / "run")
    assert ended.code == 4 and "too few subjects: 12 images of 1 subject" in ended.stderr


def _colour(folder: Path, size: tuple[int, int] = (48, 64)) -> Path:
    write_phantoms(folder, "skin-lesion", 6, size=size)
    return folder


def test_colour_and_grey_are_told_apart(heads: Path, train: Any, tmp_path: Path) -> None:
    colour = _colour(tmp_path / "colour")
    train(colour, tmp_path / "rgb", "--epochs", 1)
    assert read_config(tmp_path / "rgb")["model"]["channels"] == 3
    train(colour, tmp_path / "grey", "--epochs", 1, "--channels", 1)
    assert read_config(tmp_path / "grey")["model"]["channels"] == 1
    for path in (colour / "images").iterdir():  # grey pictures in files of three channels
        Image.open(path).convert("L").convert("RGB").save(path)
    train(colour, tmp_path / "equal", "--epochs", 1)
    assert read_config(tmp_path / "equal")["model"]["channels"] == 1
    assert train(heads, tmp_path / "two", "--channels", 2).code == 2


def test_several_folders_train_one_model(heads: Path, train: Any, tmp_path: Path) -> None:
    colour = _colour(tmp_path / "lesions", (40, 40))
    twin = tmp_path / "twin" / "heads"
    shutil.copytree(heads, twin)
    ended = train(heads, tmp_path / "run", "--data", colour, "--epochs", 1)
    assert ended.code == 0 and ended.stderr.startswith("reading 18 images")
    assert "18 images of 18 subjects from heads, lesions" in (tmp_path / "run" / "README.md").read_text()
    ended = train(heads, tmp_path / "no", "--data", twin)
    assert ended.code == 2 and "two data folders have the same name" in ended.stderr


def test_a_subject_never_straddles(heads: Path, tmp_path: Path, monkeypatch: Any, train: Any) -> None:
    from mhvae_cli.training import train as recipe

    data, seen = tmp_path / "data", []
    shutil.copytree(heads, data)
    ids = sorted(path.stem for path in (data / "images").iterdir())
    home = {name: f"patient{i % 5}" for i, name in enumerate(ids)}
    (data / "index.csv").write_text("id,subject\n" + "".join(f"{i},{s}\n" for i, s in home.items()))

    class Seen(recipe.MaskedImages):
        def __init__(self, samples: Any, **options: Any) -> None:
            seen.append({home[s.id] for s in samples})
            super().__init__(samples, **options)

    monkeypatch.setattr(recipe, "MaskedImages", Seen)
    assert train(data, tmp_path / "run", "--epochs", 1).code == 0
    learnt, chosen = seen
    assert learnt and chosen and not learnt & chosen and learnt | chosen == set(home.values())


def test_a_fold_held_out_is_never_opened(heads: Path, train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads, data)
    with (data / "index.csv").open() as file:
        held = [row["id"] for row in csv.DictReader(file) if row["fold"] == "2"]
    for name in held:
        for kind in ("images", "masks"):
            (data / kind / f"{name}.png").write_text("unreadable")
    assert train(data, tmp_path / "all").code == 4
    ended = train(data, tmp_path / "run", "--hold-out", 2, "--epochs", 1)
    assert ended.code == 0 and ended.stderr.startswith("reading 9 images")
    assert "fold 2 held out; trained on" in (tmp_path / "run" / "README.md").read_text()
    ended = train(data, tmp_path / "none", "--hold-out", 7)
    assert ended.code == 2 and "no fold 7" in ended.stderr


def test_a_subject_in_two_folds_is_refused(heads: Path, train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads, data)
    ids = sorted(path.stem for path in (data / "images").iterdir())
    rows = "".join(f"{name},s{i // 2},{i % 4}\n" for i, name in enumerate(ids))
    (data / "index.csv").write_text("id,subject,fold\n" + rows)
    ended = train(data, tmp_path / "run", "--hold-out", 0)
    assert ended.code == 4 and "more than one fold" in ended.stderr and "s0" in ended.stderr


# --- the recipe ---


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trian": {}}, "trian"),
        ({"train": {"epoch": 3}}, "train.epoch"),
        ({"model": {"encoder": {"depth": 3}}}, "model.encoder.depth"),
        ({"train": {"lr": "fast"}}, "train.lr"),
        ({"train": {"epochs": 0}}, "train.epochs"),
        ({"train": {"lr": float("nan")}}, "train.lr"),
        ({"model": {"channels": 2}}, "model.channels"),
        ({"model": {"reference": 64}}, "--reference"),
        ({"model": {"image_size": 40, "encoder": {"arch": "resnet50-vit-b16"}}}, "multiple of 16"),
        ({"train": {"val_fraction": 1.5}}, "train.val_fraction"),
        ([], "not a JSON object"),
    ],
)
def test_a_configuration_is_strict(values: Any, said: str, heads: Path, train: Any, tmp_path: Path) -> None:
    ended = train(heads, tmp_path / "run", config=write_json(tmp_path / "bad.json", values))
    assert ended.code == 2 and said in ended.stderr
    assert not (tmp_path / "run").exists()


def test_flags_win_over_the_file_and_the_file_over_the_preset(
    heads: Path, train: Any, tmp_path: Path
) -> None:
    given = _with(epochs=9, lr=0.25)
    given["card"] = {"license": "CC BY 4.0", "attribution": "A. Uthor"}
    options = ["--epochs", 1, "--warp", "affine", "--license", "MIT", "--name", "mine", "--seed", 5]
    ended = train(heads, tmp_path / "run", *options, config=write_json(tmp_path / "given.json", given))
    assert ended.code == 0, ended.stderr
    content = read_config(tmp_path / "run")
    assert content["training"]["epochs"] == 1 and content["training"]["lr"] == 0.25
    assert content["training"]["seed"] == 5 and content["training"]["clip"] == 1.0
    assert content["model"]["warp"]["family"] == "affine" and content["name"] == "mine"
    card = (tmp_path / "run" / "README.md").read_text()
    assert "license: mit" in card and "A. Uthor" in card and "# mine" in card


def test_numbers_that_make_no_model_is_a_usage_error(heads: Path, train: Any, tmp_path: Path) -> None:
    values = {**CONFIG, "model": {**CONFIG["model"], "z_dim": 4, "encoder": {"reduce": -1}}}
    ended = train(heads, tmp_path / "run", config=write_json(tmp_path / "bad.json", values))
    assert ended.code == 2 and "model.encoder.reduce = -1: must be 1 to 65536" in ended.stderr
    assert not (tmp_path / "run").exists()


# --- where it starts ---


def _resnet(path: Path, channels: int = 3, width: int = 8) -> dict[str, Any]:
    """A ResNet18's weights under torchvision's names, its classifier too."""
    import torch

    from mhvae_cli.vae.encoder import ResNet

    net = ResNet("resnet18", channels, width / 64)
    draw = torch.Generator().manual_seed(1)
    state = {
        k: torch.rand(v.shape, generator=draw) if v.is_floating_point() else v
        for k, v in net.state_dict().items()
    }
    state["fc.weight"] = torch.zeros(1000, 8 * width)
    save_state(path, state, {})
    return state


def _start(out: Path) -> dict[str, Any]:
    """The weights before the first step, from the run's first state."""
    return {
        k[12:]: v for k, v in load_tensors(out / "state.safetensors").items() if k.startswith("model.model.")
    }


FROZEN = ("--lr", "1e-30", "--max-time", "0.001s")  # one step that moves nothing


def test_imagenet_weights_are_adapted_to_grey(heads: Path, train: Any, tmp_path: Path) -> None:
    given = _resnet(tmp_path / "resnet18.safetensors")
    still = write_json(tmp_path / "still.json", _with(weight_decay=0.0))
    ended = train(heads, tmp_path / "run", "--from", tmp_path / "resnet18.safetensors", *FROZEN, config=still)
    assert ended.code == 0, ended.stderr
    found = _start(tmp_path / "run")
    stem = found["encoder.convnet.conv1.weight"]
    assert stem.shape[1] == 1
    assert np.allclose(stem, given["conv1.weight"].sum(1, keepdim=True), rtol=1e-6)
    for name in ("layer2.0.downsample.0.weight", "layer4.1.bn2.weight"):
        assert np.array_equal(found[f"encoder.convnet.{name}"], given[name])


def test_weights_that_do_not_fit_are_a_model_error(heads: Path, train: Any, tmp_path: Path) -> None:
    _resnet(tmp_path / "wide.safetensors", width=16)
    (tmp_path / "old.pth").write_bytes(b"\x80\x04pickle")
    (tmp_path / "fake.safetensors").write_bytes(b"\x80\x04" + bytes(100))
    for name, said in [
        ("wide.safetensors", "do not match"),
        ("old.pth", "pickled"),
        ("fake.safetensors", "fake"),
    ]:
        ended = train(heads, tmp_path / "run", "--from", tmp_path / name)
        assert ended.code == 6 and said in ended.stderr, ended.stderr
        assert not (tmp_path / "run").exists()
    ended = train(heads, tmp_path / "run", "--from", tmp_path / "absent.safetensors")
    assert ended.code == 6 and "absent.safetensors" in ended.stderr


def test_a_whole_model_starts_where_it_ended(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    still = write_json(tmp_path / "still.json", _with(weight_decay=0.0))
    ended = train(heads, tmp_path / "run", "--from", done, *FROZEN, config=still)
    assert ended.code == 0, ended.stderr
    found, given = _start(tmp_path / "run"), load_tensors(done / "vae.safetensors")
    assert found.keys() == given.keys()
    for name, value in given.items():
        if "running" not in name and "tracked" not in name:  # a step moves the batch norms' statistics
            assert np.array_equal(found[name], value), name
    ended = train(heads, tmp_path / "more", "--from", done, "--epochs", 1)
    assert ", starting from run\n" in ended.stderr
    assert read_config(tmp_path / "more")["training"]["start"] == "starting from run"


def test_a_start_brings_its_configuration_unless_options_say_otherwise(
    done: Path, heads: Path, mhvae: Callable[..., Any], tmp_path: Path
) -> None:
    """Colour images too: the stem answers as before to grey ones, and heads of another shape begin anew."""
    colour = _colour(tmp_path / "colour")
    options = ("--from", done, "--image-size", 64, *FROZEN, "--epochs", 1, "--device", "cpu")
    ended = mhvae("train-vae", "--data", colour, "--out", tmp_path / "run", *options, "--dtype", "float32")
    assert ended.code == 0, ended.stderr
    assert ", starting from run, its position, style and image heads anew\n" in ended.stderr
    given = load_tensors(done / "vae.safetensors")
    found = _start(tmp_path / "run")
    stem = "encoder.convnet.conv1.weight"
    assert found[stem].shape == (8, 3, 7, 7)
    assert np.allclose(found[stem], given[stem].expand(-1, 3, -1, -1) / 3, rtol=1e-4, atol=1e-7)
    name = "encoder.convnet.layer2.0.conv1.weight"
    assert np.allclose(found[name], given[name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("start", "option", "said"),
    [
        ("fetal-head", ("--encoder", "resnet18"), "its encoder is efficientnet-lite0, not resnet18"),
        ("imagenet", ("--encoder", "resnet18"), "imagenet: the pretrained weights do not match"),
        ("no-such-model", (), "no model 'no-such-model'"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(
    start: str, option: tuple[str, ...], said: str, heads: Path, mhvae: Callable[..., Any], tmp_path: Path
) -> None:
    ended = mhvae("train-vae", "--data", heads, "--out", tmp_path / "run", "--from", start, *option)
    assert ended.code == 6 and said in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr and not (tmp_path / "run").exists()


def test_a_mask_can_be_the_reference(heads: Path, train: Any, tmp_path: Path) -> None:
    from mhvae_cli import Pipeline

    shape = np.zeros((60, 60), np.uint8)
    shape[15:45, 20:40] = 255
    Image.fromarray(shape).save(tmp_path / "box.png")
    ended = train(heads, tmp_path / "run", "--reference", tmp_path / "box.png", "--epochs", 1)
    assert ended.code == 0, ended.stderr
    assert read_config(tmp_path / "run")["model"]["reference"] == 256
    pipeline = Pipeline.load(tmp_path / "run", device="cpu", dtype="float32")
    warp = pipeline.networks.model.warp
    still = warp.theta_of(warp.identity[None]).numpy()[0]
    mask = pipeline.networks.mask(still, (60, 60))
    assert (mask != (shape > 0)).mean() < 0.01  # undeformed, it is the mask that was given
    Image.new("L", (9, 9)).save(tmp_path / "none.png")
    ended = train(heads, tmp_path / "no", "--reference", tmp_path / "none.png")
    assert ended.code == 4 and "none.png: empty mask" in ended.stderr


def test_a_single_headed_model_trains_and_finds_nothing(
    heads: Path, train: Any, tmp_path: Path, mhvae: Callable[..., Any]
) -> None:
    ended = train(heads, tmp_path / "run", "--single-head", "--epochs", 2)
    assert ended.code == 0, ended.stderr
    rows = log_rows(tmp_path / "run")
    assert not {"dice", "kl_theta", "val_dice"} & set(rows[0])
    assert float(rows[0]["score"]) == -float(rows[0]["val_recon"])
    Image.open(tmp_path / "run" / "sheets" / "epoch0001.png").load()
    image = heads / "images" / "fetal-head_0000.png"
    ended = mhvae("segment", image, "-m", tmp_path / "run", "-o", f"{tmp_path}/masks/", "--device", "cpu")
    assert ended.code == 6 and "single-headed" in ended.stderr and len(ended.stderr.splitlines()) <= 2
    assert not list(tmp_path.glob("masks/*.png"))


# --- without options ---


def test_without_options_a_run_says_what_it_chose_and_what_it_is_worth(
    heads: Path, mhvae: Callable[..., Any], tmp_path: Path
) -> None:
    """From the bundled encoder, cut to an epoch here: an affine warp, validation, worst images, advice."""
    out = tmp_path / "run"
    ended = mhvae("train-vae", "--data", heads, "--out", out, "--max-time", "0.1s", "--image-size", 64)
    assert ended.code == 0, ended.stderr
    assert ", starting from imagenet\n" in ended.stderr
    assert "affine warp, 64 px, 1 steps in 1 epochs: about 1 min" in ended.stderr
    content = read_config(out)
    assert content["training"]["part"] == "position" and content["model"]["tones"] == 32
    assert "ImageNet weights of EfficientNet-Lite0 (Apache-2.0)" in (out / "README.md").read_text()
    group = content["figures"]["validation, as segment does it"]
    assert group["images"] == 2 and 0 <= group["paper256"]["dice"] <= 1
    assert f"validation: Dice {group['paper256']['dice']:.3f}, HD " in ended.stderr
    assert "(of 2: this says little); worst: " in ended.stderr
    assert _openable(out / "sheets" / "worst.png") and _openable(out / "sheets" / "curves.png")
    again = mhvae("train-vae", "--data", heads, "--out", out, "--image-size", 64, "--resume")
    assert again.code == 0 and again.lines == [str(out)], again.stderr  # its length is the one it was given
    ended = mhvae("models", "verify", out)
    assert ended.code == 0, ended.stderr


def test_two_images_are_enough_to_begin(heads: Path, mhvae: Callable[..., Any], tmp_path: Path) -> None:
    data = tmp_path / "data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
        for number in (0, 1):
            name = f"fetal-head_000{number}.png"
            shutil.copy(heads / kind / name, data / kind / name)
    options = ("--epochs", 1, "--image-size", 64)
    ended = mhvae("train-vae", "--data", data, "--out", tmp_path / "run", *options)
    assert ended.code == 0, ended.stderr
    assert "training on 1 image of 1 subject, validating on 1 image of 1 subject" in ended.stderr
    assert "(of 1: this says little)" in ended.stderr


def test_a_model_that_ignores_its_image_is_warned_of(
    heads: Path, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mhvae_cli.training import validation

    monkeypatch.setattr(validation, "follows", lambda _model, _val: 0.01)
    ended = train(heads, tmp_path / "run", "--epochs", 1, "-q")
    assert ended.code == 0
    assert "predicts nearly the same mask for every image: do not use this model" in ended.stderr
    assert read_config(tmp_path / "run")["figures"]["validation"]["follows"] == 0.01
    assert "nearly the same mask" in (tmp_path / "run" / "README.md").read_text()


# --- position alone, without the image head ---


def test_position_alone_leaves_the_other_heads_to_the_bit(
    done: Path, heads: Path, train: Any, tmp_path: Path
) -> None:
    values = _with(part="position", epochs=2, augment={**CONFIG["train"].get("augment", {}), "crop": 0.5})
    config, out = write_json(tmp_path / "position.json", values), tmp_path / "run"
    ended = train(heads, out, "--from", done, config=config)
    assert ended.code == 0, ended.stderr
    before, after = load_tensors(done / "vae.safetensors"), load_tensors(out / "vae.safetensors")
    assert before.keys() == after.keys()
    for part, kept in (("encoder.z.", True), ("image_head.", True), ("encoder.theta.", False)):
        names = [name for name in before if name.startswith(part)]
        assert names and all(np.array_equal(before[n], after[n]) for n in names) == kept, part
    for row in log_rows(out):
        assert not {"recon", "kl_z", "val_recon", "moved_by_z"} & row.keys()
        assert 0 < float(row["val_crop_dice"]) <= 1 and float(row["val_crop_hd"]) > 0
        expected = float(row["val_dice"]) - float(row["val_hd"]) / 256 - (float(row["follows"]) < 0.25)
        assert abs(float(row["score"]) - expected) < 1e-4
    assert _openable(out / "sheets" / "epoch0001.png")


def _openable(path: Path) -> bool:
    with Image.open(path) as image:
        image.load()
        return min(image.size) > 1


# --- a part alone, with all else frozen ---


def test_the_boundary_head_alone_is_added_to_a_model(
    done: Path, heads: Path, train: Any, tmp_path: Path, mhvae: Callable[..., Any]
) -> None:
    """All else stays to the bit, and results move; a start with that head brings it along."""
    values = _with(part="boundary", epochs=2, lr=0.01, ema=0.5)
    values["model"] = {**values["model"], "boundary": True}
    config, out = write_json(tmp_path / "boundary.json", values), tmp_path / "run"
    ended = train(heads, out, "--from", done, config=config)
    assert ended.code == 0, ended.stderr
    assert "starting from run, its boundary head anew" in ended.stderr
    before, after = load_tensors(done / "vae.safetensors"), load_tensors(out / "vae.safetensors")
    added = after.keys() - before.keys()
    assert added and all(name.startswith("boundary_head.") for name in added)
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    assert all(float(row["loss"]) == float(row["boundary"]) for row in log_rows(out))
    found = []
    for name, model in (("before", done), ("after", out)):
        ended = mhvae("segment", heads / "images", "-m", model, "-o", f"{tmp_path / name}/")
        assert ended.code == 0, ended.stderr
        found.append([path.read_bytes() for path in sorted((tmp_path / name).glob("*.png"))])
    assert len(found[0]) == len(found[1]) == 12 and found[0] != found[1]
    ended = train(heads, tmp_path / "again", "--from", out, "--epochs", 1)
    assert ended.code == 0 and "starting from run\n" in ended.stderr, ended.stderr
    assert read_config(tmp_path / "again")["model"]["boundary"] is True


def _style(path: Path, *, model: dict[str, Any] | None = None, **train: Any) -> Path:
    """CONFIG for `train.part` = "style", with changed values."""
    values = _with(**{"part": "style", "epochs": 2, "lr": 0.01, "ema": 0.5, **train})
    return write_json(path, {**values, "model": merge(CONFIG["model"], model or {})})


def _is_style(name: str) -> bool:
    return name.startswith(("encoder.z.", "image_head."))


def test_style_alone_leaves_masks_to_the_bit(
    done: Path, heads: Path, train: Any, tmp_path: Path, mhvae: Callable[..., Any]
) -> None:
    out = tmp_path / "run"
    ended = train(heads, out, "--from", done, config=_style(tmp_path / "style.json"))
    assert ended.code == 0, ended.stderr
    before, after = load_tensors(done / "vae.safetensors"), load_tensors(out / "vae.safetensors")
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert np.array_equal(value, after[name]) != _is_style(name), name
    masks = []
    for model in (done, out):
        folder = tmp_path / f"masks-{model.parent.name}"
        ended = mhvae("segment", heads / "images", "-m", model, "-o", f"{folder}/", "--device", "cpu")
        assert ended.code == 0, ended.stderr
        masks.append({path.name: path.read_bytes() for path in folder.glob("*.png")})
    assert len(masks[0]) == 12 and masks[0] == masks[1]
    for row in log_rows(out):  # what the masks score is not what is chosen by
        assert float(row["score"]) == -float(row["val_recon"])
    assert len({row["val_dice"] for row in log_rows(out)}) == 1


def test_style_alone_is_resumed_to_the_bit(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    config = _style(tmp_path / "style.json", loss={"consistency": 0.5})
    whole, out = tmp_path / "whole", tmp_path / "cut"
    assert train(heads, whole, "--from", done, config=config).code == 0
    assert train(heads, out, "--from", done, "--max-time", "0.001s", config=config).code == 0
    assert not (out / "vae.safetensors").exists()
    assert train(heads, out, "--from", done, "--resume", config=config).code == 0
    same_run(whole, out)


def test_the_image_head_may_be_another(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    """What fits is kept; a decoder of another width begins anew."""
    config = _style(tmp_path / "style.json", model={"decoder": {"channels": 16}}, weight_decay=0.0)
    ended = train(heads, tmp_path / "run", "--from", done, *FROZEN, config=config)
    assert ended.code == 0, ended.stderr
    found, given = _start(tmp_path / "run"), load_tensors(done / "vae.safetensors")
    for name, value in given.items():
        assert name.startswith("image_head.") != np.array_equal(found[name], value), name


@pytest.mark.parametrize(
    "model", [{"encoder": {"width": 0.25}}, {"encoder": {"reduce": 8}}, {"warp": {"family": "affine"}}]
)
def test_what_finds_the_object_must_be_the_folders(
    model: dict[str, Any], done: Path, heads: Path, train: Any, tmp_path: Path
) -> None:
    config = _style(tmp_path / "style.json", model=model)
    ended = train(heads, tmp_path / "run", "--from", done, config=config)
    assert ended.code == 6 and len(ended.stderr.splitlines()) <= 3
    assert "does not match" in ended.stderr or "its encoder is" in ended.stderr
    assert not (tmp_path / "run").exists()


def test_a_single_head_starts_from_two(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    """The position's tensors are left out."""
    config = _style(tmp_path / "style.json", loss={"consistency": 0.5})
    ended = train(heads, tmp_path / "run", "--single-head", "--from", done, config=config)
    assert ended.code == 0, ended.stderr
    found, given = (load_tensors(run / "vae.safetensors") for run in (tmp_path / "run", done))
    left = {name for name in given if name.startswith(("warp.", "encoder.theta."))}
    assert left and found.keys() == given.keys() - left
    for name, value in found.items():
        assert np.array_equal(value, given[name]) != _is_style(name), name
    assert "consistency" in log_rows(tmp_path / "run")[0]
    two = _style(tmp_path / "two.json", model={"single_head": False})
    ended = train(heads, tmp_path / "back", "--from", tmp_path / "run", config=two)
    assert ended.code == 6 and "does not match" in ended.stderr  # there is no position to be had


def test_consistency_is_logged_and_falls(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    assert "consistency" not in log_rows(done)[0]
    config = _style(tmp_path / "style.json", epochs=20, lr=0.02, loss={"consistency": 1.0, "recon": 0.0})
    ended = train(heads, tmp_path / "run", "--from", done, config=config)
    assert ended.code == 0, ended.stderr
    lost = [float(row["consistency"]) for row in log_rows(tmp_path / "run")]
    assert np.mean(lost[-5:]) < 0.7 * np.mean(lost[:5])


def test_consistency_of_a_batch_of_one_is_a_number(
    done: Path, heads: Path, train: Any, tmp_path: Path
) -> None:
    config = _style(tmp_path / "style.json", epochs=1, batch_size=1, loss={"consistency": 1.0})
    ended = train(heads, tmp_path / "run", "--from", done, config=config)
    assert ended.code == 0, ended.stderr
    assert float(log_rows(tmp_path / "run")[0]["consistency"]) >= 0


# --- several processes ---


def test_two_processes_make_one_model(heads: Path, config: Path, train: Any, tmp_path: Path) -> None:
    """As torchrun starts them; the first alone writes and speaks. The same weights as one process makes."""
    options = ("--epochs", "2", "--image-size", "64", "--workers", "1")
    ends = two_processes(_command(heads, tmp_path / "two", config, *options))
    assert ends[0][0] == f"{tmp_path}/two\n" and ends[1] == ("", "")
    assert train(heads, tmp_path / "one", *options).code == 0
    first, second = (load_tensors(tmp_path / name / "state.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys() and float(first["optimizer.0.step"]) == 4
    for name, value in first.items():
        one, two = value.double(), second[name].double()
        assert float((one - two).norm()) <= 1e-3 * float(one.norm()) + 1e-9, name
    for row, other in zip(log_rows(tmp_path / "one"), log_rows(tmp_path / "two"), strict=True):
        for name in (*LOSSES, *FIGURES):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-3), name
