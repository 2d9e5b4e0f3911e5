"""What a run tells as it goes: paths or JSON lines on stdout, results.csv, faults and progress on stderr."""

import csv
import io
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import InputError, OutputError
from .outputs import Job, Target, complain, emit, say

EVERY = 10.0  # seconds between two plain lines of progress
Key = tuple[str, str]


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


class Table:
    """results.csv: a row an input and page, appended whole by one write: a killed run leaves no half line.

    Rows of earlier runs stay, except those of inputs that are worked on again (`anew`). Several runs may
    share a folder (shards). Raises OutputError for a table with other columns, or one that cannot be
    written.
    """

    def __init__(self, path: Path, columns: Sequence[str], anew: set[Key]) -> None:
        self.path, self.columns = path, list(columns)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.known = self._take_over(anew)
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise self._fault(error) from error

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row; a row that does not fit on the disk leaves no trace."""
        data = _line([row.get(column) for column in self.columns])
        end = os.fstat(self._file).st_size
        try:
            if os.write(self._file, data) < len(data):
                os.ftruncate(self._file, end)
                raise OSError("no space left on device")
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _take_over(self, anew: set[Key]) -> set[Key]:
        """Make the table or tidy the one that is there; the keys of the rows that stay."""
        header = _line(self.columns)
        try:
            created = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            pass
        else:
            os.write(created, header)
            os.close(created)
            return set()
        text = self.path.read_bytes()
        if text and not text.startswith(header):
            raise OutputError(
                f"{self.path}: not a table of this command", hint="move it away, or name another folder"
            )
        rows = list(csv.reader(io.StringIO(text.decode(errors="surrogateescape"), newline="")))[1:]
        kept = [row for row in rows if len(row) == len(self.columns) and (row[0], row[1]) not in anew]
        whole = header + b"".join(map(_line, kept))
        if whole != text:
            from ..imaging import write_atomic

            write_atomic(self.path, whole)
        return {(row[0], row[1]) for row in kept}

    def _fault(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: {(error.strerror or str(error)).lower()}")


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
    skipped, failed), the verb's own `columns`, error.
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
    ) -> None:
        self.columns = ["input", "page", "output", "status", *columns, "error"]
        self.as_json, self.quiet, self.total = as_json, quiet, len(jobs)
        self.counts = {"ok": 0, "skipped": 0, "failed": 0}
        self.table: Table | None = None
        if target.folder is not None:
            anew = {_key(job) for job in jobs if not job.skip}
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

    def done(self, job: Job, files: Sequence[bytes], fields: Mapping[str, Any]) -> None:
        """Write a job's files, in the order of its outputs (to stdout if it has none), then tell."""
        from ..imaging import write_atomic

        with unbroken():
            for path, data in zip(job.outputs, files, strict=bool(job.outputs)):
                write_atomic(path, data)
            row = self._record(job, "ok", **fields)
        if not job.outputs:
            emit(files[0])
        self._tell(row, job.outputs)

    def skipped(self, job: Job) -> None:
        """Tell of a job whose outputs are there already; the row of the run that made them stays."""
        self._tell(self._record(job, "skipped"))

    def failed(self, job: Job, error: InputError) -> None:
        """Tell of an input that cannot be used."""
        self.progress.wipe()
        complain(error)
        self._tell(self._record(job, "failed", error=str(error).removeprefix(f"{job.item.name}: ")))

    @property
    def exit_code(self) -> int:
        """0 all done or rightly skipped, 3 some inputs failed, 4 nothing usable."""
        if not self.counts["failed"]:
            return 0
        return 3 if self.counts["ok"] + self.counts["skipped"] else 4

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


def _key(job: Job) -> Key:
    return job.item.name, str(job.item.page)


def _line(values: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode(errors="surrogateescape")
