"""`mhvae status OUT`: whether a folder of results is whole."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..runs.console import print_note, print_warning, write_line
from ..runs.inventory import NAME
from ..runs.status import Status, input_path, read_status
from . import options

EXAMPLES = (
    "mhvae status masks/",
    "mhvae status masks/ --missing --json",
)


def status(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="The --out folder of one or several runs.")],
    missing: Annotated[
        bool,
        typer.Option(
            "--missing",
            help="Print the inputs without a result, one path per line, for --from-file -. The folder given"
            " to the run ends at /./, and what follows is kept in the output.",
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show whether a folder of results is whole: which inputs are done, failed or missing.

    Counts the inputs of all runs that wrote into the folder, including those
    of shards that have not started. The exit code is 3 if an input failed or
    is missing, or if a result is stale. Paths are those given to the runs. With
    --missing and --json, each missing input is one JSON line.
    """
    found = read_status(folder)
    if missing:
        for line in _missing_lines(found, as_json):
            write_line(line)
        print_note(_summary(folder, found))
    elif as_json:
        facts = {"shards_seen": found.seen, "shards": found.shards, **found.counts(), "whole": found.whole}
        write_line(json.dumps({"folder": str(folder), **facts}))
    else:
        write_line(_summary(folder, found))
    if found.missing is None:
        print_warning(
            f"{folder}: missing inputs are unknown without {NAME}, which older versions did not write"
        )
    if not found.whole:
        raise typer.Exit(3)


def _missing_lines(found: Status, as_json: bool) -> list[str]:
    """One line per missing input, each path once."""
    entries = found.missing or ()
    if as_json:
        return [json.dumps(asdict(entry)) for entry in entries]
    paths = dict.fromkeys(map(input_path, entries))
    for path in paths:
        if "\n" in path:
            print_warning(f"{path}: has a line break in its name and is not listed: use --json")
    return [path for path in paths if "\n" not in path]


def _summary(folder: Path, found: Status) -> str:
    counts = found.counts()
    shards = f"{len(found.seen)} of {found.shards} shards seen, " if found.shards else ""
    inputs = counts.pop("inputs")
    total = "" if inputs is None else f"{inputs} inputs: "
    outcomes = [f"{n} {name}" for name, n in counts.items() if n is not None and (n or name != "stale")]
    return f"{folder}: {shards}{total}{', '.join(outcomes)}"
