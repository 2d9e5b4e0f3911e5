"""What a run tells as it goes: paths or JSON lines on stdout, results.csv, faults and progress on stderr."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import InputError, OutputError, QualityError
from .outputs import Job, Target, complain, emit, say
from .table import Key, Table

EVERY = 10.0  # seconds between two plain lines of progress


@contextmanager
def unbroken() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block has ended: what is in hand is finished."""
    noted: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    handlers = {kind: signal.signal(kind, lambda number, _frame: noted.append(number)) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
    if noted:
        signal.raise_signal(noted[0])


class Progress:
    """A bar on a terminal, a plain line now and then elsewhere; nothing for a single job or with `off`."""

    def __init__(self, verb: str, total: int, mode: str) -> None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
        self.verb, self.total, self.done = verb, total, 0
        self.shown = mode == "on" or (mode == "auto" and total > 1)
        self.bar = mode == "on" or terminal
        self.begun = time.monotonic()
        self.last = 0.0 if self.bar else self.begun

    def step(self) -> None:
        """One more job is done."""
        self.done += 1
        now = time.monotonic()
        if not self.shown or (now - self.last < (0.1 if self.bar else EVERY) and self.done < self.total):
            return
        self.last = now
        if self.bar:
            filled = 24 * self.done // max(self.total, 1)
            print(
                f"\r\x1b[K[{'#' * filled}{'.' * (24 - filled)}] {self._state(now)}",
                end="",
                file=sys.stderr,
                flush=True,
            )
        elif self.done < self.total:
            print(self._state(now), file=sys.stderr, flush=True)

    def wipe(self) -> None:
        """Clear the bar's line so that another can be printed; the next step draws it again."""
        if self.shown and self.bar:
            self.last = 0.0
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _state(self, now: float) -> str:
        rate = self.done / max(now - self.begun, 1e-9)
        left = (self.total - self.done) / rate
        return f"{self.verb}: {self.done} of {self.total}, {rate:.1f}/s, {left:.0f} s left"


class Report:
    """Takes the outcome of each job in order: writes its files, its row and its line, and keeps the counts.

    A context manager. Columns of the table and keys of the JSON lines: input, page, output, status (ok,
    skipped, failed, missed), the verb's own `columns`, error. `settled` hears of each job whose files are
    there, once they are.
    """

    def __init__(
        self,
        verb: str,
        jobs: Sequence[Job],
        target: Target,
        *,
        columns: Sequence[str],
        as_json: bool = False,
        quiet: bool = False,
        progress: str = "auto",
        settled: Callable[[Job], None] | None = None,
    ) -> None:
        self.settled = settled
        self.columns = ["input", "page", "output", "status", *columns, "error"]
        self.as_json, self.quiet, self.total = as_json, quiet, len(jobs)
        self.counts = {"ok": 0, "skipped": 0, "failed": 0, "missed": 0}
        self.table: Table | None = None
        if target.folder is not None:
            todo = [_key(job) for job in jobs if not job.skip]
            anew = {*todo, *((name, page, "") for name, page, _ in todo)}  # a failed row names no output
            self.table = Table(target.folder / "results.csv", self.columns, anew)
        self.progress = Progress(verb, len(jobs), "off" if quiet else progress)

    def __enter__(self) -> "Report":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if self.table is not None:
            self.table.close()
        if kind is not None and issubclass(kind, BrokenPipeError):
            return
        self.progress.wipe()
        if not self.quiet and (self.total > 1 or isinstance(error, KeyboardInterrupt | SystemExit)):
            print(self._summary(), file=sys.stderr, flush=True)

    def done(
        self, job: Job, files: Sequence[bytes], fields: Mapping[str, Any], missed: str | None = None
    ) -> None:
        """Write a job's files, in the order of its outputs (to stdout if it has none), then tell.

        `missed`: which quality gate the result does not pass; it is written all the same.
        """
        from ..imaging import write_atomic

        with unbroken():
            written: list[Path] = []
            try:
                for path, data in zip(job.outputs, files, strict=bool(job.outputs)):
                    write_atomic(path, data)
                    written.append(path)
            except OutputError:
                for path in written:  # a picture without its mask is worse than none
                    path.unlink(missing_ok=True)
                raise
            row = self._record(job, "missed" if missed else "ok", **fields, error=missed)
            self._settle(job)
        if missed:
            self.progress.wipe()
            complain(QualityError(f"{job.outputs[0] if job.outputs else job.item.name}: {missed}"))
        if not job.outputs:
            emit(files[0])
        self._tell(row, job.outputs)

    def skipped(self, job: Job) -> None:
        """Tell of a job whose outputs are there already; the row of the run that made them stays."""
        row = self._record(job, "skipped")
        self._settle(job)
        self._tell(row)

    def failed(self, job: Job, error: InputError) -> None:
        """Tell of an input that cannot be used."""
        self.progress.wipe()
        complain(error)
        self._tell(self._record(job, "failed", error=str(error).removeprefix(f"{job.item.name}: ")))

    @property
    def exit_code(self) -> int:
        """0 all done or rightly skipped, 3 some inputs failed, 4 nothing usable, 8 a quality gate missed."""
        if self.counts["failed"] and self.counts["failed"] == sum(self.counts.values()):
            return InputError.exit_code
        if self.counts["missed"]:
            return QualityError.exit_code
        return 3 if self.counts["failed"] else 0

    def _settle(self, job: Job) -> None:
        if self.settled is not None:
            self.settled(job)

    def _record(self, job: Job, status: str, **fields: Any) -> dict[str, Any]:
        self.counts[status] += 1
        output = str(job.outputs[0]) if job.outputs and status != "failed" else None
        row = {"input": job.item.name, "page": job.item.page, "output": output, "status": status, **fields}
        if self.table is not None and not (status == "skipped" and _key(job) in self.table.known):
            self.table.add(row)
        return row

    def _tell(self, row: Mapping[str, Any], written: Sequence[Path] = ()) -> None:
        if sys.stdout.isatty():
            self.progress.wipe()
        if self.as_json:
            say(json.dumps({column: row.get(column) for column in self.columns}))
        for path in () if self.as_json else written:
            say(str(path))
        self.progress.step()

    def _summary(self) -> str:
        done, seconds = sum(self.counts.values()), time.monotonic() - self.progress.begun
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count or name == "ok")
        ended = f"{done} done" if done == self.total else f"stopped, {done} of {self.total} done"
        return f"{self.progress.verb}: {ended}: {counts}, in {seconds:.1f} s"


def drive(report: Report, jobs: Sequence[Job], results: Iterator[Any], on_error: str) -> int:
    """Tell of every job in order; the exit code.

    `results` has what `Report.done` takes behind the job, or an InputError, for each job that is to be done.
    """
    for job in jobs:
        if job.skip:
            report.skipped(job)
            continue
        result = job.item.fault or next(results)
        if not isinstance(result, InputError):
            report.done(job, *result)
            continue
        report.failed(job, result)
        if on_error == "stop":
            break
    return report.exit_code


def preview(jobs: Sequence[Job], as_json: bool) -> int:
    """--dry-run: what would be written, on stdout; the exit code of the run, as far as names tell."""
    failed = 0
    for job in jobs:
        if job.item.fault:
            failed += 1
            complain(job.item.fault)
        elif not job.skip and as_json:
            output = str(job.outputs[0]) if job.outputs else None
            say(
                json.dumps(
                    {"input": job.item.name, "page": job.item.page, "output": output, "status": "planned"}
                )
            )
        elif not job.skip:
            for path in job.outputs or ("-",):
                say(str(path))
    if not failed:
        return 0
    return InputError.exit_code if failed == len(jobs) else 3


def _key(job: Job) -> Key:
    return job.item.name, str(job.item.page), str(job.outputs[0]) if job.outputs else ""
