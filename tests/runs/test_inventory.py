"""mhvae-inputs.csv lists the inputs of every shard, once."""

import os
from pathlib import Path
from typing import Any

import pytest

from mhvae_cli.errors import OutputError
from mhvae_cli.runs.inputs import Item
from mhvae_cli.runs.inventory import NAME, read_inputs, record_inputs
from mhvae_cli.runs.outputs import Job


def job(name: str, page: int = 0, folder: str = "m") -> Job:
    return Job(Item(name, name, name, page=page), (Path(folder, f"{name}.png"),))


def names() -> list[str]:
    return [entry.input for entry in read_inputs(Path("m")) or ()]


@pytest.fixture(autouse=True)
def m(here: Path) -> None:
    Path("m").mkdir()


def record(*jobs: Job, folder: str = "m") -> None:
    record_inputs(Path(folder), jobs, guard=Path(folder, "results.csv"))


def test_runs_add_what_they_are_the_first_to_list() -> None:
    assert read_inputs(Path("m")) is None
    record(job("a"), job("b"))
    written = os.stat(f"m/{NAME}").st_ino
    record(job("b"), job("a"))
    assert os.stat(f"m/{NAME}").st_ino == written and names() == ["a", "b"]
    record(job("c"), job("a"), job("a", page=1))
    assert names() == ["a", "b", "c", "a"]


def test_any_name_is_kept() -> None:
    hostile = ["two\nlines", 'quo"te', "=1+1", os.fsdecode(b"\xff"), "ü"]
    record(*map(job, hostile))
    assert names() == [name.replace("=1", "./=1") for name in hostile]
    record(*map(job, hostile))
    assert len(names()) == len(hostile)


def test_another_file_of_that_name_stays(mhvae: Any) -> None:
    Path("m", NAME).write_text("patient,finding\nx,y\n")
    with pytest.raises(OutputError, match="not a list of inputs"):
        record(job("a"))
    assert Path("m", NAME).read_text() == "patient,finding\nx,y\n" and not list(Path("m").glob(".*"))
