"""How far to trust a result: signals, limits and intervals against known truths; the flags of segment."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mhvae_cli.errors import ModelError
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import stored
from mhvae_cli.inference.posterior import calibrated_sd, draw, interval
from mhvae_cli.inference.qc import (
    COLUMNS,
    SIGNALS,
    EncoderOutputs,
    QCStatistics,
    parse_statistics,
    smallest_jacobian,
    tones,
)
from mhvae_cli.vae.warp import pixel_centres

Mhvae = Callable[..., Any]
SQUARE = np.array([[10.0, 10], [90, 10], [90, 90], [10, 90]])
STRIPES = np.tile([-0.5, 0.5], (1, 64, 32)).astype(np.float32)
HOLE = np.array([[30.0, 30], [30, 60], [60, 60], [60, 30]])


def evidence(**changed: Any) -> EncoderOutputs:
    values = {
        "theta": np.full(6, 0.5, np.float32),
        "sd": np.full(6, 0.1, np.float32),
        "z": np.zeros(3, np.float32),
        "features": np.zeros(2, np.float32),
        "square": STRIPES,
        "source": grid(lambda p: p),
        "inside": np.ones((64, 64), bool),
        "recon": 0.1,
    }
    return EncoderOutputs(**(values | changed))


def trust() -> QCStatistics:
    return QCStatistics(
        2.0,
        {"tones": tones(STRIPES), "features": np.zeros(2), "z": np.zeros(3)},
        {"tones": np.eye(4), "features": np.full(2, 0.5), "z": np.ones(3)},
        {name: np.linspace(0, 2, 33) for name in SIGNALS},
        dict.fromkeys(SIGNALS, 2.0),
    )


def test_tones_of_known_pictures() -> None:
    mean, contrast, fine, coarse = tones(STRIPES)
    assert mean == pytest.approx(0, abs=1e-6) and contrast == pytest.approx(math.log(0.508))
    assert fine == pytest.approx(math.log(1.008)) and coarse == pytest.approx(math.log(0.008))
    black = tones(np.full((1, 32, 32), -1, np.float32))
    assert black[0] == -1 and black[1:] == pytest.approx(math.log(0.008))
    grey = np.repeat(STRIPES, 3, axis=0)
    colours = tones(grey)
    assert len(colours) == 11 and colours[-3:] == pytest.approx(math.log(0.008))
    grey[0] += 0.25
    assert tones(grey)[-3] == pytest.approx(math.log(0.258), rel=1e-5)


def grid(warp: Callable[[np.ndarray], np.ndarray], side: int = 64) -> np.ndarray:
    return warp(pixel_centres((side, side))).T.reshape(2, side, side)


def bent(p: np.ndarray) -> np.ndarray:
    """A warp whose determinant is 1 + 1.6 x."""
    return np.stack([p[:, 0] + 0.8 * p[:, 0] ** 2, p[:, 1]], axis=1)


def test_the_smallest_jacobian_is_the_analytic_one() -> None:
    inside = np.ones((64, 64), bool)
    for matrix in ([[2.0, 0.5], [-0.3, 1.0]], [[-1.0, 0.0], [0.2, 1.0]]):  # the second mirrors
        affine = grid(lambda p, matrix=matrix: p @ np.array(matrix).T + 0.3)
        assert smallest_jacobian(affine, inside) == pytest.approx(1, abs=1e-9)

    assert smallest_jacobian(grid(bent, 512), np.ones((512, 512), bool)) == pytest.approx(-0.6, abs=0.01)
    right = np.zeros((512, 512), bool)
    right[:, 256:] = True
    assert smallest_jacobian(grid(bent, 512), right) == pytest.approx(1 / 1.8, abs=0.01)
    assert smallest_jacobian(grid(bent), np.zeros((64, 64), bool)) is None


def test_intervals_hold_nine_of_ten() -> None:
    low, high = interval(list(range(1, 100)))
    assert (low, high) == (pytest.approx(5), pytest.approx(95))
    rng = np.random.default_rng(0)
    for count in (20, 100):
        inside = [low <= rng.normal() <= high for low, high in map(interval, rng.normal(size=(2000, count)))]
        assert np.mean(inside) == pytest.approx(0.9, abs=0.03)
    assert interval([None, *range(9)]) != (None, None)
    assert interval([None, None, *range(8)]) == (None, None)


def test_draws_depend_on_the_seed_and_the_image_alone() -> None:
    given = evidence(sd=np.array([0, 0.01, 0.1, 1, 10, 100], np.float32))
    drawn = draw(given, 4000, temperature=3.0, seed=1, key="a")
    assert np.array_equal(drawn, draw(given, 4000, temperature=3.0, seed=1, key="a"))
    assert not np.array_equal(drawn, draw(given, 4000, temperature=3.0, seed=2, key="a"))
    assert not np.array_equal(drawn, draw(given, 4000, temperature=3.0, seed=1, key="b"))
    assert drawn.dtype == np.float32 and drawn.mean(0) == pytest.approx(given.theta, abs=0.07)
    assert drawn.std(0) == pytest.approx(calibrated_sd(given.sd, 3.0), rel=0.05, abs=1e-6)
    assert calibrated_sd(given.sd, 3.0)[1] == pytest.approx(0.03, rel=1e-3)
    assert (calibrated_sd(given.sd, 1e6) <= 1).all()  # never wider than the prior


def test_limits_go_on_as_the_tail_does() -> None:
    from mhvae_cli.training.calibration import EXCEEDANCE, limit

    values = np.random.default_rng(0).exponential(size=200_000)
    assert limit(values) == pytest.approx(-math.log(EXCEEDANCE), rel=0.02)
    assert limit(np.ones(30)) == 1


def test_a_verdict_names_what_is_off() -> None:
    fine = trust().judge(evidence(), [SQUARE])
    assert fine.qc == "ok" and fine.why == () and (fine.components, fine.holes) == (1, 0)
    assert fine.percentiles["theta"] == pytest.approx(25) and fine.percentiles["recon"] == pytest.approx(5)
    far = evidence(features=np.array([5.0, 5.0]), theta=np.full(6, -2.5), recon=None)
    odd = trust().judge(far, [SQUARE])
    assert odd.why == ("features", "theta") and odd.percentiles["features"] == 100
    assert "recon" not in odd.percentiles and odd.fields()["recon_pct"] is None
    assert trust().judge(evidence(source=grid(bent)), [SQUARE, HOLE]).why == ("holes", "folds")
    assert trust().judge(evidence(), [SQUARE, SQUARE + 200]).why == ("pieces",)
    assert trust().judge(evidence(inside=np.zeros((64, 64), bool)), []).why == ("empty",)
    assert tuple(odd.fields()) == COLUMNS and odd.fields()["qc_why"] == "features;theta"


def test_statistics_outlive_the_file() -> None:
    sizes = {"tones": 4, "features": 2, "z": 3}
    content = json.loads(json.dumps(trust().to_dict()))
    again = parse_statistics(content, sizes, where="here")
    found, told = (each.judge(evidence(), [SQUARE]) for each in (again, trust()))
    assert found.percentiles == pytest.approx(told.percentiles, abs=0.01) and found.why == told.why
    damaged = [
        {**content, "limits": {}},
        {**content, "temperature": "warm"},
        {**content, "temperature": float("nan")},
        {**content, "distances": {**content["distances"], "z": {"mean": [0], "scale": [1]}}},
        {**content, "quantiles": {**content["quantiles"], "theta": [3, 2, 1]}},
        {**content, "quantiles": []},
    ]
    for other in damaged:
        with pytest.raises(ModelError, match="here"):
            parse_statistics(other, sizes, where="here")


@pytest.fixture(scope="session")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mhvae_cli.training.phantoms import write_phantoms

    folder = tmp_path_factory.mktemp("heads")
    write_phantoms(folder, "fetal-head", 60, size=(64, 80))
    return folder


@pytest.fixture(scope="session")
def judged_model(tiny_model: Path, heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, calibrated on phantoms, theta's limit aside: its weights are random."""
    from mhvae_cli import Pipeline
    from mhvae_cli.training.calibration import calibrate, write_statistics
    from mhvae_cli.training.datasets import discover

    folder = tmp_path_factory.mktemp("judged") / "tiny"
    shutil.copytree(tiny_model, folder)
    samples = discover(heads)
    pipeline = Pipeline.load(folder, device="cpu", dtype="float32")
    assert calibrate(pipeline.networks, samples[:30], samples[30:40]) is None  # too few
    found = calibrate(pipeline.networks, samples[:30], samples[30:])
    assert found is not None and set(found.limits) == set(SIGNALS)
    write_statistics(folder, found, images=30)
    weights = "vae.safetensors"
    assert (folder / weights).read_bytes() == (tiny_model / weights).read_bytes()
    assert weights in (folder / "SHA256SUMS").read_text()
    return folder


def odd_pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 80), np.uint8)
    return [np.zeros((64, 80), np.uint8), noise, np.full((64, 80), 200, np.uint8)]


def test_the_pipeline_judges_what_it_finds(judged_model: Path, tiny_model: Path) -> None:
    from mhvae_cli import Pipeline
    from mhvae_cli.training.phantoms import phantom

    pipeline = Pipeline.load(judged_model, device="cpu", dtype="float32")
    usual = [pipeline.segment(phantom("fetal-head", seed, (64, 80))[0]) for seed in range(500, 530)]
    flags = [found.quality is not None and "tones" in found.quality.why for found in usual]
    assert np.mean(flags) <= 0.1
    for picture in odd_pictures():
        quality = pipeline.segment(picture, recon=True).quality
        assert quality is not None and quality.qc == "warn" and "recon" in quality.percentiles
    assert Pipeline.load(tiny_model).segment(odd_pictures()[0]).quality is None


def test_draws_of_the_pipeline(judged_model: Path, heads: Path) -> None:
    from mhvae_cli import Pipeline

    pipeline = Pipeline.load(judged_model, device="cpu", dtype="float32")
    image = sorted((heads / "images").iterdir())[0]
    found = pipeline.segment(image, posterior=25)
    assert found.thetas is not None and found.thetas.shape == (25, len(found.theta))
    assert np.array_equal(found.thetas, pipeline.segment(image, posterior=25).thetas)
    masks = [pipeline.networks.mask(theta, (64, 80)) for theta in found.thetas]
    assert found.probability is not None and found.probability == pytest.approx(np.mean(masks, axis=0))
    assert pipeline.segment(image).thetas is None


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heads: Path, judged_model: Path) -> Path:
    """Two heads and a black frame in scans/ of the current folder; the calibrated model is the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHVAE_MODEL", str(judged_model))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, image in zip("ab", sorted((heads / "images").iterdir()), strict=False):
        shutil.copy(image, folder / f"{name}.png")
    Image.fromarray(odd_pictures()[0]).save(folder / "c.png")
    return folder


def rows(folder: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(folder, "results.csv").read_text().splitlines()))


def test_segment_flags_by_itself(mhvae: Mhvae, scans: Path, judged_model: Path) -> None:
    assert mhvae("segment", "scans", "-o", "masks").code == 0
    black = rows("masks")[2]
    assert black["qc"] == "warn" and "tones" in black["qc_why"].split(";") and black["tones_pct"] == "100.0"
    assert black["recon_pct"] == "" and black["status"] == "ok"
    assert mhvae("segment", "scans", "-o", "full", "--qc", "full").code == 0
    assert all(0 <= float(row["recon_pct"]) <= 100 for row in rows("full"))
    assert mhvae("segment", "scans", "-o", "off", "--qc", "off").code == 0
    assert not set(COLUMNS) & rows("off")[0].keys()
    for name in "abc":
        masks = {Path(folder, f"{name}.png").read_bytes() for folder in ("masks", "full", "off")}
        assert len(masks) == 1  # judging changes no mask


def test_a_missed_gate_ends_with_8_and_all_is_written(mhvae: Mhvae, scans: Path, tiny_model: Path) -> None:
    ended = mhvae("segment", "scans", "-o", "masks", "--fail-on-qc")
    assert ended.code == 8 and ended.lines == [f"masks/{name}.png" for name in "abc"]
    assert "error: masks/c.png: failed quality control: tones" in ended.stderr
    table = rows("masks")
    assert [row["status"] == "missed" for row in table] == [row["qc"] == "warn" for row in table]
    ended = mhvae("segment", "scans", "-o", "other", "-m", tiny_model, "--fail-on-qc")
    assert ended.code == 6 and "no QC statistics" in ended.stderr and not Path("other").exists()
    assert mhvae("segment", "scans", "-o", "other", "--fail-on-qc", "--qc", "off").code == 2


def test_without_statistics_the_columns_are_empty(mhvae: Mhvae, scans: Path, tiny_model: Path) -> None:
    assert mhvae("segment", "scans/c.png", "-o", "masks/", "-m", tiny_model).code == 0
    assert all(rows("masks")[0][column] == "" for column in COLUMNS)


def test_posterior_writes_a_map_and_intervals(mhvae: Mhvae, scans: Path) -> None:
    common = ("scans/a.png", "scans/b.png", "--posterior", 30, "--spacing", "0.5", "--measure", "fetal-head")
    assert mhvae("segment", *common, "-o", "one", "-b", 1, "-j", 0).code == 0
    assert mhvae("segment", *reversed(common[:2]), *common[2:], "-o", "two", "-b", 2, "-j", 2).code == 0
    first, second = rows("one"), {row["input"]: row for row in rows("two")}
    for row in first:
        name = Path(row["output"]).stem
        maps = [Path(folder, f"{name}__probability.png").read_bytes() for folder in ("one", "two")]
        assert maps[0] == maps[1]
        other = second[row["input"]]
        spans = [key for key in row if key.endswith(("_low", "_high"))]
        assert len(spans) == 8 and [row[key] for key in spans] == [other[key] for key in spans]
        low, high = float(row["area_px_low"]), float(row["area_px_high"])
        assert low < high and float(row["area_mm2_high"]) == pytest.approx(high / 4, rel=1e-4)
        with Image.open(f"one/{name}__probability.png") as image:
            levels = np.array(image)
        assert levels.shape == (64, 80) and levels.dtype == np.uint8
        assert low * 0.8 < levels.sum() / 255 < high * 1.2
    assert mhvae("segment", *common, "-o", "seed", "--seed", 1).code == 0
    assert rows("seed")[0]["area_px_low"] != first[0]["area_px_low"]
    assert rows("seed")[0]["area_px"] == first[0]["area_px"]


def test_the_map_lies_as_the_stored_pixels_do(mhvae: Mhvae, scans: Path, judged_model: Path) -> None:
    from mhvae_cli import Pipeline

    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open("scans/a.png") as image:
        Image.fromarray(np.array(image)).save("turned.png", exif=exif)
    assert mhvae("segment", "turned.png", "-o", "masks/", "--posterior", 20).code == 0
    found = Pipeline.load(judged_model, device="cpu", dtype="float32").segment("turned.png", posterior=20)
    assert found.probability is not None and read_scan(Path("turned.png")).orientation == 6
    with Image.open("masks/turned__probability.png") as image:
        assert np.array_equal(np.array(image), stored(np.rint(found.probability * 255), 6))


@pytest.mark.parametrize("family, points", [("affine", "circular"), ("tps", "circular"), ("tps", "uniform")])
def test_what_a_mirror_image_shows_is_brought_back(family: Any, points: Any) -> None:
    import torch

    from mhvae_cli.config import WarpConfig
    from mhvae_cli.vae.tta import FLIPS, aligned, unflipped
    from mhvae_cli.vae.warp import Warp

    warp = Warp(WarpConfig(family, points))
    warp.loc.fill_(0.1)
    theta = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (3, warp.theta_dim)).astype(np.float32))
    other = torch.flip(theta, (0,))

    def masks(codes: torch.Tensor) -> np.ndarray:
        return (warp(codes, (48, 64)).norm(dim=1) <= 0.5).numpy()

    for signs in FLIPS:
        back = unflipped(warp, theta, signs)
        assert 0.01 < masks(theta).mean() < 0.9
        assert (masks(back) == masks(theta)[:, :: signs[1], :: signs[0]]).mean() > 0.999
        turned = aligned(warp, back, other)
        assert (masks(turned) == masks(back)).mean() > 0.999
        at = pixel_centres((9, 9))
        at = np.tile(at * 0.5 if family == "affine" else warp.points, (3, 1, 1))
        gaps = [(warp.at(codes, at) - warp.at(other, at)).square().sum() for codes in (turned, back)]
        assert gaps[0] <= gaps[1] * 1.001
    mirrored = unflipped(warp, theta, (-1, 1)) @ torch.eye(warp.theta_dim)
    assert aligned(warp, unflipped(warp, mirrored, (-1, 1)), theta) == pytest.approx(theta, abs=1e-3)


def test_tta_sees_mirror_images_alike(mhvae: Mhvae, scans: Path, judged_model: Path) -> None:
    from mhvae_cli import Pipeline
    from mhvae_cli.evaluation.metrics import dice

    pipeline = Pipeline.load(judged_model, device="cpu", dtype="float32")
    pixels = read_scan(scans / "a.png").pixels
    plain, both = pipeline.segment(pixels), pipeline.segment(pixels, tta=True)
    assert not np.array_equal(plain.theta, both.theta)
    for turn in (np.fliplr, np.flipud):
        again = turn(pipeline.segment(turn(pixels), tta=True).mask)
        assert dice(again, both.mask) > max(0.9, dice(turn(pipeline.segment(turn(pixels)).mask), plain.mask))
    assert mhvae("segment", "scans/a.png", "-o", "masks/", "--tta").code == 0
    with Image.open("masks/a.png") as image:
        assert np.array_equal(np.array(image) > 0, both.mask)


def test_options_that_make_no_sense(mhvae: Mhvae, scans: Path) -> None:
    assert mhvae("segment", "scans", "-o", "masks", "--posterior", 5).code == 2
    assert mhvae("segment", "scans/a.png", "-o", "-", "--posterior", 20).code == 2


def test_damaged_statistics_are_the_models_fault(mhvae: Mhvae, scans: Path, judged_model: Path) -> None:
    shutil.copytree(judged_model, "broken")
    content = json.loads(Path("broken/config.json").read_text())
    content["trust"]["limits"] = {}
    Path("broken/config.json").write_text(json.dumps(content))
    ended = mhvae("segment", "scans", "-o", "masks", "-m", "broken")
    assert ended.code == 6 and "trust" in ended.stderr


def test_training_leaves_the_statistics_behind(mhvae: Mhvae, heads: Path, tmp_path: Path) -> None:
    recipe = {
        "model": {
            "image_size": 32,
            "z_dim": 4,
            "warp": {"family": "affine"},
            "encoder": {"arch": "resnet18", "width": 0.125, "reduce": 4, "hidden": 16},
            "decoder": {"channels": 8, "max_size": 32},
        },
        "train": {"epochs": 1, "batch_size": 8, "val_fraction": 0.4},
    }
    (tmp_path / "tiny.json").write_text(json.dumps(recipe))
    run = tmp_path / "run"
    ended = mhvae("train-vae", "--data", heads, "--out", run, "--config", tmp_path / "tiny.json", "-j", 0)
    assert ended.code == 0
    statistics = json.loads((run / "config.json").read_text())["trust"]
    assert statistics["images"] == 24 and statistics["temperature"] > 0
    assert all(len(values) == 33 for values in statistics["quantiles"].values())
    ended = mhvae("segment", heads / "images", "-m", run, "-o", tmp_path / "masks", "--json")
    flags = [json.loads(line)["qc"] for line in ended.lines]
    assert ended.code == 0 and flags.count("ok") >= 50
