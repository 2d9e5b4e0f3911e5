"""The status of a folder, from the files that runs leave there."""

import json
from pathlib import Path

import pytest

from mhvae_cli.errors import InputError, OutputError
from mhvae_cli.runs.inventory import Entry
from mhvae_cli.runs.status import input_path, read_status


@pytest.mark.parametrize(
    ("input", "file", "path"),
    [
        ("scans/a.png", "a.png", "scans/a.png"),
        ("scans/x/a.png", "x/a.png", "scans/./x/a.png"),
        ("x/a.png", "x/a.png", "./x/a.png"),
        ("/d/x/y/a.tif", "x/y/a_p3.png", "/d/./x/y/a.tif"),
        ("sample_s0_000001", "images/sample_s0_000001.png", "sample_s0_000001"),
    ],
)
def test_the_operand_that_gives_the_same_output(input: str, file: str, path: str) -> None:
    assert input_path(Entry(input, "0", f"m/{file}", file)) == path


def folder(here: Path, rows: str, entries: str, shards: list[str | None]) -> Path:
    (here / "m").mkdir()
    (here / "m/results.csv").write_text("input,page,output,status,error\n" + rows)
    (here / "m/mhvae-inputs.csv").write_text("input,page,output,file\n" + entries)
    runs = [{"id": str(number), "shard": shard} for number, shard in enumerate(shards)]
    (here / "m/mhvae-run.json").write_text(json.dumps({"format": 1, "runs": runs}))
    return here / "m"


def test_a_row_without_its_file_is_not_done(here: Path) -> None:
    rows = "a.png,0,m/a.png,ok,\nb.png,0,m/b.png,missed,dice\n"
    found = folder(here, rows, "a.png,0,m/a.png,a.png\nb.png,0,m/b.png,b.png\n", [])
    (found / "b.png").touch()
    status = read_status(found)
    assert (status.done, status.failed) == (1, 0) and status.missing is not None
    assert [entry.input for entry in status.missing] == ["a.png"] and not status.whole


def test_a_file_without_its_row_is_not_done(here: Path) -> None:
    """As while a run with --existing overwrite has not come to it."""
    found = folder(here, "a.png,0,m/x/a.png,ok,\n", "a.png,0,m/a.png,a.png\n", [])
    (found / "a.png").touch()
    assert len(read_status(found).missing or ()) == 1


def test_shards_are_those_of_the_last_number(here: Path) -> None:
    found = folder(here, "", "a.png,0,m/a.png,a.png\n", ["1/2", "4/5", "2/5", None, "4/5"])
    status = read_status(found)
    assert (status.seen, status.shards) == ((2, 4), 5) and not status.whole


def test_folders_that_are_none_of_ours(here: Path) -> None:
    with pytest.raises(InputError, match="no mhvae results"):
        read_status(here)
    found = folder(here, "", "", [])
    (found / "mhvae-inputs.csv").write_text("patient,finding\nx,y\n")
    with pytest.raises(OutputError, match="not a list of inputs"):
        read_status(found)
