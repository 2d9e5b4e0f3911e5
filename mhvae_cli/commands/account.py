"""What made a result, so that only the same is taken for done, and what mhvae-run.json tells of a run."""

import json
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InputError, os_error_text
from ..hashing import sha256_of
from .asked import asked
from .inputs import Item
from .table import read_rows

if TYPE_CHECKING:
    from ..inference.pipeline import Pipeline

_NEUTRAL = """
    --out --model --device --dtype --batch-size --workers --threads --deterministic --offline --existing
    --on-error --from-file --recursive --shard --json --dry-run --quiet --verbose --progress --report
    --fail-on-qc --overlay --format --spacing-csv --sheet --show --save-latents --style --theta --draws
    --frames --gif -n --start
"""
NEUTRAL = frozenset(_NEUTRAL.split())
"""Options that change no result, or that the result's name, sources or record tell of by themselves. One
that is not named here counts, so that nothing is taken for done that may not be."""
WHY = ("from another input", "by another model", "with other options")
HASHED = 512
"""Inputs whose SHA-256 is remembered, so that the pages of one file are not each paid for."""


class Job(Protocol):
    """What is asked of a job: what its files are called, and what they are made from (see `outputs.Job`)."""

    @property
    def outputs(self) -> tuple[Path, ...]: ...

    @property
    def sources(self) -> tuple[Item, ...]: ...

    @property
    def record(self) -> Mapping[str, Any]: ...


class Account:
    """What the results of one run are made by, beside their inputs, and what happens in it.

    `made_by` is three short SHA-256 in hexadecimal, INPUT-MODEL-OPTIONS: of the bytes of what the result is
    made from, of the model (`checkpoint.digest`), and of the options that change results. The device, the
    number type, batches and threads are not in it: they change last bits at most.
    """

    def __init__(self, verb: str, model: str, *, offline: bool = False, seed: int = 0) -> None:
        self.verb, self.model, self.offline, self.seed = verb, model, offline, seed
        self.asked = asked()  # here, as threads do not see it
        self.pipeline: Pipeline | None = None
        self.halved_to: int | None = None
        self._begun = datetime.now(UTC)
        self._id = os.urandom(8).hex()
        self._hashes: OrderedDict[Any, str] = OrderedDict()
        self._guard = threading.Lock()

    @cached_property
    def model_sha256(self) -> str:
        """The model's SHA-256; ModelError if there is no such model."""
        return _model_sha256(self.model, self.offline)

    @cached_property
    def options(self) -> str:
        """The SHA-256 of the options that change results; files are told by what is in them."""
        chosen = {name: value for name, value in self.asked.options.items() if name not in NEUTRAL}
        told = {name: self._content(name, value) for name, value in chosen.items()}
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

    def signing(self, load: Callable[..., Any], finish: Callable[..., Any]) -> tuple[Any, Any]:
        """`batching.stream`'s load and finish, with the column made_by.

        An input is hashed before it is read: one that changes in between is taken for stale later, not for
        done.
        """

        def signed_load(job: Job) -> tuple[Any, Any]:
            made_by = self.made_by(job.sources, job.record)
            needed, kept = load(job)
            return needed, (kept, made_by)

        def signed_finish(job: Job, both: tuple[Any, str], row: Any) -> tuple[Any, ...]:
            files, fields, *missed = finish(job, both[0], row)
            return files, {**fields, "made_by": both[1]}, *missed

        return signed_load, signed_finish

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

    def run(self, status: str, counts: Mapping[str, int], code: int | None = None) -> dict[str, Any]:
        """What mhvae-run.json tells: no inputs' names, which results.csv has, and no home directory."""
        from ..run_record import versions, without_home

        now, torch, pipeline = datetime.now(UTC), sys.modules.get("torch"), self.pipeline
        ended = status != "running"
        return {
            "id": self._id,
            "status": status,
            "verb": self.verb,
            "options": without_home(dict(self.asked.options)),
            "versions": versions(),
            "model": without_home(self.model) if pipeline is None else pipeline.name,
            "model_sha256": vars(self).get("model_sha256"),
            "device": None if pipeline is None else str(pipeline.device),
            "dtype": None if pipeline is None else str(pipeline.dtype).removeprefix("torch."),
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


def _model_sha256(ref: str, offline: bool) -> str:
    from ..checkpoints.folder import digest
    from ..checkpoints.registry import resolve

    return digest(resolve(ref, offline=offline))


def _sha256(values: Any) -> str:
    return sha256_of(json.dumps(values, sort_keys=True, default=str).encode())


def _place(job: Job, folder: Path | None) -> tuple[str, ...]:
    """The parts of the path of a job's first file in the folder of results: however that is called."""
    path = job.outputs[0]
    return path.parts if folder is None else path.relative_to(folder).parts
