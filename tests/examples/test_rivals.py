"""The rivals' benchmark: networks of the papers' sizes, equal terms, runs that go on, and bad input."""

import csv
import json
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from support.scripts import benchmark
from torch import Tensor, nn

from mhvae_cli.config import TrainConfig
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.inference.loading import load_model
from mhvae_cli.polygons import contains
from mhvae_cli.training.phantoms import phantom, write_phantoms
from mhvae_cli.vae.model import NoDraws

EXTRAS = ("segmentation_models_pytorch", "timm", "monai", "einops")


@pytest.fixture(scope="module")
def rivals() -> Iterator[Namespace]:
    """The modules of examples/benchmarks/rivals/."""
    names = ("command", "fcsn", "nets", "ours", "robustness", "tables", "testing", "training", "transunet")
    modules: dict[str, ModuleType] = {}
    for name in names:
        with benchmark(f"rivals.{name}") as module:
            modules[name] = module
    yield Namespace(**modules)


def millions(net: nn.Module) -> float:
    return sum(p.numel() for p in net.parameters()) / 1e6


def ellipse(size: tuple[int, int]) -> np.ndarray:
    y, x = np.indices(size)
    return ((x - 0.55 * size[1]) / (0.3 * size[1])) ** 2 + ((y - 0.4 * size[0]) / (0.2 * size[0])) ** 2 <= 1


# Networks


def test_transunet_has_the_size_of_the_papers(rivals: Namespace) -> None:
    with torch.device("meta"), NoDraws():
        net = rivals.transunet.TransUNet(3, 224, outputs=9)
    assert millions(net) == pytest.approx(105.3, rel=0.005)
    assert net.position.shape == (1, 196, 768)
    small = rivals.transunet.TransUNet(1, 32).eval()
    assert small(torch.zeros(2, 1, 32, 32)).shape == (2, 1, 32, 32)


def test_fcsn_has_the_size_of_the_papers(rivals: Namespace) -> None:
    with torch.device("meta"), NoDraws():
        net = rivals.fcsn.FCSN(3)
    assert millions(net) == pytest.approx(29.7, rel=0.005)
    small = rivals.fcsn.FCSN(1).eval()
    found, heat = small(torch.zeros(2, 1, 64, 64))
    assert found.shape == (2, 21, 2) and heat.shape == (2, 21, 54, 54)  # stride 8, then (8 - 1) * 6 + 12
    assert heat.sum((2, 3)).detach() == pytest.approx(torch.ones(2, 21))


@pytest.mark.parametrize("size", [(64, 64), (90, 120)])
def test_fcsn_draws_a_mask_from_its_coefficients(rivals: Namespace, size: tuple[int, int]) -> None:
    square = ellipse((64, 64))
    drawn = rivals.fcsn.fill(rivals.fcsn.curve(rivals.fcsn.coefficients(square.astype(float)).numpy()), size)
    assert drawn.shape == size and dice(drawn, ellipse(size)) > 0.97


def test_fcsn_learns_one_beginning_and_one_direction(rivals: Namespace) -> None:
    points = rivals.fcsn.outline(ellipse((64, 64)).astype(float))
    assert points[:, 0].argmax() in (0, 1, len(points) - 1)
    angle = np.unwrap(np.arctan2(*(points - points.mean(0)).T[::-1]))
    assert angle[-1] - angle[0] == pytest.approx(2 * np.pi * (1 - 1 / len(points)), rel=0.05)


def test_a_curve_is_filled_by_the_centres_of_pixels(rivals: Namespace) -> None:
    ring = np.random.default_rng(0).uniform(-1.2, 1.2, (9, 2))  # crosses itself and leaves the image
    ys, xs = np.indices((30, 40))
    centres = np.stack([(2 * xs + 1) / 40 - 1, (2 * ys + 1) / 30 - 1], axis=-1).reshape(-1, 2)
    assert (rivals.fcsn.fill(ring, (30, 40)).ravel() == contains([ring], centres)).all()


def test_a_first_guess_of_fcsn_is_scaled_by_the_training_masks(rivals: Namespace) -> None:
    net = rivals.fcsn.FCSN(1)
    data = data_of(rivals, 4)
    net.prepare(data.train, data.augment, 0)
    assert net.scale[1:].max() > 0.3 and (net.scale[5:16] < 0.3).all()  # heads have little but ellipses


# Training


class Tiny(nn.Module):
    """Two convolutions with the interface of a rival."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 8, 5, 1, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.net(image)
        return out


def data_of(rivals: Namespace, count: int) -> Namespace:
    """Phantoms in memory, as the training sees them; half of them again for validation."""
    from tempfile import TemporaryDirectory

    from mhvae_cli.config import AugmentConfig
    from mhvae_cli.training.datasets import MaskedImages, discover

    with TemporaryDirectory() as folder:
        write_phantoms(Path(folder), "fetal-head", count, size=(48, 64))
        samples = discover(Path(folder))
        images = MaskedImages(samples, image_size=32, channels=1)
        few = MaskedImages(samples[: count // 2], image_size=32, channels=1)
    data: Namespace = rivals.training.Data(images, few, AugmentConfig(), 2, 0, 1)
    return data


def tiny(rivals: Namespace) -> Namespace:
    """A rival of one second, with an optimiser that has a state."""

    def build(channels: int, size: int) -> nn.Module:
        net: nn.Module = rivals.nets.Pixelwise(Tiny(), rivals.nets.bce)
        return net

    rival: Namespace = rivals.nets.Rival(
        "Tiny", "none", build, lambda p: torch.optim.Adam(p, 1e-2), rivals.nets.poly, "Adam"
    )
    return rival


def test_a_cut_training_goes_on_to_the_same_weights(
    rivals: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, rival, lines = data_of(rivals, 6), tiny(rivals), []

    def train(out: Path) -> Namespace:
        torch.manual_seed(0)
        how = {"device": torch.device("cpu"), "dtype": torch.float32, "tell": lines.append}
        budget = rivals.training.Budget(images=20)
        took: Namespace = rivals.training.train(rival.build(1, 32), rival, data, budget, out, **how)
        return took

    whole = train(tmp_path / "whole")
    step, calls = rivals.training._step, []

    def cut(*args: object) -> None:
        calls.append(args)
        step(*args)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(rivals.training, "_step", cut)
    with pytest.raises(rivals.training.Stopped):
        train(tmp_path / "cut")
    assert rivals.training.trained(tmp_path / "cut") is None
    again = train(tmp_path / "cut")
    assert len(calls) == 10 and (again.steps, again.images) == (whole.steps, whole.images) == (10, 20)
    expected, found = (rivals.training.best_weights(tmp_path / name) for name in ("whole", "cut"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not (tmp_path / "cut" / rivals.training.STATE).exists()
    assert rivals.training.trained(tmp_path / "cut").steps == 10


def test_ours_becomes_a_model_folder_and_goes_on(rivals: Namespace, tmp_path: Path) -> None:
    """Cut after each step, it is trained as if it had not been."""
    data, lines = data_of(rivals, 6), []
    how = {"device": torch.device("cpu"), "dtype": torch.float32, "tell": lines.append, "channels": 1}
    budget, lite = rivals.training.Budget(images=12), rivals.ours.OURS["ours-lite"]
    states = []
    for name, seconds in (("whole", 50.0), ("cut", 1e-6)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rivals.ours, "SAVE_EVERY", seconds)
            took = rivals.ours.train(lite, data, budget, tmp_path / name, size=32, **how)
        assert (took.steps, took.images) == (6, 12) and rivals.training.trained(tmp_path / name).steps == 6
        states.append(load_model(tmp_path / name)[0].state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_ours_is_planned_again_from_the_time_it_took(rivals: Namespace) -> None:
    config, took = TrainConfig(epochs=7, batch_size=2), rivals.training.Trained(30, 60, 60.0)
    two_minutes = rivals.training.Budget(minutes=2)
    assert rivals.ours.replanned(config, took, two_minutes, 10).epochs == round(0.98 * 60 / 5)
    late = rivals.training.Trained(30, 60, 500.0)
    assert rivals.ours.replanned(config, late, two_minutes, 10).epochs == 7  # an epoch that is not yet done
    assert rivals.ours.replanned(config, took, rivals.training.Budget(images=9), 10) == config


def test_a_budget_of_minutes_or_of_images(rivals: Namespace) -> None:
    minutes, images = rivals.training.Budget(minutes=2), rivals.training.Budget(images=400)
    assert minutes.progress(60, 10**9) == 0.5 and images.progress(1e9, 100) == 0.25
    assert images.progress(0, 500) == 1 and (str(minutes), str(images)) == ("2 min", "400 images")


def test_schedules_end_low_and_start_at_the_papers_rate(rivals: Namespace) -> None:
    nets = rivals.nets
    assert nets.poly(0) == nets.constant(0.7) == 1 and nets.poly(1) == 0
    assert nets.warm_cosine(0) < 0.1 and nets.warm_cosine(1 / 16) == 1 and nets.warm_cosine(1) < 1e-9


def test_the_score_is_dice_less_the_distance(rivals: Namespace) -> None:
    true = ellipse((32, 32))[None]
    assert rivals.training.score_of(true, true) == 1
    assert rivals.training.score_of(np.zeros_like(true), true) == pytest.approx(-(2**0.5))
    assert 0 < rivals.training.score_of(np.roll(true, 2, axis=2), true) < 1


# Testing


def test_pieces_and_holes_are_counted(rivals: Namespace) -> None:
    mask = np.zeros((20, 30), bool)
    assert rivals.testing.topology(mask) == (0, 0)
    mask[2:9, 2:9] = True
    mask[4:6, 4:6] = False
    mask[9, 9] = True  # touches a corner: the same piece
    mask[12:, 20:] = True
    assert rivals.testing.topology(mask) == (2, 1)
    assert rivals.testing.topology(np.ones((4, 4), bool)) == (1, 0)


def test_the_command_trains_tests_and_compares(
    rivals: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two models of two folds on phantoms; a second call does nothing again."""
    write_phantoms(tmp_path / "heads", "fetal-head", 12, size=(40, 52))
    one, out = tiny(rivals), tmp_path / "out"
    for name in ("tiny", "twin"):
        monkeypatch.setitem(rivals.nets.RIVALS, name, one)
    monkeypatch.setattr(rivals.command, "MODELS", ("tiny", "twin"))
    options = ["--data", str(tmp_path / "heads"), "--out", str(out), "--fold", "2", "3", "--images", "8"]
    options += ["--size", "32", "--batch", "2", "--reference", "tiny"]
    rivals.command.main(None, options)
    rows = rivals.testing.read_csv(out / "rivals.csv")
    assert [(row["model"], row["fold"], row["shown"]) for row in rows] == [
        ("tiny", "2", "8"),
        ("twin", "2", "8"),
        ("tiny", "3", "8"),
        ("twin", "3", "8"),
    ]
    assert all(float(row["gflop"]) > 0 and float(row["parameters_m"]) > 0 for row in rows)
    masks = {path.stem for path in (out / "tiny" / "pred").iterdir()}
    assert masks == {path.stem for path in (out / "truth").iterdir()} and len(masks) == 6
    pairs = rivals.testing.read_csv(out / "pairs.csv")
    assert {(pair["model"], pair["n"], pair["p"]) for pair in pairs} == {("twin", "6", "1")}  # the same seed
    written = (out / "rivals.md").read_text()
    assert capsys.readouterr().out == written and "heads, folds 2, 3" in written
    folds = [float(row["paper256_dice"]) for row in rows if row["model"] == "tiny"]
    assert f"| {np.mean(folds):.3f} ± {np.std(folds):.3f} |" in written

    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(rivals.training, "train", never)
    rivals.command.main(None, options)
    assert rivals.testing.read_csv(out / "rivals.csv") == rows


def test_a_model_that_diverges_costs_its_own_row(
    rivals: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms(tmp_path / "heads", "fetal-head", 8, size=(40, 52))
    wild = replace(tiny(rivals), optimiser=lambda p: torch.optim.SGD(p, 1e38))
    for name, rival in (("wild", wild), ("tame", tiny(rivals))):
        monkeypatch.setitem(rivals.nets.RIVALS, name, rival)
    monkeypatch.setattr(rivals.command, "MODELS", ("wild", "tame"))
    options = ["--data", str(tmp_path / "heads"), "--out", str(tmp_path / "out"), "--images", "8"]
    with pytest.raises(SystemExit) as ended:
        rivals.command.main(None, [*options, "--size", "32", "--batch", "2", "--reference", "tame"])
    assert ended.value.code == 8 and "error: wild, fold 3: the loss is not finite" in capsys.readouterr().err
    assert [row["model"] for row in rivals.testing.read_csv(tmp_path / "out" / "rivals.csv")] == ["tame"]


# Robustness


def test_disturbances_change_what_they_say(rivals: Namespace) -> None:
    image, truth = phantom("fetal-head", 3, (60, 80))
    for kind, strengths in rivals.robustness.STRENGTHS.items():
        rng = np.random.default_rng(0)
        same = rivals.robustness.disturbed(kind, strengths[0], image, truth, rng)
        assert strengths[0] == 0 and (same[0] == image).all() and (same[1] == truth).all()
        pixels, mask = rivals.robustness.disturbed(kind, strengths[-1], image, truth, rng)
        assert pixels.dtype == np.uint8 and pixels.shape == mask.shape and not np.array_equal(pixels, image)
        if kind not in ("rotation", "size"):
            assert (mask == truth).all()
    rotated, mask = rivals.robustness.disturbed("rotation", 90, image, truth, rng)
    assert (rotated == np.rot90(image)).all() and (mask == np.rot90(truth)).all()
    small, mask = rivals.robustness.disturbed("size", 0.5, image, truth, rng)
    assert mask.sum() == pytest.approx(truth.sum() / 4, rel=0.05) and small.shape == image.shape


def test_a_share_of_the_rim_is_hidden(rivals: Namespace) -> None:
    truth = ellipse((80, 80))
    hidden = rivals.robustness.hidden(truth, 0.3, 1.0)
    from scipy.ndimage import binary_erosion

    rim = truth & ~binary_erosion(truth)
    assert (hidden & rim).sum() / rim.sum() == pytest.approx(0.3, abs=0.08)
    assert not hidden[32, 44] and hidden.any()  # the centre stays


def test_the_figure_has_a_chart_for_each_disturbance(rivals: Namespace) -> None:
    rows = [
        {"model": "tiny", "kind": kind, "strength": str(strength), "dice": "0.9"}
        for kind, strengths in rivals.robustness.STRENGTHS.items()
        for strength in strengths
    ]
    assert rivals.robustness.figure(rows, ["tiny"]).startswith(b"\x89PNG")


# Bad input


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--models", "unet"], 2, "--models unet: no such model"),
        (["--fold", "7"], 2, "no fold 7 in index.csv"),
        (["--size", "100"], 2, "--size 100: not a multiple of 32"),
        (["--images", "0"], 2, "--images 0: must be 1 or more"),
        (["--reference", "theirs"], 2, "--reference theirs: no such model"),
        (["--robustness"], 2, "no trained model of fold 3"),
        (["--out", "used"], 7, "used: begun with size 64, now 32"),
    ],
)
def test_bad_input_costs_one_line(
    rivals: Namespace,
    here: Path,
    phantom_folder: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    message: str,
) -> None:
    (here / "used").mkdir()
    (here / "used" / "settings.json").write_text(json.dumps({"size": 64}))
    given = ["--data", str(phantom_folder), "--out", "new", "--size", "32", "--models", "transunet"]
    with pytest.raises(SystemExit) as ended:
        rivals.command.main(None, [*given, *options])
    error = capsys.readouterr().err.splitlines()
    assert ended.value.code == code and error[0].startswith("error: ") and message in error[0]
    assert error[1].startswith("hint: ") if len(error) > 1 else len(error) == 1
    assert not (here / "new").exists()


def test_missing_packages_are_named(
    rivals: Namespace,
    here: Path,
    phantom_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in EXTRAS:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(rivals.nets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        rivals.command.main(None, ["--data", str(phantom_folder), "--out", "new", "--models", "unetr"])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith(
        "error: not installed: einops, monai\nhint: pip install"
    )
    assert not (here / "new").exists()


# All of it


@pytest.mark.skipif(
    any(find_spec(name) is None for name in EXTRAS), reason="the rivals' packages are missing"
)
def test_every_model_takes_two_steps(rivals: Namespace, tmp_path: Path) -> None:
    rivals.command.main(None, ["--smoke", "--out", str(tmp_path / "out")])
    with (tmp_path / "out" / "rivals.csv").open(newline="") as file:
        steps = {row["model"]: row["steps"] for row in csv.DictReader(file)}
    looks = [name if looks == 2 else f"{name}-1look" for name in rivals.command.OURS for looks in (1, 2)]
    assert list(steps) == [*rivals.nets.RIVALS, *looks] and set(steps.values()) == {"2"}
