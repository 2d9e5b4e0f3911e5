"""The fingerprint of a run: what its results depend on, whether existing ones are up to date."""

import json
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

from ..errors import InputError, os_error_text
from ..filesystem import check_regular
from ..hashing import sha256_of
from .inputs import Item
from .invocation import current
from .outputs import Job, Target, refuse_existing
from .results import Result, read_rows
from .settings import RunSettings
from .shards import Shard
from .streaming import stream

if TYPE_CHECKING:
    from ..inference.networks import Networks

DIFFERENCES = ("from another input", "by another model", "with other options")
CACHED_HASHES = 512
"""Number of inputs whose SHA-256 is cached, so that a file of many pages is hashed once."""

Input = TypeVar("Input")
Kept = TypeVar("Kept")
Row = TypeVar("Row")


class InputHashes:
    """The SHA-256 of inputs, each computed once: cached by path, inode, size and modification time."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, str] = OrderedDict()
        self._guard = threading.Lock()

    def of(self, item: Item) -> str:
        """The SHA-256 of an item's file. InputError if it is unreadable."""
        key: Hashable = item.source
        if isinstance(item.source, Path):
            try:
                status = check_regular(item.source)
            except OSError as error:
                raise InputError(f"{item.name}: {os_error_text(error)}") from error
            key = (item.source, status.st_ino, status.st_size, status.st_mtime_ns)
        sha256 = self._known.get(key) or sha256_of(item.source)
        with self._guard:
            self._known[key] = sha256
            if len(self._known) > CACHED_HASHES:
                self._known.popitem(last=False)
        return sha256


class RunFingerprint:
    """Everything besides the inputs that the results of a run depend on, and the facts of its manifest.

    `made_by` is three truncated SHA-256 in hexadecimal, INPUT-MODEL-OPTIONS: of the bytes of the sources, of
    the model (`folder.digest`), and of the options that change results. Device, dtype, batch size and threads
    are excluded: they affect only the last bits.
    """

    def __init__(self, verb: str, settings: RunSettings, shard: Shard | None) -> None:
        self.verb, self.shard = verb, shard
        self.model, self.offline, self.seed = settings.model, settings.offline, settings.seed
        self.invocation = current()  # read here, as other threads do not see the context variable
        self.networks: Networks | None = None
        self.halved_to: int | None = None
        self.hashes = InputHashes()
        self._begun = datetime.now(UTC)
        self._id = os.urandom(8).hex()

    @cached_property
    def model_sha256(self) -> str:
        """The model's SHA-256; ModelError if there is no such model."""
        return _model_sha256(self.model, self.offline)

    @cached_property
    def options(self) -> str:
        """The SHA-256 of the options that change results, with files represented by their content."""
        values = {name: self._content(name, value) for name, value in self.invocation.changing.items()}
        return _sha256([self.verb, values])

    def made_by(
        self, sources: Sequence[Item], record: Mapping[str, object], hashes: Sequence[str] | None = None
    ) -> str:
        """The fingerprint of a result; `record` distinguishes results from the same sources.

        `hashes` are the SHA-256 of the sources, if they are known. InputError if a source is unreadable.
        """
        hashes = [self.hashes.of(item) for item in sources] if hashes is None else hashes
        pages = [item.page for item in sources]
        source = _sha256([list(hashes), pages, dict(record)])
        return f"{source[:16]}-{self.model_sha256[:8]}-{self.options[:8]}"

    def stream(
        self,
        jobs: Sequence[Job],
        *,
        load: Callable[[Job], tuple[Input, Kept]],
        run: Callable[[list[Input]], Sequence[Row | Exception]],
        finish: Callable[[Job, Kept, Row], Result],
        batch_size: int,
        workers: int,
    ) -> Generator[Result | InputError]:
        """`streaming.stream` of jobs, with `made_by` added to each result.

        An input is hashed before it is read, so that if it changes in between, the result counts as stale
        later, not as up to date.
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

    def why_stale(self, jobs: Sequence[Job], folder: Path | None) -> list[str | InputError]:
        """Why the existing outputs of each job are stale; "" for outputs that are up to date.

        InputError for inputs that are no longer readable.
        """
        sizes = {len(_relative_parts(job, folder)) for job in jobs}
        known: dict[tuple[str, ...], str] = {}  # of several rows for a file, the last is current
        for row in read_rows(folder / "results.csv") if folder is not None else ():
            parts = PurePath(row["output"]).parts
            known.update({parts[-size:]: row.get("made_by", "") for size in sizes if len(parts) >= size})
        found: list[str | InputError] = []
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
            for first in range(0, len(jobs), CACHED_HASHES):
                part = jobs[first : first + CACHED_HASHES]
                found += pool.map(
                    lambda job: self._reason(job, known.get(_relative_parts(job, folder), "")), part
                )
        return found

    def halved(self, batch_size: int) -> None:
        """Record that memory limits batches to `batch_size` inputs from now on."""
        self.halved_to = batch_size

    def describe(self, status: str, counts: Mapping[str, int], code: int | None = None) -> dict[str, object]:
        """The entry of mhvae-run.json, without input names (see results.csv) and the home directory."""
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
            "shard": None if self.shard is None else str(self.shard),
            "batch_halved_to": self.halved_to,
            "process": os.getpid(),
            "begun": self._begun.isoformat(timespec="seconds"),
            "ended": now.isoformat(timespec="seconds") if ended else None,
            "seconds": round((now - self._begun).total_seconds(), 1) if ended else None,
            "counts": dict(counts),
            "exit_code": code,
        }

    def _reason(self, job: Job, known: str) -> str | InputError:
        if not known:
            return "no record of how it was made"
        try:
            mine = self.made_by(job.sources, job.record)
        except InputError as error:
            return error
        pairs = zip(mine.split("-"), known.split("-"), DIFFERENCES, strict=False)
        reasons = [why for own, other, why in pairs if own != other]
        return "" if mine == known else "made " + (", ".join(reasons) or "differently")

    def _content(self, name: str, value: object) -> object:
        """The value of an option for hashing: the digest of a model or file, any other value as it is."""
        if name.endswith("-model") and isinstance(value, str):
            return _model_sha256(value, self.offline)
        return sha256_of(Path(value)) if isinstance(value, str) and os.path.isfile(value) else value


def apply_existing_policy(
    jobs: Iterable[Job], policy: str, fingerprint: RunFingerprint, target: Target
) -> list[Job]:
    """Apply --existing: `error` raises OutputError if an output exists; `skip` marks jobs whose outputs exist
    as done or, if this run would give a different result, as stale (see `RunFingerprint.why_stale`).
    """
    checked = list(jobs)
    refuse_existing(checked, policy)
    if policy != "skip":
        return checked
    existing = [index for index, job in enumerate(checked) if job.item.error is None and _exists(job)]
    reasons = fingerprint.why_stale([checked[index] for index in existing], target.folder)
    for index, why in zip(existing, reasons, strict=True):
        job = checked[index]
        if isinstance(why, str):
            checked[index] = replace(job, skip=True, stale=why)
        else:
            checked[index] = replace(job, item=replace(job.item, error=why))
    return checked


def _exists(job: Job) -> bool:
    return bool(job.outputs) and all(map(os.path.lexists, job.outputs))


def _model_sha256(ref: str, offline: bool) -> str:
    from ..checkpoints.folder import digest
    from ..checkpoints.registry import resolve

    return digest(resolve(ref, offline=offline))


def _sha256(values: object) -> str:
    return sha256_of(json.dumps(values, sort_keys=True, default=str).encode())


def _relative_parts(job: Job, folder: Path | None) -> tuple[str, ...]:
    """The path of a job's first output relative to the output folder, as parts."""
    path = job.outputs[0]
    return path.parts if folder is None else path.relative_to(folder).parts
