"""Where results go: the names of outputs, what may be there already, and the streams."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..errors import OutputError, UsageError

if TYPE_CHECKING:
    from .inputs import Item


@dataclass(frozen=True)
class Target:
    """What `--out` means: a `folder` of results, else one `file`, else (both None) stdout."""

    folder: Path | None = None
    file: Path | None = None

    @property
    def stdout(self) -> bool:
        """Whether the one result goes to stdout."""
        return self.folder is None and self.file is None


@dataclass(frozen=True, slots=True)
class Job:
    """One item, the files it makes (none if it goes to stdout), and whether they are there and left alone.

    Those that are left alone may be `stale`: why they are not what this run would make. `made_of` is what
    the files are made from, by default the item, and `record` tells them from others that are made from it.
    """

    item: "Item"
    outputs: tuple[Path, ...]
    skip: bool = False
    stale: str = ""
    made_of: "tuple[Item, ...] | None" = None
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sources(self) -> "tuple[Item, ...]":
        """What the files are made from."""
        return (self.item,) if self.made_of is None else self.made_of


def find_target(out: str | None, *, many: bool) -> Target:
    """A folder if it is one, ends in a slash or there may be `many` outputs, else a file; `-` is stdout.

    Raises UsageError for stdout with many outputs or a terminal there, OutputError for a file in a folder's
    place.
    """
    if out == "-":
        if many:
            raise UsageError("-o - takes one image, not several", hint="name a folder: -o masks/")
        if sys.stdout.isatty():
            raise UsageError(
                "-o - writes an image, and stdout is a terminal", hint="redirect it: -o - > mask.png"
            )
        return Target()
    folder = out is None or many or out.endswith(("/", os.sep)) or os.path.isdir(out)
    if not folder:
        return Target(file=Path(out or "."))
    path = Path(out or ".")
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}: a file, where the outputs need a folder", hint="name a folder: -o masks/")
    return Target(folder=path)


def plan(items: Sequence["Item"], target: Target, endings: Sequence[str]) -> list[Job]:
    """The outputs of every item, one an ending (`.png`, `__overlay.png`); only names are looked at.

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
    """Where the files of one result go, one an ending; none to stdout.

    `mask`: the second's path in the folder without its suffix, if it is not the stem and the ending;
    `latents`: that of those behind it.
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
    """OutputError if two jobs would write one name, whatever its case, or one would write over an input."""
    taken = {os.path.abspath(item.source) for item in inputs if isinstance(item.source, Path)}
    owners: dict[str, Job] = {}
    for job in jobs:
        for path in job.outputs if job.item.fault is None else ():
            where = os.path.abspath(path)
            if where in taken:
                raise OutputError(f"{path}: would overwrite an input", hint="name another place: -o masks/")
            owner = owners.setdefault(where.casefold(), job)
            if owner is not job or job.outputs.count(path) > 1:
                raise OutputError(
                    f"{path}: two inputs would write it: {owner.item.name} and {job.item.name}",
                    hint="rename one, give each its own -o, or use --recursive on a folder above both",
                )


def refuse_existing(jobs: Iterable[Job], policy: str) -> None:
    """OutputError if an output is there and the policy of --existing is `error`."""
    if policy != "error":
        return
    named = (path for job in jobs if job.item.fault is None for path in job.outputs)
    there = [path for path in named if os.path.lexists(path)]
    if there:
        others = f" (and {len(there) - 1} more)" if len(there) > 1 else ""
        raise OutputError(
            f"{there[0]}: exists already{others}", hint="--existing skip or --existing overwrite"
        )


def choose_format(format: str | None, target: Target, suffixes: Mapping[str, str], *, what: str) -> str:
    """--format, or what the output ends in, or png; UsageError where they disagree or the ending is unknown.

    `what` is written, for the message: "masks".
    """
    suffix = target.file.suffix.lower() if target.file else ""
    named = suffixes.get(suffix)
    if format and named and format != named:
        raise UsageError(
            f"{target.file}: ends in {suffix}, but --format is {format}", hint="leave one of them out"
        )
    if suffix and not format and not named:
        raise UsageError(
            f"{target.file}: no {what} are written as {suffix}", hint=f"known: {', '.join(suffixes)}"
        )
    return format or named or "png"
