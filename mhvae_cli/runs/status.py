"""Whether a folder of results is whole: the shards seen, and which inputs are done, failed or missing."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..errors import InputError
from .inventory import Entry, read_inputs
from .manifest import NAME as MANIFEST
from .manifest import read_runs
from .results import read_rows

DONE = ("ok", "missed")
Rows = Mapping[tuple[str, str, str], str]


@dataclass(frozen=True)
class Status:
    """`seen` are the numbers of the shards that have started, of `shards` in all (0: not in shards).

    `missing` are the inputs without a result, None if the folder has no list of its inputs; `stale` results
    differ from what the last run would give.
    """

    seen: tuple[int, ...]
    shards: int
    done: int
    stale: int
    failed: int
    missing: tuple[Entry, ...] | None

    @property
    def whole(self) -> bool:
        """Whether every input is known and has an up-to-date result."""
        return self.missing == () and not self.stale and not self.failed

    def counts(self) -> dict[str, int | None]:
        """The numbers of inputs, by outcome."""
        missing = None if self.missing is None else len(self.missing)
        inputs = None if missing is None else self.done + self.stale + self.failed + missing
        outcomes = {"done": self.done, "stale": self.stale, "failed": self.failed, "missing": missing}
        return {"inputs": inputs, **outcomes}


def read_status(folder: Path) -> Status:
    """The status of a folder; InputError if no run wrote into it."""
    table = folder / "results.csv"
    if not (folder / MANIFEST).is_file() and not table.is_file():
        what = "no mhvae results in this folder" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {what}", hint="give the --out folder of a run")
    rows = {(row["input"], row["page"], row["output"]): row["status"] for row in read_rows(table)}
    entries = read_inputs(folder)
    outcomes = list(rows.values()) if entries is None else []
    by_file: dict[str, list[Entry]] = {}  # a folder may have been named in several ways
    for entry in entries or ():
        by_file.setdefault(entry.file, []).append(entry)
    missing = []
    for file, named in by_file.items():
        outcome = _outcome(named, rows, os.path.lexists(folder / file))
        outcomes.append(outcome)
        if outcome == "missing":
            missing.append(named[-1])
    seen, shards = _shards(folder)
    done = sum(map(outcomes.count, DONE))
    counts = (done, outcomes.count("stale"), outcomes.count("failed"))
    return Status(seen, shards, *counts, None if entries is None else tuple(missing))


def input_path(entry: Entry) -> str:
    """An input as an operand that gives the same output: its subfolders in the folder follow `/./`."""
    path, kept = PurePath(entry.input), PurePath(entry.file).parts[:-1]
    depth = len(kept)
    if not depth or path.parts[-1 - depth : -1] != kept:
        return entry.input
    return os.path.join(*path.parts[: -1 - depth], ".", *path.parts[-1 - depth :])


def _outcome(named: list[Entry], rows: Rows, exists: bool) -> str:
    """The status of an output; a row precedes its file, so that a killed run may leave it without one."""
    if exists:
        found = [rows[key] for each in named if (key := (each.input, each.page, each.output)) in rows]
        if found:
            return found[-1]
    failed = any((each.input, each.page, "") in rows for each in named)
    return "failed" if failed else "missing"


def _shards(folder: Path) -> tuple[tuple[int, ...], int]:
    """The shards seen and their number, by the last run in shards."""
    found = [run["shard"].split("/") for run in read_runs(folder) if isinstance(run.get("shard"), str)]
    if not found:
        return (), 0
    count = found[-1][1]
    return tuple(sorted({int(number) for number, of in found if of == count})), int(count)
