"""--shard: which part of the inputs a run processes, by a number given or by that of a scheduler's task."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TypeVar

from ..errors import UsageError
from ..hashing import seed_of
from .console import print_note
from .settings import RunSettings

T = TypeVar("T")
OWN = "MHVAE_SHARD"
ARRAY = tuple(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "COUNT", "MIN", "STEP"))
RANKS = (("SLURM_PROCID", "SLURM_NTASKS"), ("RANK", "WORLD_SIZE"))


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count` parts."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, index: int, stem: PurePath | None) -> bool:
        """Whether a thing is in this shard: by the SHA-256 of its stem, or its index if it has none."""
        place = index if stem is None else seed_of(stem.as_posix())
        return place % self.count == self.number - 1


def find_shard(settings: RunSettings) -> Shard | None:
    """The shard of a run, if any; says on stderr what auto stands for."""
    if settings.shard is None:
        return None
    if settings.shard != "auto":
        return _parse(settings.shard, "--shard")
    shard, names = _of_task(os.environ)
    if not settings.quiet:
        print_note(f"--shard auto: {shard}, from {' and '.join(names)}")
    return shard


def share(shard: Shard | None, things: Sequence[T], stem_of: Callable[[T], PurePath | None]) -> list[T]:
    """The things in a shard, all without one; a thing's stem decides, whatever others there are."""
    if shard is None:
        return list(things)
    return [thing for index, thing in enumerate(things) if shard.has(index, stem_of(thing))]


def _parse(text: str, name: str) -> Shard:
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"{name} {text}: not I/N with I from 1 to N", hint="for example 1/4 for the first of four"
        )
    return Shard(int(match[1]), int(match[2]))


def _of_task(environment: Mapping[str, str]) -> tuple[Shard, tuple[str, ...]]:
    """The shard of this task, and the variables that say so; UsageError outside of any scheduler."""
    if OWN in environment:
        return _parse(environment[OWN], OWN), (OWN,)
    if ARRAY[0] in environment:
        task, count, first, step = _numbers(environment, ARRAY)
        index, rest = divmod(task - first, max(step, 1))
        if rest or not 0 <= index < count:
            raise UsageError(
                f"{ARRAY[0]} {task}: the job array has gaps", hint=f"use --array=1-N, or set {OWN} to I/N"
            )
        return Shard(index + 1, count), ARRAY[:2]
    for names in RANKS:
        if names[0] in environment:
            index, count = _numbers(environment, names)
            return _parse(f"{index + 1}/{count}", "/".join(names)), names
    raise UsageError(
        "--shard auto: not in a job of SLURM or torchrun", hint=f"give --shard I/N, or set {OWN} to I/N"
    )


def _numbers(environment: Mapping[str, str], names: Sequence[str]) -> list[int]:
    for name in names:
        if not environment.get(name, "").isdecimal():
            raise UsageError(f"--shard auto: {name} is not a number", hint=f"set {OWN} to I/N")
    return [int(environment[name]) for name in names]
