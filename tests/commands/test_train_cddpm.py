"""`mhvae train-cddpm` from the command line: the VAE left as it is, runs cut and resumed, what RUN/ holds."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.training_runs import (
    cut_by_a_signal,
    cut_by_max_time,
    log_rows,
    refused_to_resume,
    same_run,
    write_json,
)
from support.two_processes import two_processes

from mhvae_cli import Pipeline
from mhvae_cli.checkpoints.folder import load_state, read_config
from mhvae_cli.checkpoints.tensors import load_tensors
from mhvae_cli.config import DecoderConfig, EncoderConfig, ModelConfig, from_dict
from mhvae_cli.diffusion.density import KNOTS
from mhvae_cli.inference.loading import load_refiner
from mhvae_cli.training.datasets import discover, split
from mhvae_cli.training.phantoms import write_phantoms
from mhvae_cli.training.vae_task import ModelInfo, write_model
from mhvae_cli.vae.model import MultiHeadedVAE, build

CONFIG: dict[str, Any] = {
    "diffusion": {"unet": {"channels": 8, "levels": 2, "blocks": 1}},
    "train": {"epochs": 3, "batch_size": 4, "crop": 16, "crops": 2, "val_fraction": 0.2},
}
COLUMNS = ["epoch", "seconds", "loss", "val_loss", "scale", "score", "smoothed"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is HOME to `done`: the data, the configuration and the runs lie in it."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def heads(home: Path) -> Path:
    """Twelve grey phantoms without masks, 48 x 64 px, in four folds: ten to train on, two to choose on."""
    folder = home / "heads"
    write_phantoms(folder, "fetal-head", 12, size=(48, 64))
    shutil.rmtree(folder / "masks")
    return folder


@pytest.fixture(scope="module")
def config(home: Path) -> Path:
    return write_json(home / "tiny.json", CONFIG)


@pytest.fixture
def train(mhvae: Callable[..., Any], tiny_model: Path, config: Path) -> Iterator[Callable[..., Any]]:
    """train(data, out, *options): the command on the tiny model, on the CPU in float32, on one thread."""

    def run(
        data: Path, out: Path, *options: object, config: Path = config, model: object = tiny_model
    ) -> Any:
        fixed = ("--config", config, "--device", "cpu", "--dtype", "float32")
        return mhvae("train-cddpm", "--model", model, "--data", data, "--out", out, *fixed, *options)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def done(heads: Path, tiny_model: Path, config: Path, home: Path) -> Path:
    """A finished run, by a process of its own."""
    out = home / "run"
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": str(home)}
    command = _command(tiny_model, heads, out, config)
    ended = subprocess.run(command, capture_output=True, text=True, env=env)
    assert (ended.returncode, ended.stdout) == (0, f"{out}\n"), ended.stderr
    return out


def _command(model: Path, data: Path, out: Path, config: Path, *options: str) -> list[str]:
    places = ["--model", str(model), "--data", str(data), "--out", str(out), "--config", str(config)]
    fixed = ["--device", "cpu", "--dtype", "float32"]
    return [sys.executable, "-m", "mhvae_cli", "train-cddpm", *places, *fixed, *options]


def _with(where: str, /, **changes: Any) -> dict[str, Any]:
    """CONFIG with changed values in a part of it."""
    return {**CONFIG, where: {**CONFIG[where], **changes}}


def _vae(folder: Path, *, half: bool = False, vivid: float = 1.0, **given: Any) -> Path:
    """A model folder with random weights; its codes differ `vivid` times as much from image to image."""
    encoder = EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=16)
    decoder = DecoderConfig(channels=8, max_size=32)
    settings = ModelConfig(**{"image_size": 32, "z_dim": 4, "encoder": encoder, "decoder": decoder, **given})
    about = ModelInfo(folder.name, {"license": "mit", "data": "none"}, {"command": "mhvae train-vae"})
    model = build(settings, seed=1)
    for head in filter(None, (model.encoder.z, model.encoder.theta)):
        head[2].weight.data[: len(head[2].weight) // 2] *= vivid
    write_model(folder, settings, model.state_dict(), about, {}, half=half)
    return folder


def _loaded(folder: Path) -> MultiHeadedVAE:
    vae = build(from_dict(ModelConfig, read_config(folder)["model"])).eval()
    vae.load_state_dict(load_state(folder))
    return vae


def _pictures(folder: Path) -> torch.Tensor:
    """The images to train on, squashed to 32 px by Pillow, in [-1, 1]."""
    part, _ = split(discover(folder, masks=False), fraction=0.2, seed=0)
    pictures = [Image.open(sample.image).convert("L") for sample in part]
    squashed = [picture.resize((32, 32), Image.Resampling.BOX) for picture in pictures]
    return torch.from_numpy(np.stack([np.asarray(x, np.float32) for x in squashed]))[:, None] / 127.5 - 1


# --- what a run leaves ---


def test_a_run_ends_as_the_same_model_with_a_cddpm(done: Path, tiny_model: Path) -> None:
    names = {"README.md", "config.json", "vae.safetensors", "cddpm.safetensors", "state.safetensors"}
    names |= {"SHA256SUMS", "audit.safetensors", "log.csv", "sheets"}
    assert {path.name for path in done.iterdir()} == names
    content, before = read_config(done), read_config(tiny_model)
    assert content["name"] == "run" and content["cddpm"]["size"] == [48, 64]
    assert {k: content[k] for k in ("model", "training", "figures")} == {
        k: before[k] for k in ("model", "training", "figures")
    }
    best = max(log_rows(done), key=lambda row: float(row["smoothed"]))
    assert content["cddpm"]["validation"]["epoch"] == int(best["epoch"])
    assert content["cddpm"]["training"]["data"] == "12 images of 12 subjects from heads"
    assert "trained on 10 images of 10 subjects" in content["cddpm"]["training"]["splits"]


def test_the_vae_is_unchanged_to_the_bit(done: Path, tiny_model: Path) -> None:
    assert (done / "vae.safetensors").read_bytes() == (tiny_model / "vae.safetensors").read_bytes()


def test_a_vae_stored_in_half_precision_stays_so(heads: Path, train: Any, tmp_path: Path) -> None:
    model = _vae(tmp_path / "half", half=True)
    assert train(heads, tmp_path / "run", "--epochs", 1, model=model).code == 0
    assert (tmp_path / "run" / "vae.safetensors").read_bytes() == (model / "vae.safetensors").read_bytes()


def test_the_folder_refines(done: Path) -> None:
    x_hat = torch.zeros(2, 1, 32, 32)
    refiner = load_refiner(done)
    found = refiner.refine(x_hat, ["a", "b"], steps=5)
    assert found.shape == x_hat.shape and found.isfinite().all()
    assert (found - x_hat).std() > 0.2 * float(refiner.network.scale) and not torch.equal(found[0], found[1])


def test_the_log_has_a_row_an_epoch(done: Path) -> None:
    rows = log_rows(done)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"] and list(rows[0]) == COLUMNS
    for row in rows:
        assert float(row["score"]) == -float(row["val_loss"])
        assert 0.3 < float(row["loss"]) < 1.5  # nothing learnt is 1
    assert len({row["scale"] for row in rows}) == 1


def test_the_sheets_show_three_pictures_a_row(done: Path) -> None:
    sheets = sorted((done / "sheets").iterdir())
    names = ["curves.png", *(f"epoch{epoch:04}.png" for epoch in (1, 2, 3))]
    assert [sheet.name for sheet in sheets] == names
    with Image.open(sheets[-1]) as picture:
        assert picture.mode == "RGB" and 3 * 192 <= picture.width < 4 * 192 and picture.height >= 2 * 192
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 50


def test_nothing_names_the_home_directory(done: Path, home: Path) -> None:
    told = read_config(done)["cddpm"]["training"]["command"]
    assert told.startswith("mhvae train-cddpm --model ") and "--data ~/heads --out ~/run" in told
    for name in ("config.json", "README.md"):
        assert str(home) not in (done / name).read_text()


def test_scale_is_the_residuals_and_the_density_the_codes(heads: Path, train: Any, tmp_path: Path) -> None:
    """Recomputed from the files, with codes that are the posterior's means: its own spread is small."""
    model = _vae(tmp_path / "model", vivid=200)
    assert train(heads, tmp_path / "run", "--epochs", 1, model=model).code == 0
    vae, image, refiner = _loaded(model), _pictures(heads), load_refiner(tmp_path / "run")
    with torch.no_grad():
        codes = vae.encode(image)
        residual = image - vae.decode(codes)
    assert float(refiner.network.scale) == pytest.approx(float(residual.square().mean().sqrt()), rel=0.03)
    found = torch.cat([codes.z, codes.theta], dim=1)
    for knot, true in ((0, found.amin(0)), (len(KNOTS) // 2, found.median(0).values), (-1, found.amax(0))):
        assert ((refiner.codes_marginals[knot] - true).abs() < 0.1 + 0.5 * found.std(0)).all()
    assert found.std(0).max() > 5 * found.std(0).min() and found.mean(0).abs().max() > 1


def test_the_frames_of_the_images_come_with_the_model(train: Any, tmp_path: Path) -> None:
    """Forty phantoms under two masks of black: what of it they share is found, and is black in samples."""
    folder = tmp_path / "framed"
    write_phantoms(folder, "fetal-head", 40, size=(64, 64))
    for number, path in enumerate(sorted((folder / "images").iterdir())):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[pixels < 30] = 30  # no black of their own
        # Dark beside it, so that all are black up to the same row or column at half the size.
        pixels[np.s_[20] if number % 2 else np.s_[:, 49]] = 30
        pixels[np.s_[:20] if number % 2 else np.s_[:, 50:]] = 0
        Image.fromarray(pixels).save(path)
    ended = train(folder, tmp_path / "run", "--epochs", 1)
    assert ended.code == 0, ended.stderr
    frames = load_refiner(tmp_path / "run").frames
    assert frames is not None
    top, right = np.zeros((2, 32, 32), bool)
    top[:10], right[:, 25:] = True, True
    assert sorted((frames.masks ^ top).mean((1, 2)))[0] < 0.02
    assert sorted((frames.masks ^ right).mean((1, 2)))[0] < 0.02
    made = list(Pipeline.load(tmp_path / "run", device="cpu").sample(4, steps=3, size=(32, 32)))
    black = [(image.pixels == 0) for image in made]
    assert all((frames.masks & ~found).mean((1, 2)).min() < 0.01 for found in black)
    # A training that goes on from it has them, too.
    again = train(folder, tmp_path / "again", "--epochs", 1, model=tmp_path / "run")
    assert again.code == 0, again.stderr
    assert np.array_equal(load_refiner(tmp_path / "again").frames.masks, frames.masks)  # type: ignore[union-attr]


def test_without_normalising_the_scale_is_one(heads: Path, train: Any, tmp_path: Path) -> None:
    plain = write_json(tmp_path / "plain.json", _with("diffusion", normalise=False))
    assert train(heads, tmp_path / "run", "--epochs", 1, config=plain).code == 0
    assert float(load_refiner(tmp_path / "run").network.scale) == 1


def test_it_learns(heads: Path, train: Any, tmp_path: Path) -> None:
    long = write_json(tmp_path / "long.json", _with("train", epochs=15, lr=0.01, ema=0.9))
    ended = train(heads, tmp_path / "run", config=long)
    assert ended.code == 0, ended.stderr
    rows = log_rows(tmp_path / "run")
    losses = [float(row["val_loss"]) for row in rows]
    assert min(losses) < 0.75 * losses[0]
    best = max(rows, key=lambda row: float(row["smoothed"]))
    kept = read_config(tmp_path / "run")["cddpm"]["validation"]
    assert kept["val_loss"] == pytest.approx(float(best["val_loss"]), rel=1e-4)


def test_flags_win_over_the_file_and_the_card_is_the_vaes_but_for_them(
    heads: Path, train: Any, tmp_path: Path
) -> None:
    given = _with("train", lr=0.25)
    given["card"] = {"attribution": "A. Uthor"}
    options = ["--epochs", 1, "--license", "CC BY 4.0", "--name", "mine", "--seed", 5, "--crop", 0]
    ended = train(heads, tmp_path / "run", *options, config=write_json(tmp_path / "given.json", given))
    assert ended.code == 0, ended.stderr
    content = read_config(tmp_path / "run")
    made = content["cddpm"]["training"]
    assert (made["epochs"], made["lr"], made["seed"], made["crop"]) == (1, 0.25, 5, 0)
    assert content["name"] == "mine" and content["card"]["data"] == "none"
    card = (tmp_path / "run" / "README.md").read_text()
    assert "license: cc-by-4.0" in card and "A. Uthor" in card and "# mine" in card


# --- the same again ---


def test_the_same_command_gives_the_same_bits(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    ended = train(heads, tmp_path / "run", "--workers", "0", "-q")
    assert (ended.code, ended.lines, ended.stderr) == (0, [f"{tmp_path}/run"], "")
    same_run(done, tmp_path / "run")


def test_another_seed_is_another_run(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    assert train(heads, tmp_path / "run", "--seed", 1, "--epochs", 1).code == 0
    one, other = (load_state(out, "cddpm") for out in (done, tmp_path / "run"))
    name = "network.unet.enter.weight"
    assert float((one[name] - other[name]).abs().mean()) > 0.01


def test_masks_are_not_looked_at(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    data = tmp_path / "heads"
    shutil.copytree(heads, data)
    (data / "masks").mkdir()
    (data / "masks" / "fetal-head_0000.png").write_text("no picture")
    assert train(data, tmp_path / "run").code == 0
    same_run(done, tmp_path / "run")


# --- cut and resumed ---


@pytest.mark.parametrize(("step", "number"), [(3, signal.SIGTERM), (4, signal.SIGINT)])
def test_a_signal_leaves_a_state_and_resume_ends_with_the_same_bits(
    step: int, number: int, done: Path, heads: Path, train: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    cut_by_a_signal(train, heads, tmp_path / "run", monkeypatch, step, number)
    same_run(done, tmp_path / "run")


def test_max_time_ends_well_and_goes_on(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    cut_by_max_time(train, heads, tmp_path / "run", "cddpm.safetensors")
    same_run(done, tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--lr", "0.1"], "train.lr was 0.001, is now 0.1"),
        (["--process", "diffusevae"], "diffusion.process was mhvae, is now diffusevae"),
        (["--crop", "24"], "train.crop was 16, is now 24"),
        (["--hold-out", "1"], "data was "),
    ],
)
def test_resume_names_what_differs(
    options: list[str], named: str, done: Path, heads: Path, train: Any
) -> None:
    ended = train(heads, done, "--resume", *options)
    refused_to_resume(ended, named)


def test_resume_on_another_vae_is_refused(done: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    ended = train(heads, done, "--resume", model=_vae(tmp_path / "other"))
    assert ended.code == 7 and "cannot resume: model was" in ended.stderr


def test_a_folder_in_use_is_refused(done: Path, tiny_model: Path, heads: Path, train: Any) -> None:
    before = {path: path.stat().st_mtime_ns for path in tiny_model.rglob("*")}
    for out, hint in ((done, "--resume"), (tiny_model, "new folder")):
        ended = train(heads, out)
        assert ended.code == 7 and "not empty" in ended.stderr and hint in ended.stderr
    assert {path: path.stat().st_mtime_ns for path in tiny_model.rglob("*")} == before


# --- which VAE ---


def test_diffusevae_is_a_single_headed_vae_and_its_own_process(
    heads: Path, train: Any, tmp_path: Path
) -> None:
    """What the process starts at is the image: so the scale is the image's."""
    model = _vae(tmp_path / "single", single_head=True)
    ended = train(heads, tmp_path / "run", "--process", "diffusevae", "--epochs", 1, model=model)
    assert ended.code == 0, ended.stderr
    refiner = load_refiner(tmp_path / "run")
    assert read_config(tmp_path / "run")["cddpm"]["model"]["process"] == "diffusevae"
    image = _pictures(heads)
    assert float(refiner.network.scale) == pytest.approx(float(image.square().mean().sqrt()), rel=0.03)
    assert refiner.codes_factor.shape == (4, 4)
    x_hat = torch.full((1, 1, 32, 32), 9.0)  # which is not added to what is drawn
    assert refiner.refine(x_hat, ["a"], steps=5).mean() < 0.9


def test_a_models_cddpm_is_trained_on(tiny_refined: Path, heads: Path, train: Any, tmp_path: Path) -> None:
    """Its weights are where the run begins, its scale and density stay; its own folder is not written to."""
    before = {path.name: path.read_bytes() for path in tiny_refined.iterdir()}
    still = write_json(tmp_path / "still.json", _with("train", epochs=1, lr=1e-30, weight_decay=0.0))
    ended = train(heads, tmp_path / "still", config=still, model=tiny_refined)
    assert ended.code == 0 and "starting from the model's cDDPM" in ended.stderr, ended.stderr
    given, found = (load_state(folder, "cddpm") for folder in (tiny_refined, tmp_path / "still"))
    assert given.keys() == found.keys()
    for name, value in given.items():
        torch.testing.assert_close(found[name], value, atol=1e-20, rtol=0, msg=name)
    ended = train(heads, tmp_path / "run", "--epochs", 1, model=tiny_refined)
    assert ended.code == 0, ended.stderr
    found = load_state(tmp_path / "run", "cddpm")
    changed = {name for name, value in given.items() if not torch.equal(found[name], value)}
    assert "network.unet.enter.weight" in changed
    assert not {"network.scale", "codes_marginals", "codes_factor"} & changed
    assert {path.name: path.read_bytes() for path in tiny_refined.iterdir()} == before
    assert read_config(tmp_path / "run")["cddpm"]["size"] == [48, 64]


def test_without_a_configuration_a_models_cddpm_is_trained_on_for_the_time_given(
    mhvae: Callable[..., Any], tiny_refined: Path, heads: Path, tmp_path: Path
) -> None:
    """Its configuration is taken over; a run that would be too long is shortened, so that it can end."""
    ended = mhvae(
        *("train-cddpm", "--model", tiny_refined, "--data", heads, "--out", tmp_path / "run"),
        *("--max-time", "12s", "--device", "cpu", "--dtype", "float32"),
    )
    assert ended.code == 0, ended.stderr
    planned = re.search(r" steps in (\d+) epochs: about 1 min", ended.stderr)
    assert planned is not None and int(planned[1]) < 500
    found, given = (read_config(folder)["cddpm"] for folder in (tmp_path / "run", tiny_refined))
    assert found["model"] == given["model"] and found["training"]["crop"] == 0
    assert found["training"]["epochs"] == int(planned[1])


def test_a_cddpm_of_another_configuration_is_replaced(
    tiny_refined: Path, heads: Path, train: Any, tmp_path: Path
) -> None:
    unet = {"channels": 16, "levels": 2, "blocks": 1}
    wide = write_json(tmp_path / "wide.json", _with("diffusion", unet=unet))
    ended = train(heads, tmp_path / "run", "--epochs", 1, "--crop", 0, config=wide, model=tiny_refined)
    assert ended.code == 0 and "from scratch" in ended.stderr, ended.stderr
    refiner = load_refiner(tmp_path / "run")
    assert refiner.network.unet.enter.out_channels == 16
    assert float(refiner.network.scale) != pytest.approx(0.1, rel=1e-2)
    assert refiner.codes_marginals.abs().max() > 0.01  # measured


def test_a_square_finer_than_the_vaes(
    heads: Path, train: Any, mhvae: Callable[..., Any], tiny_model: Path, tmp_path: Path
) -> None:
    """The VAE sees what it always sees; images are drawn, and carried, on the cDDPM's own square."""
    unet = {"channels": 8, "levels": 2, "blocks": 1, "patch": 3}
    fine = write_json(
        tmp_path / "fine.json",
        _with("diffusion", image_size=48, unet=unet, sees="residual+recon+mask+known"),
    )
    ended = train(heads, tmp_path / "run", "--epochs", 1, "--crop", 0, config=fine)
    assert ended.code == 0, ended.stderr
    refined, plain = (
        Pipeline.load(folder, device="cpu").networks for folder in (tmp_path / "run", tiny_model)
    )
    codes = [Pipeline(plain).source(next((heads / "images").iterdir())).code]
    coarse, x_hat = (torch.from_numpy(networks.decode(codes)) for networks in (plain, refined))
    assert x_hat.shape[-1] == 48 and coarse.shape[-1] == 32
    expected = torch.nn.functional.interpolate(coarse, size=(48, 48), mode="bilinear")
    torch.testing.assert_close(x_hat, expected, atol=1e-5, rtol=0)
    scan = next((heads / "images").iterdir())
    for verb in (("warp", scan, "--rotate", 20), ("reconstruct", scan), ("sample", "-n", 1)):
        ended = mhvae(*verb, "--model", tmp_path / "run", "--out", f"{tmp_path / verb[0]}/", "--steps", 2)
        assert ended.code == 0, ended.stderr
    with Image.open(next((tmp_path / "warp").glob("*.png"))) as image:
        assert image.size == (64, 48)


def test_colour_follows_the_vae(train: Any, heads: Path, tmp_path: Path) -> None:
    """Grey pictures for a VAE of three channels are read in three."""
    model = _vae(tmp_path / "rgb", channels=3)
    ended = train(heads, tmp_path / "run", "--epochs", 1, model=model)
    assert ended.code == 0, ended.stderr
    x_hat = torch.zeros(1, 3, 9, 9)
    assert load_refiner(tmp_path / "run").refine(x_hat, ["a"], steps=2).shape == x_hat.shape


def test_an_unknown_model_is_a_model_error(heads: Path, train: Any, tmp_path: Path) -> None:
    for model in ("no-such-model", tmp_path):
        ended = train(heads, tmp_path / "run", model=model)
        assert ended.code == 6 and ended.lines == [] and "Traceback" not in ended.stderr
    assert not (tmp_path / "run").exists()


# --- the data ---


def test_bad_data_is_named_before_anything_is_made(heads: Path, train: Any, tmp_path: Path) -> None:
    (tmp_path / "none" / "images").mkdir(parents=True)
    one, torn = tmp_path / "one", tmp_path / "torn"
    for folder in (one, torn):
        (folder / "images").mkdir(parents=True)
        shutil.copy(heads / "images" / "fetal-head_0000.png", folder / "images")
    (torn / "images" / "bad.png").write_text("no picture")
    for data, said in (
        (tmp_path / "absent", "no files in"),
        (tmp_path / "none", "no files in"),
        (one, "too few"),
        (torn, "bad.png"),
    ):
        ended = train(data, tmp_path / "run")
        assert ended.code == 4 and said in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
        assert not (tmp_path / "run").exists()


def test_a_fold_held_out_is_never_opened(heads: Path, train: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(heads, data)
    with (data / "index.csv").open() as file:
        held = [row["id"] for row in csv.DictReader(file) if row["fold"] == "2"]
    for name in held:
        (data / "images" / f"{name}.png").write_text("unreadable")
    assert train(data, tmp_path / "all").code == 4
    ended = train(data, tmp_path / "run", "--hold-out", 2, "--epochs", 1)
    assert ended.code == 0 and ended.stderr.startswith("reading 9 images")
    splits = read_config(tmp_path / "run")["cddpm"]["training"]["splits"]
    assert splits.startswith("fold 2 held out; trained on")
    ended = train(data, tmp_path / "none", "--hold-out", 7)
    assert ended.code == 2 and "no fold 7" in ended.stderr


# --- the recipe ---


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (_with("train", crop=5), "train.crop"),
        (_with("train", crops=0), "train.crops"),
        (_with("train", epochs=0), "train.epochs"),
        (_with("train", part="style"), "train.part"),
        (_with("train", level_sd=0.0), "train.level_sd"),
        (_with("train", level=float("nan")), "train.level"),
        (_with("diffusion", sees="all"), "diffusion.sees"),
        (_with("diffusion", unet={"chanels": 8}), "diffusion.unet.chanels"),
        (_with("diffusion", unet={"channels": 7}), "unet.channels"),
        (_with("diffusion", unet={"levels": 0}), "unet.levels"),
        (_with("diffusion", beta_max=1.0), "beta 0.1 to 1"),
        ({"model": {}}, "model"),
        ([], "not a JSON object"),
    ],
)
def test_a_configuration_is_strict(values: Any, said: str, heads: Path, train: Any, tmp_path: Path) -> None:
    ended = train(heads, tmp_path / "run", config=write_json(tmp_path / "bad.json", values))
    assert ended.code == 2 and said in ended.stderr and "reading" not in ended.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [["--crop", "5"], ["--crop", "-1"], ["--process", "ddpm"]])
def test_a_flag_out_of_range_is_a_usage_error(
    options: list[str], heads: Path, train: Any, tmp_path: Path
) -> None:
    ended = train(heads, tmp_path / "run", *options)
    assert ended.code == 2 and options[0].strip("-") in ended.stderr


def test_a_model_must_be_named(heads: Path, mhvae: Callable[..., Any], tmp_path: Path) -> None:
    ended = mhvae("train-cddpm", "--data", heads, "--out", tmp_path / "run")
    assert ended.code == 2 and "--model" in ended.stderr


# --- several processes ---


def test_two_processes_make_one_cddpm(
    heads: Path, tiny_model: Path, config: Path, train: Any, tmp_path: Path
) -> None:
    options = ("--epochs", "2", "--workers", "1")
    ends = two_processes(_command(tiny_model, heads, tmp_path / "two", config, *options))
    assert ends[0][0] == f"{tmp_path}/two\n" and ends[1] == ("", "")
    assert train(heads, tmp_path / "one", *options).code == 0
    first, second = (load_tensors(tmp_path / name / "state.safetensors") for name in ("one", "two"))
    assert first.keys() == second.keys() and float(first["optimizer.0.step"]) == 4
    for name, value in first.items():
        one, two = value.double(), second[name].double()
        assert float((one - two).norm()) <= 1e-3 * float(one.norm()) + 1e-6, name
    for row, other in zip(log_rows(tmp_path / "one"), log_rows(tmp_path / "two"), strict=True):
        for name in COLUMNS[2:]:
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-3), name
