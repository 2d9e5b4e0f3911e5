"""`mhvae reconstruct` with tiny models of random weights: pictures, masks, latents, sheets, tables, gates."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.ended import pixels

from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.images.read import read_scan
from mhvae_cli.inference import provenance
from mhvae_cli.training.phantoms import phantom

Mhvae = Callable[..., Any]
HEADER = "input,page,output,status,mask,dice,qc,qc_why,tries,seed,detail,error,made_by"
QUICK = ("--steps", 3)


@pytest.fixture(autouse=True)
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_refined: Path) -> Path:
    """Three phantoms of 61 x 90 px in scans/ of the current folder; the tiny refined model by default."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"MODEL": str(tiny_refined), "DTYPE": "float32", "DEVICE": "cpu"}.items():
        monkeypatch.setenv(f"MHVAE_{name}", value)
    Path("scans").mkdir()
    for number, name in enumerate("abc"):
        Image.fromarray(phantom("fetal-head", number, (61, 90))[0]).save(f"scans/{name}.png")
    return tmp_path / "scans"


def table(folder: str = "out") -> list[dict[str, str]]:
    text = Path(folder, "results.csv").read_text()
    assert text.startswith(HEADER + "\n") and text.endswith("\n")
    return list(csv.DictReader(text.splitlines()))


def listing(folder: str = "out") -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("mhvae-"))


def test_pictures_are_the_pipelines(mhvae: Mhvae, tiny_refined: Path) -> None:
    from mhvae_cli import Pipeline

    ended = mhvae("reconstruct", "scans", "-o", "out/", *QUICK, "--seed", 3)
    names = [f"{name}__recon{end}.png" for name in "abc" for end in ("", "_mask")]
    assert ended.code == 0 and ended.lines == [f"out/{name}" for name in names]
    assert listing() == sorted([*names, "results.csv"])
    pipeline = Pipeline.load(tiny_refined, device="cpu", dtype="float32")
    for name, row in zip("abc", table(), strict=True):
        made = pipeline.reconstruct(f"scans/{name}.png", steps=3, seed=3)
        assert np.array_equal(pixels(row["output"]), made.pixels) and made.pixels.shape == (61, 90)
        mask = pixels(row["mask"])
        assert np.array_equal(mask, made.mask * np.uint8(255))
        looked = pipeline.segment(row["output"]).mask
        assert row == {
            "input": f"scans/{name}.png",
            "page": "0",
            "output": f"out/{name}__recon.png",
            "status": "ok",
            "detail": "invent",
            "mask": f"out/{name}__recon_mask.png",
            "dice": str(round(dice(looked, mask > 0), 4)),
            "qc": "ok",
            "qc_why": "",
            "tries": "1",
            "seed": "3",
            "error": "",
            "made_by": row["made_by"],
        }


def test_size_and_depth_are_the_scans(mhvae: Mhvae) -> None:
    grey = phantom("fetal-head", 5, (33, 47))[0]
    Image.fromarray(np.stack([grey, grey // 2, grey // 3], axis=2)).save("colour.png")
    Image.fromarray(grey.astype(np.uint16) * 100 + 500).save("deep.png")
    Image.fromarray(grey).save("grey.jpg")
    for name in ("colour.png", "deep.png", "grey.jpg"):
        assert mhvae("reconstruct", name, "-o", "out/", *QUICK).code == 0
        made, mask = (pixels(f"out/{Path(name).stem}__recon{end}.png") for end in ("", "_mask"))
        assert made.shape == mask.shape == (33, 47)
        assert made.dtype == (np.uint16 if name == "deep.png" else np.uint8) and mask.dtype == np.uint8
        assert made.std() > 5
    assert mhvae("reconstruct", "deep.png", "-o", "deep.tif", *QUICK).lines == ["deep.tif", "deep_mask.tif"]
    assert np.array_equal(pixels("deep.tif"), pixels("out/deep__recon.png"))


def test_a_turned_scan_gives_a_picture_that_lies_as_it_does(mhvae: Mhvae) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open("scans/a.png") as image:
        image.save("turned.png", exif=exif)
        ImageOps.exif_transpose(Image.open("turned.png")).save("upright.png")
    assert mhvae("reconstruct", "turned.png", "upright.png", "-o", "out", "--no-refine").code == 0
    with Image.open("out/turned__recon.png") as made:
        assert made.size == (90, 61) and dict(made.getexif()) == {0x0112: 6}
        shown = np.array(ImageOps.exif_transpose(made))
    assert np.array_equal(shown, pixels("out/upright__recon.png"))
    with Image.open("out/turned__recon_mask.png") as mask:
        assert mask.size == (90, 61) and not dict(mask.getexif())
        mask.getexif()[0x0112] = 6
        assert np.array_equal(np.array(ImageOps.exif_transpose(mask)), pixels("out/upright__recon_mask.png"))


def test_draws_have_noise_of_their_own(mhvae: Mhvae) -> None:
    ended = mhvae("reconstruct", "scans/a.png", "-o", "out/", "--draws", 2, *QUICK, "--format", "tiff")
    assert ended.lines == [f"out/a__recon_{n}{end}.tiff" for n in range(2) for end in ("", "_mask")]
    first, second = (pixels(f"out/a__recon_{n}.tiff") for n in range(2))
    assert np.abs(first.astype(int) - second).mean() > 1
    assert len(table()) == 2 and len({row["output"] for row in table()}) == 2
    assert mhvae("reconstruct", "scans/a.png", "-o", "one.png", *QUICK).code == 0
    assert np.array_equal(pixels("one.png"), first)
    planned = mhvae("reconstruct", "scans/a.png", "-o", "out/", "--draws", 11, "--dry-run").lines
    assert planned[0] == "out/a__recon_00.png" and planned[-1] == "out/a__recon_10_mask.png"


def test_a_model_without_a_cddpm(mhvae: Mhvae, tiny_model: Path) -> None:
    ended = mhvae("reconstruct", "scans", "-o", "out/", "-m", tiny_model)
    assert ended.code == 6 and "--no-refine" in ended.stderr.splitlines()[1] and not Path("out").exists()
    assert mhvae("reconstruct", "scans", "-o", "out/", "-m", tiny_model, "--no-refine").code == 0
    assert len(listing()) == 7


def test_company_changes_no_byte(mhvae: Mhvae) -> None:
    runs = {
        "one": ["scans", "-b", 1, "-j", 0],
        "two": ["scans/c.png", "scans/b.png", "scans/a.png", "-b", 2, "-j", 3],
        "det": ["scans/b.png", "--deterministic"],
    }
    for folder, options in runs.items():
        assert mhvae("reconstruct", *options, "-o", f"{folder}/", *QUICK, "--save-latents").code == 0
    files = [name for name in listing("one") if name != "results.csv"]
    assert len(files) == 12
    for name in files:
        data = Path("one", name).read_bytes()
        assert data == Path("two", name).read_bytes()
        assert not name.startswith("b") or data == Path("det", name).read_bytes()


def test_the_seed_changes_the_texture_and_not_the_mask(mhvae: Mhvae) -> None:
    for seed in (0, 1):
        assert mhvae("reconstruct", "scans/a.png", "-o", f"{seed}.png", "--seed", seed, *QUICK).code == 0
    assert np.abs(pixels("0.png").astype(int) - pixels("1.png")).mean() > 1
    assert np.array_equal(pixels("0_mask.png"), pixels("1_mask.png"))


def test_a_missed_gate_is_8_and_is_told(mhvae: Mhvae) -> None:
    Path("scans/bad.png").write_bytes(b"")
    options = [*QUICK, "--min-dice", 1, "--tries", 2]
    ended = mhvae("reconstruct", "scans", "-o", "out", *options, "--json")
    assert ended.code == 8
    rows = table()
    assert [row["status"] for row in rows] == ["missed", "missed", "failed", "missed"]
    assert all(Path(row["output"]).exists() and Path(row["mask"]).exists() for row in rows if row["mask"])
    assert all(row["tries"] == "2" and "below 1" in row["error"] for row in rows if row["mask"])
    assert "error: out/a__recon.png: dice 0." in ended.stderr and "after 2 attempts, below 1" in ended.stderr
    told = [json.loads(line) for line in ended.lines]
    assert [list(row) for row in told] == [HEADER.split(",")] * 4
    assert [row["dice"] for row in told if row["dice"]] == [float(row["dice"]) for row in rows if row["dice"]]
    first = mhvae("reconstruct", "scans/a.png", "-o", "once/", *QUICK)
    assert first.code == 0 and float(table("once")[0]["dice"]) <= float(rows[0]["dice"])
    assert mhvae("reconstruct", "scans/a.png", "-o", "low/", *QUICK, "--min-dice", 0.01).code == 0


def test_latents_stand_for_their_image(mhvae: Mhvae) -> None:
    made = mhvae("reconstruct", "scans/a.png", "-o", "out/", "--draws", 2, *QUICK, "--save-latents")
    assert made.lines[2:4] == ["out/a__recon_0.safetensors", "out/a__recon_0.json"]
    for name in ("out/a__recon_0.safetensors", "out/a__recon_1.json"):
        assert mhvae("reconstruct", name, "-o", "again/", *QUICK).code == 0
    for number in range(2):
        again = f"again/a__recon_{number}__recon"
        for end in ("", "_mask"):
            assert np.array_equal(pixels(f"{again}{end}.png"), pixels(f"out/a__recon_{number}{end}.png"))
    shown = json.loads(Path("out/a__recon_0.json").read_text())
    assert shown["size"] == [61, 90] and len(shown["theta"]) == 40 and len(shown["handles"]) == 20


def test_bad_inputs_cost_their_own_rows(mhvae: Mhvae) -> None:
    Path("scans/bad.png").write_text("no image")
    Path("scans/cut.png").write_bytes(Path("scans/a.png").read_bytes()[:900])
    Path("worse.safetensors").write_bytes(b"\x10" + bytes(7) + b"{")
    ended = mhvae("reconstruct", "scans", "nope.png", "worse.safetensors", "-o", "out", *QUICK, "-b", 2)
    status = {Path(row["input"]).name: row["status"] for row in table()}
    assert ended.code == 3 and len(ended.lines) == 6 and "Traceback" not in ended.stderr
    assert status == {f"{name}.png": "ok" for name in "abc"} | dict.fromkeys(
        ["bad.png", "cut.png", "nope.png", "worse.safetensors"], "failed"
    )
    assert len([line for line in ended.stderr.splitlines() if line.startswith("error: ")]) == 4
    assert mhvae("reconstruct", "worse.safetensors", "-o", "none/").code == 4
    assert listing("none") == ["results.csv"]


def test_every_file_says_what_it_is(mhvae: Mhvae, tiny_refined: Path) -> None:
    from mhvae_cli.checkpoints.folder import digest

    shutil.move("scans/a.png", "scans/jane-doe.png")
    options = [*QUICK, "--seed", 4, "--save-latents", "--sheet", "sheet.png"]
    assert mhvae("reconstruct", "scans/jane-doe.png", "-o", "out/", *options).code == 0
    files = [*(Path("out") / name for name in listing() if name != "results.csv"), Path("sheet.png")]
    assert len(files) == 5
    for path in files:
        record = provenance.read(path)
        assert record["synthetic"] is True and record["seed"] == 4 and record["model"] == "tiny-refined"
        assert record["model_sha256"] == digest(tiny_refined)
        assert record["command"] == "mhvae reconstruct --steps 3 --solver dpm++2m-sde"
        if path.name != "sheet.png":
            source = hashlib.sha256(Path("scans/jane-doe.png").read_bytes()).hexdigest()
            assert record["sources"] == [{"sha256": source}] and record["steps"] == 3
        assert b"jane" not in path.read_bytes()
    told = mhvae("inspect", "out/jane-doe__recon.png")
    assert told.code == 0 and any("not for diagnosis" in line for line in told.lines)


def test_one_picture_to_stdout(mhvae: Mhvae) -> None:
    ended = mhvae("reconstruct", "-", "-o", "-", *QUICK, stdin=Path("scans/a.png").read_bytes())
    assert ended.code == 0 and ended.stderr == ""
    assert mhvae("reconstruct", "scans/a.png", "-o", "a.png", *QUICK).lines == ["a.png", "a_mask.png"]
    assert ended.stdout == Path("a.png").read_bytes()
    for extra in (["--json"], ["--save-latents"], ["--draws", 2]):
        assert mhvae("reconstruct", "scans/a.png", "-o", "-", *extra).code == 2


def test_the_sheet_is_one_picture_of_the_run(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("typer.launch", opened.append)
    ended = mhvae("reconstruct", "scans", "-o", "out/", *QUICK, "--sheet", "sheet.png", "--show")
    assert ended.lines[-1] == "sheet.png" and opened == ["sheet.png"]
    columns, rows = 4, 3
    height = pixels("sheet.png").shape[0]
    assert pixels("sheet.png").shape[1] == columns * 260 + 4 and height == pytest.approx(rows * 178, abs=40)
    ended = mhvae("reconstruct", "scans", "-o", "new/", "--sheet", "sheet.png")
    assert ended.code == 7 and "sheet.png: already exists" in ended.stderr and not Path("new").exists()
    ended = mhvae("reconstruct", "scans/a.png", "-o", "new/", "--no-refine", "--show")
    assert ended.code == 0 and len(opened) == 2 and opened[1] in ended.stderr
    assert pixels(opened[1]).shape[1] == 3 * 260 + 4
    shutil.rmtree(Path(opened[1]).parent)


def test_pages_and_shards_and_what_is_there_already(mhvae: Mhvae) -> None:
    images = [Image.fromarray(pixels(f"scans/{name}.png")) for name in "aab"]
    images[0].save("stack.tif", save_all=True, append_images=images[1:])
    for shard in ("1/2", "2/2"):
        assert mhvae("reconstruct", "stack.tif", "-o", "out/", "--shard", shard, *QUICK).code == 0
    assert sorted(row["page"] for row in table()) == ["0", "1", "2"]
    first, second = (pixels(f"out/stack_p{page}__recon.png") for page in (0, 1))
    assert not np.array_equal(first, second)  # the same page twice has two paths of noise
    assert mhvae("reconstruct", "stack.tif", "-o", "out/").code == 7
    Path("out/stack_p1__recon_mask.png").unlink()
    ended = mhvae("reconstruct", "stack.tif", "-o", "out/", "--existing", "skip", *QUICK)
    assert ended.lines == ["out/stack_p1__recon.png", "out/stack_p1__recon_mask.png"]
    assert np.array_equal(pixels("out/stack_p1__recon.png"), second) and len(table()) == 3
    assert read_scan(Path("out/stack_p1__recon_mask.png")).pixels.shape == (61, 90)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--tries", "2"], "--min-dice"),
        (["--tries", "2", "--min-dice", "0.9", "--no-refine"], "--no-refine"),
        (["--min-dice", "1.5"], "--min-dice"),
        (["--steps", "0"], "--steps"),
        (["--solver", "fastest"], "--solver"),
        (["--draws", "0"], "--draws"),
        (["-o", "a.jpg"], ".jpg"),
        (["-o", "a.png", "--format", "tiff"], "--format"),
        (["--sheet", "s.pdf"], "s.pdf"),
    ],
)
def test_options_that_make_no_sense(mhvae: Mhvae, args: list[str], said: str) -> None:
    ended = mhvae("reconstruct", "scans/a.png", *args)
    assert ended.code == 2 and said in ended.stderr and listing(".") == ["scans"]


def test_nothing_is_written_over_an_input(mhvae: Mhvae) -> None:
    shutil.copy("scans/a.png", "scans/a__recon.png")
    ended = mhvae("reconstruct", "scans", "-o", "scans/", "--existing", "overwrite")
    assert ended.code == 7 and "overwrite an input" in ended.stderr
    ended = mhvae("reconstruct", "scans/b.png", "-o", "out/", "--sheet", "scans/b.png")
    assert ended.code == 7 and "overwrite an input" in ended.stderr
