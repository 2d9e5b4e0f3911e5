"""What counts as done: outputs of the same input, model and options, and no others."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.run_folders import rows, states, whole

Mhvae = Callable[..., Any]
SKIP = ("--existing", "skip")


pytestmark = pytest.mark.usefixtures("three_scans")


def test_skip_leaves_only_what_the_same_input_model_and_options_made(
    mhvae: Mhvae, here: Path, tiny_model: Path
) -> None:
    assert mhvae("segment", "scans", "-o", "m").code == 0
    before = {path: path.read_bytes() for path in Path("m").glob("*.png")}
    assert mhvae("segment", "scans", "-o", "m", *SKIP).code == 0

    shutil.copy("scans/a.png", "scans/b.png")
    ended = mhvae("segment", "scans", "-o", "m", "--json", *SKIP)
    told = {Path(line["input"]).stem: line for line in map(json.loads, ended.lines)}
    assert ended.code == 7 and {name: line["status"] for name, line in told.items()} == {
        "a": "skipped",
        "b": "stale",
        "c": "skipped",
    }
    assert told["b"]["error"] == "made from another input"
    first, second = ended.stderr.splitlines()[:2]
    assert first == "error: m/b.png: stale: made from another input" and "--existing overwrite" in second
    assert states() == {"a": "ok", "b": "stale", "c": "ok"} and rows()[1]["area_px"]

    ended = mhvae("segment", "scans/a.png", "-o", "m/", "--spacing", "0.2", *SKIP)
    assert ended.code == 7 and "m/a.png: stale: made with other options" in ended.stderr
    shutil.copytree(tiny_model, "other")
    config = json.loads(Path("other/config.json").read_text())
    Path("other/config.json").write_text(json.dumps(config | {"name": "other"}))
    ended = mhvae("segment", "scans", "-o", "m", "-m", "other", *SKIP)
    assert ended.code == 7 and "a.png: stale (and 2 more): made by another model" in ended.stderr
    assert states() == dict.fromkeys("abc", "stale")
    assert {path: path.read_bytes() for path in Path("m").glob("*.png")} == before

    Path("m/c.png").unlink()
    ended = mhvae("segment", "scans", "-o", "m", *SKIP)  # what was stale for others is right for this one
    assert ended.code == 7 and ended.lines == ["m/c.png"] and states() == {"a": "ok", "b": "stale", "c": "ok"}
    assert mhvae("segment", "scans", "-o", "m", "--existing", "overwrite").code == 0 and whole()
    assert np.array_equal(np.array(Image.open("m/a.png")), np.array(Image.open("m/b.png")))


def test_how_it_runs_and_what_it_is_called_do_not_count(
    mhvae: Mhvae, here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mhvae("segment", "scans", "-o", "m").code == 0
    for options in (["-b", 1, "-j", 0], ["--dtype", "bfloat16"], ["--device", "cpu"], ["-m", tiny_model]):
        assert mhvae("segment", "scans", "-o", "m", *options, *SKIP).code == 0
    assert mhvae("segment", here / "scans", "-o", here / "m", *SKIP).code == 0
    monkeypatch.chdir("m")
    assert mhvae("segment", "../scans", *SKIP).code == 0 and whole(".")


def test_what_no_table_tells_of_is_stale(mhvae: Mhvae) -> None:
    Path("m").mkdir()
    Path("m/a.png").write_bytes(b"mine")
    dry = mhvae("segment", "scans", "-o", "m", "--dry-run", *SKIP)
    assert dry.code == 7 and dry.lines == ["m/b.png", "m/c.png"] and "m/a.png: stale" in dry.stderr
    ended = mhvae("segment", "scans", "-o", "m", *SKIP)
    assert ended.code == 7 and ended.lines == dry.lines and Path("m/a.png").read_bytes() == b"mine"
    assert states() == {"a": "stale", "b": "ok", "c": "ok"}
    assert mhvae("segment", "scans", "-o", "m", *SKIP).code == 7 and len(rows()) == 3
    assert mhvae("segment", "scans/a.png", "-o", "one.png").code == 0
    assert mhvae("segment", "scans/a.png", "-o", "one.png", *SKIP).code == 7


def test_a_row_of_the_spacings_counts_and_the_others_do_not(mhvae: Mhvae) -> None:
    given = ("--spacing-csv", "mm.csv")
    Path("mm.csv").write_text("filename,spacing\na.png,0.1\nb.png,0.2\n")
    assert mhvae("segment", "scans", "-o", "m", *given).code == 0
    Path("mm.csv").write_text("filename,spacing\nz.png,9\na.png,0.1\nb.png,0.3\n")
    assert mhvae("segment", "scans", "-o", "m", *given, *SKIP).code == 7
    assert states() == {"a": "ok", "b": "stale", "c": "ok"}


def test_pages_of_one_file_are_told_apart(mhvae: Mhvae) -> None:
    images = [Image.open(f"scans/{name}.png") for name in "abc"]
    images[0].save("s.tif", save_all=True, append_images=images[1:])
    assert mhvae("segment", "s.tif", "-o", "m").code == 0
    assert len({row["made_by"] for row in rows()}) == 3
    assert mhvae("segment", "s.tif", "-o", "m", *SKIP).code == 0


@pytest.mark.parametrize(
    ("args", "changed"),
    [
        (["reconstruct", "scans"], ["--seed", 1]),
        (["swap-style", "scans"], ["--mix", 0.5]),
        (["warp", "scans/a.png", "scans/b.png", "--rotate", 20], ["--about", "image"]),
        (["interpolate", "scans/a.png", "scans/b.png", "--gif"], ["--solver", "heun"]),
        (["sample", "-n", 2, "--codes", "prior"], ["--size", "20x30"]),
    ],
)
def test_made_pictures_are_done_or_stale(mhvae: Mhvae, args: list[Any], changed: list[Any]) -> None:
    verb = (*args, "-o", "m/", "-q", *([] if "--solver" in changed else ["--no-refine"]), "--steps", 1)
    common = (*verb, *(["-m", os.environ["MHVAE_MODEL"]]))
    if "--solver" in changed:
        common = tuple(word for word in (*common, "--no-refine"))
    assert mhvae(*common).code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("m").rglob("*.png")}
    assert mhvae(*common, *SKIP).code == 0
    ended = mhvae(*common, *changed, *SKIP)
    assert ended.code == 7 and "stale (and" in ended.stderr and "with other options" in ended.stderr
    assert {path: path.stat().st_mtime_ns for path in Path("m").rglob("*.png")} == before
    if args[0] == "sample":
        assert mhvae(*(3 if word == 2 else word for word in common), *SKIP).code == 0  # a set grows
    if args[0] == "interpolate":
        Path("m/a__to-b_1.png").unlink()
        ended = mhvae(*common, *changed, *SKIP)
        assert (
            ended.code == 7 and len(ended.stderr.splitlines()) == 2
        )  # an album needs all, and some are stale


def test_an_output_whose_input_vanishes_is_left_alone(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.runs.fingerprint import RunFingerprint

    assert mhvae("segment", "scans", "-o", "m", "-q").code == 0
    why_stale, before = RunFingerprint.why_stale, Path("m/b.png").read_bytes()

    def gone(*args: Any) -> Any:
        os.remove("scans/b.png")
        return why_stale(*args)

    monkeypatch.setattr(RunFingerprint, "why_stale", gone)
    ended = mhvae("segment", "scans", "-o", "m", "-q", *SKIP)
    assert ended.code == 3 and ended.stderr == "error: scans/b.png: no such file or directory\n"
    assert Path("m/b.png").read_bytes() == before and states()["b"] == "failed"
