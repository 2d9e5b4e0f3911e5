"""`mhvae status`: whether a folder of results is whole, and what to give to --from-file."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "slurm.sbatch"
Mhvae = Callable[..., Any]


@pytest.fixture(autouse=True)
def scans(here: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, phantom_folder: Path) -> None:
    """Six phantoms in scans/, two of them in a folder of it, and one that cannot be read."""
    monkeypatch.setenv("MHVAE_MODEL", str(tiny_model))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    (here / "scans/x").mkdir(parents=True)
    for name, image in zip("abcdef", sorted((phantom_folder / "images").iterdir()), strict=False):
        shutil.copy(image, here / "scans" / ("x" if name in "ef" else "") / f"{name}.png")


def run(mhvae: Mhvae, *args: object) -> int:
    return mhvae("segment", "scans", "-r", "-o", "m", "-q", *args).code


def facts(mhvae: Mhvae) -> dict[str, Any]:
    ended = mhvae("status", "m", "--json")
    told = json.loads(ended.stdout)
    assert ended.code == (0 if told["whole"] else 3)
    return told


def test_shards_that_have_not_started_are_missing(mhvae: Mhvae) -> None:
    assert run(mhvae, "--shard", "1/3") == 0
    done = len([*Path("m").rglob("*.png")])
    told = facts(mhvae)
    assert told == {
        **{"folder": "m", "shards_seen": [1], "shards": 3, "inputs": 6, "done": done, "stale": 0},
        **{"failed": 0, "missing": 6 - done, "whole": False},
    }
    ended = mhvae("status", "m")
    assert ended.lines == [f"m: 1 of 3 shards seen, 6 inputs: {done} done, 0 failed, {6 - done} missing"]
    assert ended.code == 3 and not ended.stderr
    for shard in ("2/3", "3/3"):
        assert run(mhvae, "--shard", shard) == 0
    ended = mhvae("status", "m")
    assert (ended.code, ended.lines) == (0, ["m: 3 of 3 shards seen, 6 inputs: 6 done, 0 failed, 0 missing"])
    assert mhvae("status", "m", "--missing").lines == []


def test_what_is_missing_can_be_done_by_name(mhvae: Mhvae) -> None:
    assert run(mhvae) == 0
    for name in ("m/b.png", "m/x/e.png"):
        os.remove(name)
    ended = mhvae("status", "m", "--missing")
    assert ended.code == 3 and ended.lines == ["scans/b.png", "scans/./x/e.png"]
    assert ended.stderr == "m: 6 inputs: 4 done, 0 failed, 2 missing\n"
    lines = mhvae("status", "m", "--missing", "--json").lines
    assert [json.loads(line)["input"] for line in lines] == ["scans/b.png", "scans/x/e.png"]
    again = ("segment", "--from-file", "-", "-o", "m/", "--existing", "skip", "-q")
    assert mhvae(*again, stdin=ended.stdout).lines == ["m/b.png", "m/x/e.png"]
    assert facts(mhvae)["done"] == 6


def test_a_shard_finds_the_inputs_of_a_list_as_those_of_the_folder(mhvae: Mhvae) -> None:
    listed = "scans/a.png\nscans/b.png\nscans/c.png\nscans/d.png\nscans/./x/e.png\nscans/./x/f.png\n"
    args = ("-o", "m", "--dry-run", "--shard", "1/2")
    by_list = mhvae("segment", "--from-file", "-", *args, stdin=listed.encode()).lines
    assert by_list and by_list == mhvae("segment", "scans", "-r", *args).lines


def test_what_follows_the_mark_never_leaves_the_output(mhvae: Mhvae) -> None:
    ended = mhvae("segment", "scans/./x/../a.png", "-o", "m/", "--dry-run")
    assert ended.lines == ["m/a.png"]


def test_failed_and_stale_results_are_told_apart(mhvae: Mhvae) -> None:
    Path("scans/b.png").write_bytes(b"")
    assert run(mhvae) == 3
    assert mhvae("status", "m").lines == ["m: 6 inputs: 5 done, 1 failed, 0 missing"]
    assert mhvae("status", "m").code == 3 and mhvae("status", "m", "--missing").lines == []
    shutil.copy("scans/a.png", "scans/b.png")
    shutil.copy("scans/a.png", "scans/c.png")
    assert run(mhvae, "--existing", "skip") == 7
    assert mhvae("status", "m").lines == ["m: 6 inputs: 5 done, 1 stale, 0 failed, 0 missing"]
    assert run(mhvae, "--existing", "overwrite") == 0
    assert facts(mhvae)["whole"]


def test_a_file_added_later_is_one_more(mhvae: Mhvae) -> None:
    assert run(mhvae, "--shard", "1/2") == 0
    shutil.copy("scans/a.png", "scans/g.png")
    assert run(mhvae, "--shard", "2/2") == 0
    assert facts(mhvae)["inputs"] == 7
    assert run(mhvae, "--shard", "1/2", "--existing", "skip") == 0
    assert facts(mhvae)["whole"]


def test_other_names_of_the_same_folder(mhvae: Mhvae, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(mhvae, "--shard", "1/2") == 0
    (here / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert mhvae("segment", "../scans", "-r", "-o", f"{here}/m", "--existing", "skip").code == 0
    assert json.loads(mhvae("status", "../m", "--json").stdout) | {"folder": ""} == {
        **{"folder": "", "shards_seen": [1], "shards": 2, "inputs": 6, "done": 6, "stale": 0},
        **{"failed": 0, "missing": 0, "whole": True},
    }


def test_a_folder_of_an_earlier_version(mhvae: Mhvae) -> None:
    assert run(mhvae) == 0
    os.remove("m/mhvae-inputs.csv")
    ended = mhvae("status", "m")
    assert ended.lines == ["m: 6 done, 0 failed"] and ended.code == 3
    assert ended.stderr.startswith("warning: m: missing inputs are unknown") and ended.stderr.count("\n") == 1
    told = facts(mhvae)
    assert told["missing"] is None and told["inputs"] is None and not told["whole"]
    assert run(mhvae, "--existing", "skip") == 0
    assert facts(mhvae)["whole"]


def test_folders_without_results(mhvae: Mhvae) -> None:
    for name, said in (("scans", "no mhvae results"), ("nowhere", "no such folder")):
        ended = mhvae("status", name)
        assert ended.code == 4 and ended.stderr.startswith(f"error: {name}: {said}") and not ended.lines


def test_a_name_with_a_line_break_is_not_two_paths(mhvae: Mhvae) -> None:
    shutil.copy("scans/a.png", "scans/two\nlines.png")
    assert run(mhvae) == 0
    os.remove("m/two\nlines.png")
    ended = mhvae("status", "m", "--missing")
    assert ended.code == 3 and not ended.lines and "line break" in ended.stderr
    assert json.loads(mhvae("status", "m", "--missing", "--json").stdout)["input"] == "scans/two\nlines.png"


def test_the_example_for_slurm(mhvae: Mhvae, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("bin").mkdir()
    Path("bin/mhvae").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    Path("bin/mhvae").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}/bin", prepend=os.pathsep)
    for part, value in (("COUNT", 8), ("MIN", 1), ("STEP", 1)):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{part}", str(value))
    for task in range(1, 9):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", str(task))
        command = subprocess.run(
            ["bash", SCRIPT, "scans/", "m/", "--progress", "off"], capture_output=True, text=True, check=True
        )
        ended = mhvae(*command.stdout.splitlines())
        assert ended.code == 0 and f"--shard auto: {task}/8" in ended.stderr
    assert facts(mhvae)["shards_seen"] == list(range(1, 9)) and facts(mhvae)["whole"]
