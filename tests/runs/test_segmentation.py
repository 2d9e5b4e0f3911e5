"""Segmentation judged, averaged over mirror images and drawn from the posterior, as the table tells it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.quality import odd_pictures
from support.run_folders import rows

from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import stored
from mhvae_cli.inference.qc import (
    COLUMNS,
)

Mhvae = Callable[..., Any]


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many_heads: Path, judged_model: Path) -> Path:
    """Two heads and a black frame in scans/ of the current folder; the calibrated model is the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHVAE_MODEL", str(judged_model))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    folder = tmp_path / "scans"
    folder.mkdir()
    for name, image in zip("ab", sorted((many_heads / "images").iterdir()), strict=False):
        shutil.copy(image, folder / f"{name}.png")
    Image.fromarray(odd_pictures()[0]).save(folder / "c.png")
    return folder


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
    assert all(rows("masks")[0][column] == "" for column in (*COLUMNS, "area_px_low"))


def test_statistics_of_an_earlier_version_are_left_alone(
    mhvae: Mhvae, scans: Path, judged_model: Path
) -> None:
    """Segmentation works; one line says what is missing and how to get it."""
    shutil.copytree(judged_model, "earlier")
    content = json.loads(Path("earlier/config.json").read_text())
    del content["trust"]["errors"]
    content["trust"]["temperature"] = 20.0
    Path("earlier/config.json").write_text(json.dumps(content))
    ended = mhvae("segment", "scans", "-o", "masks", "-m", "earlier", "--posterior", 20)
    assert ended.code == 0 and rows("masks")[0]["status"] == "ok"
    assert all(rows("masks")[0][column] == "" for column in (*COLUMNS, "area_px_low", "perimeter_px_high"))
    [note] = [line for line in ended.stderr.splitlines() if "no statistics" in line]
    assert "examples/training/calibrate.py" in note
    assert Path("masks/a__probability.png").exists()


def test_intervals_need_two_looks(mhvae: Mhvae, scans: Path) -> None:
    ended = mhvae("segment", "scans/a.png", "-o", "masks/", "--looks", 1)
    assert ended.code == 0 and "two looks" in ended.stderr
    row = rows("masks")[0]
    assert row["foreign"] in ("yes", "no") and row["dice_expected"] == row["area_px_low"] == ""


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
        assert len(spans) == 20
        for key in spans:
            assert float(row[key]) == pytest.approx(float(other[key]), rel=1e-6)
        low, high = float(row["area_px_low"]), float(row["area_px_high"])
        assert low < high and float(row["area_mm2_high"]) == pytest.approx(high / 4, rel=1e-4)
        with Image.open(f"one/{name}__probability.png") as image:
            levels = np.array(image)
        assert levels.shape == (64, 80) and levels.dtype == np.uint8 and levels.any()
        assert low <= float(row["area_px"]) <= high and float(row["hc_mm_low"]) <= float(row["hc_mm"])
    assert mhvae("segment", *common, "-o", "seed", "--seed", 1).code == 0
    maps = [Path(folder, "a__probability.png").read_bytes() for folder in ("one", "seed")]
    assert maps[0] != maps[1]
    for key in ("area_px", "area_px_low", "area_px_high", "dice_expected"):
        assert rows("seed")[0][key] == first[0][key]


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


def test_tta_sees_mirror_images_alike(mhvae: Mhvae, scans: Path, judged_model: Path) -> None:
    from mhvae_cli import Pipeline
    from mhvae_cli.evaluation.metrics import dice

    pipeline = Pipeline.load(judged_model, device="cpu", dtype="float32")
    pixels = read_scan(scans / "a.png").pixels
    plain, both = (pipeline.segment(pixels, looks=1, tta=tta) for tta in (False, True))
    assert not np.array_equal(plain.theta, both.theta)
    for turn in (np.fliplr, np.flipud):
        again = turn(pipeline.segment(turn(pixels), looks=1, tta=True).mask)
        assert dice(again, both.mask) > max(
            0.9, dice(turn(pipeline.segment(turn(pixels), looks=1).mask), plain.mask)
        )
    assert mhvae("segment", "scans/a.png", "-o", "masks/", "--tta", "--looks", 1).code == 0
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
