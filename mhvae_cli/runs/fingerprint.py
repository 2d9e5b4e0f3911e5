"""What made a result, so that only the same is taken for done, and what mhvae-run.json tells of a run."""

import json
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InputError, os_error_text
from ..hashing import sha256_of
from .inputs import Item
from .invocation import current
from .outputs import Job, Target, refuse_existing
from .results import Result, read_rows
from .streaming import stream

if TYPE_CHECKING:
    from ..inference.networks import Networks

WHY = ("from another input", "by another model", "with other options")
HASHED = 512
"""Inputs whose SHA-256 is remembered, so that the pages of one file are not each paid for."""

Input = TypeVar("Input")
Kept = TypeVar("Kept")
Row = TypeVar("Row")


class RunFingerprint:
    """What the results of one run are made by, beside their inputs, and what happens in it.

    `made_by` is three short SHA-256 in hexadecimal, INPUT-MODEL-OPTIONS: of the bytes of what the result is
    made from, of the model (`checkpoint.digest`), and of the options that change results. The device, the
    number type, batches and threads are not in it: they change last bits at most.
    """

    def __init__(self, verb: str, model: str, *, offline: bool = False, seed: int = 0) -> None:
        self.verb, self.model, self.offline, self.seed = verb, model, offline, seed
        self.invocation = current()  # here, as threads do not see it
        self.networks: Networks | None = None
        self.halved_to: int | None = None
        self._begun = datetime.now(UTC)
        self._id = os.urandom(8).hex()
        self._hashes: OrderedDict[tuple[Path, int, int, int], str] = OrderedDict()
        self._guard = threading.Lock()

    @cached_property
    def model_sha256(self) -> str:
        """The model's SHA-256; ModelError if there is no such model."""
        return _model_sha256(self.model, self.offline)

    @cached_property
    def options(self) -> str:
        """The SHA-256 of the options that change results; files are told by what is in them."""
        told = {name: self._content(name, value) for name, value in self.invocation.changing.items()}
        return _sha256([self.verb, told])

    def made_by(
        self, sources: Sequence[Item], record: Mapping[str, Any], hashes: Sequence[str] | None = None
    ) -> str:
        """What makes the result that `record` tells from others of these sources.

        `hashes` are the sources' SHA-256, if they are known. InputError if one cannot be read.
        """
        hashes = [self._hash(item) for item in sources] if hashes is None else hashes
        pages = [item.page for item in sources]
        source = _sha256([list(hashes), pages, dict(record)])
        return f"{source[:16]}-{self.model_sha256[:8]}-{self.options[:8]}"

    def stream(
        self,
        jobs: Sequence[Job],
        *,
        load: Callable[[Job], tuple[Input, Kept]],
        run: Callable[[list[Input]], Sequence[Row | InputError]],
        finish: Callable[[Job, Kept, Row], Result],
        batch_size: int,
        workers: int,
    ) -> Generator[Result | InputError]:
        """`streaming.stream` of jobs, each result with its `made_by`.

        An input is hashed before it is read: one that changes in between is taken for stale later, not for
        done.
        """

        def signed_load(job: Job) -> tuple[Input, tuple[Kept, str]]:
            made_by = self.made_by(job.sources, job.record)
            needed, kept = load(job)
            return needed, (kept, made_by)

        def signed_finish(job: Job, kept: tuple[Kept, str], row: Row) -> Result:
            return replace(finish(job, kept[0], row), made_by=kept[1])

        return stream(
            jobs,
            load=signed_load,
            run=run,
            finish=signed_finish,
            batch_size=batch_size,
            workers=workers,
            halved=self.halved,
        )

    def judge(self, jobs: Sequence[Job], folder: Path | None) -> list[str | InputError]:
        """Why the outputs of each job, which are there, are stale; "" if the same made them.

        InputError for what cannot be read any more.
        """
        sizes = {len(_place(job, folder)) for job in jobs}
        known: dict[tuple[str, ...], str] = {}  # of several rows for one file the last one is true
        for row in read_rows(folder / "results.csv") if folder is not None else ():
            parts = PurePath(row["output"]).parts
            known.update({parts[-size:]: row.get("made_by", "") for size in sizes if len(parts) >= size})
        found: list[str | InputError] = []
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            for first in range(0, len(jobs), HASHED):
                part = jobs[first : first + HASHED]
                found += pool.map(lambda job: self._why(job, known.get(_place(job, folder), "")), part)
        return found

    def halved(self, batch_size: int) -> None:
        """Network calls have `batch_size` inputs at most from now on: there was no memory for more."""
        self.halved_to = batch_size

    def describe(self, status: str, counts: Mapping[str, int], code: int | None = None) -> dict[str, Any]:
        """What mhvae-run.json tells: no inputs' names, which results.csv has, and no home directory."""
        from .manifest import versions, without_home

        now, torch, networks = datetime.now(UTC), sys.modules.get("torch"), self.networks
        ended = status != "running"
        return {
            "id": self._id,
            "status": status,
            "verb": self.verb,
            "options": without_home(dict(self.invocation.options)),
            "versions": versions(),
            "model": without_home(self.model) if networks is None else networks.name,
            "model_sha256": vars(self).get("model_sha256"),
            "device": None if networks is None else str(networks.device),
            "dtype": None if networks is None else str(networks.dtype).removeprefix("torch."),
            "threads": None if torch is None else torch.get_num_threads(),
            "seed": self.seed,
            "batch_halved_to": self.halved_to,
            "process": os.getpid(),
            "begun": self._begun.isoformat(timespec="seconds"),
            "ended": now.isoformat(timespec="seconds") if ended else None,
            "seconds": round((now - self._begun).total_seconds(), 1) if ended else None,
            "counts": dict(counts),
            "exit_code": code,
        }

    def _why(self, job: Job, known: str) -> str | InputError:
        if not known:
            return "nothing tells what made it"
        try:
            mine = self.made_by(job.sources, job.record)
        except InputError as error:
            return error
        pairs = zip(mine.split("-"), known.split("-"), WHY, strict=False)
        reasons = [why for own, other, why in pairs if own != other]
        return "" if mine == known else "made " + (", ".join(reasons) or "otherwise")

    def _hash(self, item: Item) -> str:
        """The SHA-256 of an item's file. Of some of the last ones it is remembered, while nothing of the file
        changes that the system tells."""
        from ..hashing import sha256_of

        if isinstance(item.source, bytes):
            return sha256_of(item.source)
        try:
            about = os.stat(item.source)
        except OSError as error:
            raise InputError(f"{item.name}: {os_error_text(error)}") from error
        key = (item.source, about.st_ino, about.st_size, about.st_mtime_ns)
        known = self._hashes.get(key) or sha256_of(item.source)
        with self._guard:
            self._hashes[key] = known
            if len(self._hashes) > HASHED:
                self._hashes.popitem(last=False)
        return known

    def _content(self, name: str, value: Any) -> Any:
        """What an option stands for: a model or a file by what is in it, all else by itself."""
        from ..hashing import sha256_of

        if name.endswith("-model"):
            return _model_sha256(value, self.offline)
        return sha256_of(Path(value)) if isinstance(value, str) and os.path.isfile(value) else value


def apply_existing_policy(
    jobs: Iterable[Job], policy: str, fingerprint: RunFingerprint, target: Target
) -> list[Job]:
    """Apply --existing: `error` raises OutputError if an output is there, `skip` marks jobs that are done,
    and those whose outputs are there and not what this run would make (see `RunFingerprint.judge`).
    """
    settled = list(jobs)
    refuse_existing(settled, policy)
    if policy != "skip":
        return settled
    whole = [index for index, job in enumerate(settled) if job.item.fault is None and _is_there(job)]
    judged = fingerprint.judge([settled[index] for index in whole], target.folder)
    for index, why in zip(whole, judged, strict=True):
        job = settled[index]
        if isinstance(why, str):
            settled[index] = replace(job, skip=True, stale=why)
        else:
            settled[index] = replace(job, item=replace(job.item, fault=why))
    return settled


def _is_there(job: Job) -> bool:
    return bool(job.outputs) and all(map(os.path.lexists, job.outputs))


def _model_sha256(ref: str, offline: bool) -> str:
    from ..checkpoints.folder import digest
    from ..checkpoints.registry import resolve

    return digest(resolve(ref, offline=offline))


def _sha256(values: object) -> str:
    return sha256_of(json.dumps(values, sort_keys=True, default=str).encode())


def _place(job: Job, folder: Path | None) -> tuple[str, ...]:
    """The parts of the path of a job's first file in the folder of results: however that is called."""
    path = job.outputs[0]
    return path.parts if folder is None else path.relative_to(folder).parts
