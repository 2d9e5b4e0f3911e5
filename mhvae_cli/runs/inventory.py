"""mhvae-inputs.csv: every input of the runs that wrote into a folder, whichever shard it is in.

    input,page,output,file
    scans/x/a.png,0,masks/x/a.png,x/a.png

The first three columns are those of the input's row in results.csv; `file` is the output relative to the
folder. A run adds what it is the first to list, so that the shards of one array write the file once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import OutputError, os_error_text
from ..filesystem import locked, staging, write_atomic
from .outputs import Job
from .results import csv_cell, csv_line, read_rows

NAME = "mhvae-inputs.csv"
COLUMNS = ("input", "page", "output", "file")


@dataclass(frozen=True, slots=True)
class Entry:
    """One output that a run was to write, as in the file."""

    input: str
    page: str
    output: str
    file: str


def record_inputs(folder: Path, jobs: Sequence[Job], *, guard: Path) -> None:
    """Add the jobs of a run, all shards included, to the list of the folder; `guard` is locked meanwhile.

    Raises OutputError if the list cannot be written, or if the file is not such a list.
    """
    path = folder / NAME
    planned = [Entry(*map(str, map(csv_cell, _cells(job, folder)))) for job in jobs if job.outputs]
    try:
        with locked(guard):
            known = dict.fromkeys(read_inputs(folder) or ())
            if not known.keys() >= set(planned):
                entries = (known | dict.fromkeys(planned)).keys()
                lines = [COLUMNS, *((each.input, each.page, each.output, each.file) for each in entries)]
                data = "".join(map(csv_line, lines)).encode(errors="surrogateescape")
                write_atomic(path, data, beside=staging(path, f"{guard.name}-"))
    except OSError as error:
        raise OutputError(f"{path}: {os_error_text(error)}") from error


def read_inputs(folder: Path) -> list[Entry] | None:
    """The list of a folder; None if there is none, as in folders of earlier versions."""
    path = folder / NAME
    if not path.exists():
        return None
    rows = list(read_rows(path))
    if not rows or tuple(rows[0]) != COLUMNS:
        raise OutputError(f"{path}: not a list of inputs", hint="move the file, or choose another folder")
    return [Entry(**row) for row in rows]


def _cells(job: Job, folder: Path) -> tuple[str, int, str, str]:
    first = job.outputs[0]
    return job.item.name, job.item.page, str(first), first.relative_to(folder).as_posix()
