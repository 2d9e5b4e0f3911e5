"""Output folders of runs, the rows and runs that they tell of, and a command in a fork."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def rows(folder: str = "m") -> list[dict[str, str]]:
    with Path(folder, "results.csv").open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def states(folder: str = "m") -> dict[str, str]:
    found = [(Path(row["input"]).stem, row["status"]) for row in rows(folder)]
    assert len(found) == len(dict(found))
    return dict(found)


def runs(folder: str = "m") -> list[dict[str, Any]]:
    return json.loads(Path(folder, "mhvae-run.json").read_text())["runs"]


def whole(folder: str = "m") -> bool:
    """Every picture can be read, has one row that says ok, and nothing else is there."""
    names = {path.name for path in Path(folder).iterdir()} - {
        "results.csv",
        "mhvae-run.json",
        "mhvae-inputs.csv",
    }
    for name in names:
        with Image.open(Path(folder, name)) as image:
            image.load()
    told = [Path(row["output"]).name for row in rows(folder)]
    return sorted(told) == sorted(names) and all(row["status"] == "ok" for row in rows(folder))


class Fork:
    """The command in a fork of this process, whose torch is warm; `first` runs there before it."""

    def __init__(self, *args: object, first: Callable[[], None] = lambda: None) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            self.said = os.fdopen(reading, "rb")
            return
        try:
            from typer.testing import CliRunner

            from mhvae_cli.cli import app

            # OpenMP's other threads are not forked, and would be waited for in vain.
            os.environ["MHVAE_THREADS"] = "1"
            first()
            ended = CliRunner().invoke(app, [str(arg) for arg in args])
            os.write(writing, ended.stderr.encode())
            os._exit(ended.exit_code)
        finally:
            os._exit(99)

    def wait(self) -> tuple[int, str]:
        """The exit code, or the signal as a negative number, and stderr."""
        with self.said:
            text = self.said.read().decode()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), text


def crowd(count: int) -> None:
    """That many inputs, no two with the same bytes."""
    pixels = np.array(Image.open("scans/a.png"))
    for number in range(count):
        pixels[0, :2] = divmod(number, 256)
        Image.fromarray(pixels).save(f"scans/n{number:03}.png")
