"""Where results go: output names, clashes with existing files, and stdout."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from ..errors import OutputError, UsageError

if TYPE_CHECKING:
    from .inputs import Item

SHOWN = 4
"""How many more of several things a message names."""


@dataclass(frozen=True)
class Target:
    """The meaning of `--out`: an output `folder`, a single `file`, or stdout if both are None."""

    folder: Path | None = None
    file: Path | None = None

    @property
    def stdout(self) -> bool:
        """Whether the result goes to stdout."""
        return self.folder is None and self.file is None


@dataclass(frozen=True, slots=True)
class Job:
    """One item, its output files (none for stdout), and whether they exist and are to be skipped.

    Skipped outputs may be `stale`: the reason why this run would give a different result. `made_of` are the
    sources of the files, by default the item; `record` distinguishes results from the same sources.
    """

    item: "Item"
    outputs: tuple[Path, ...]
    skip: bool = False
    stale: str = ""
    made_of: "tuple[Item, ...] | None" = None
    record: Mapping[str, object] = field(default_factory=dict)

    @property
    def sources(self) -> "tuple[Item, ...]":
        """The sources of the files."""
        return (self.item,) if self.made_of is None else self.made_of


def find_target(out: str | None, *, many: bool) -> Target:
    """A folder if it is one, ends in a slash or there may be `many` outputs, else a file; `-` is stdout.

    Raises UsageError for stdout with many outputs or on a terminal, OutputError for a file where a folder is
    needed.
    """
    if out == "-":
        if many:
            raise UsageError("-o - needs exactly one image, got several", hint="give a folder: -o masks/")
        if sys.stdout.isatty():
            raise UsageError(
                "-o - writes an image, but stdout is a terminal", hint="redirect it: -o - > mask.png"
            )
        return Target()
    folder = out is None or many or out.endswith(("/", os.sep)) or os.path.isdir(out)
    if not folder:
        return Target(file=Path(out or "."))
    path = Path(out or ".")
    if path.exists() and not path.is_dir():
        raise OutputError(
            f"{path}: is a file, but the outputs need a folder", hint="give a folder: -o masks/"
        )
    return Target(folder=path)


def plan(items: Sequence["Item"], target: Target, endings: Sequence[str]) -> list[Job]:
    """The outputs of every item, one per ending (`.png`, `__overlay.png`); the disk is not accessed.

    Raises OutputError as `refuse_clashes` does.
    """
    jobs = [Job(item, output_paths(item.stem, target, endings)) for item in items]
    refuse_clashes(jobs, items)
    return jobs


def output_paths(
    stem: PurePath,
    target: Target,
    endings: Sequence[str],
    *,
    mask: PurePath | None = None,
    latents: PurePath | None = None,
) -> tuple[Path, ...]:
    """The paths of the files of one result, one per ending; empty for stdout.

    `mask` is the path of the second file in the folder without its suffix, if it is not the stem and the
    ending; `latents` is that of the files after it.
    """
    if target.stdout:
        return ()
    if target.file is not None:
        return (target.file, *(target.file.with_name(target.file.stem + ending) for ending in endings[1:]))
    folder = target.folder or Path()
    paths = [folder / stem.with_name(stem.name + ending) for ending in endings]
    if mask is not None:
        paths[1] = folder / mask.with_name(mask.name + paths[1].suffix)
    if latents is not None:
        paths[2:] = [folder / latents.with_name(latents.name + ending) for ending in endings[2:]]
    return tuple(paths)


def refuse_clashes(jobs: Sequence[Job], inputs: Iterable["Item"]) -> None:
    """OutputError if two jobs would write one name, whatever its case, or one would write over an input.

    The message has the inputs of the first such output, and names others.
    """
    taken = {os.path.abspath(item.source) for item in inputs if isinstance(item.source, Path)}
    overwritten: list[Path] = []
    writers: dict[str, list[tuple[Path, Job]]] = {}
    for job in jobs:
        for path in job.outputs if job.item.error is None else ():
            where = os.path.abspath(path)
            if where in taken:
                overwritten.append(path)
            writers.setdefault(where.casefold(), []).append((path, job))
    if overwritten:
        raise OutputError(
            f"{overwritten[0]}: would overwrite an input{and_more(overwritten)}",
            hint="choose another output: -o masks/",
        )
    clashes: dict[tuple[int, ...], list[tuple[Path, Job]]] = {}
    for found in writers.values():
        if len(found) > 1:  # of an image and its mask, the image is enough
            clashes.setdefault(tuple(id(job) for _, job in found), found)
    if clashes:
        first, *_ = clashes.values()
        *names, last = [job.item.name for _, job in first]
        count = "two" if len(first) == 2 else len(first)
        raise OutputError(
            f"{first[0][0]}: {count} inputs would write it: {', '.join(names)} and {last}"
            + and_more([found[0][0] for found in clashes.values()]),
            hint="rename one, give each its own -o, or use --recursive on a folder above both",
        )


def and_more(things: Sequence[object]) -> str:
    """How many things there are besides the first, with the names of some."""
    others = things[1 : 1 + SHOWN]
    rest = ", ..." if len(things) > 1 + SHOWN else ""
    return f" (and {len(things) - 1} more: {', '.join(map(str, others))}{rest})" if others else ""


def refuse_existing(jobs: Iterable[Job], policy: str) -> None:
    """OutputError if an output exists and the policy of --existing is `error`."""
    if policy != "error":
        return
    named = (path for job in jobs if job.item.error is None for path in job.outputs)
    existing = [path for path in named if os.path.lexists(path)]
    if existing:
        others = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise OutputError(
            f"{existing[0]}: already exists{others}", hint="use --existing skip or --existing overwrite"
        )


def choose_format(format: str | None, target: Target, suffixes: Mapping[str, str], *, what: str) -> str:
    """--format, else the output's suffix, else png; UsageError if they disagree or the suffix is unknown.

    `what` names the outputs in the message: "masks".
    """
    suffix = target.file.suffix.lower() if target.file else ""
    named = suffixes.get(suffix)
    if format and named and format != named:
        raise UsageError(
            f"{target.file}: ends in {suffix}, but --format is {format}", hint="leave one of them out"
        )
    if suffix and not format and not named:
        raise UsageError(
            f"{target.file}: cannot write {what} as {suffix}", hint=f"supported: {', '.join(suffixes)}"
        )
    return format or named or "png"
