"""Files and the rows that tell of them, so that a run may be killed anywhere and another may go on."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .outputs import Job
from .table import Keep, Key, held_name


def put(
    outputs: Sequence[Path], files: Sequence[bytes], recorded: Callable[[], Any], *, table: Path | None
) -> None:
    """Write the files of one job, all or none, and have it recorded, while the `table`, if any, is held.

    What was there goes first, and the record comes before the files: wherever this is killed, no file is
    there that the record does not tell of.
    """
    from ..filesystem import place, stage

    staged = [held_name(path, table) for path in outputs]
    placed: list[Path] = []
    try:
        for beside, path, data in zip(staged, outputs, files, strict=bool(outputs)):
            stage(beside, path, data)
        for path in outputs if table else ():
            path.unlink(missing_ok=True)
        recorded()
        for beside, path in zip(staged, outputs, strict=True):
            place(beside, path)
            placed.append(path)
    except BaseException:
        for path in placed:  # a picture without its mask is worse than none
            path.unlink(missing_ok=True)
        raise
    finally:
        for beside in staged:
            beside.unlink(missing_ok=True)


def keeper(jobs: Sequence[Job]) -> Keep:
    """Which rows of earlier runs stay, and how: those of results that are made again do not."""
    fate: dict[Key, str] = {}
    for job in jobs:
        name, page, output = key_of(job)
        fate[name, page, output] = "anew" if not job.skip else "stale" if job.stale else "right"
        if not job.skip:
            fate[name, page, ""] = "anew"  # a failed row names no output

    def keep(row: dict[str, str]) -> dict[str, str] | None:
        now = fate.get((row["input"], row["page"], row["output"]))
        if now == "anew":
            return None
        if now == "right" and row["status"] == "stale":  # it was for another run
            return row | {"status": "missed" if row.get("error") else "ok"}
        return row | {"status": "stale"} if now == "stale" else row

    return keep


def key_of(job: Job) -> Key:
    """What tells a job's row from others."""
    return job.item.name, str(job.item.page), str(job.outputs[0]) if job.outputs else ""
