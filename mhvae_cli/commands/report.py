"""What a run tells as it goes: paths or JSON lines on stdout, results.csv, faults and progress on stderr."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import InputError, MhvaeError, OutputError, QualityError
from .account import Account
from .outputs import Job, Target, complain, emit, say
from .placing import keeper, key_of, put
from .progress import Progress, unbroken
from .table import Key, Table, sweep

if TYPE_CHECKING:
    from ..review import Review
    from ..thumbs import Thumb

PLANNED = {"status": "planned"}


class Report:
    """Takes the outcome of each job in order: writes its files, its row and its line, and keeps the counts.

    A context manager. Columns of the table and keys of the JSON lines: input, page, output, status (ok,
    skipped, stale, failed, missed), the verb's own `columns`, error, made_by. `settled` hears of each job
    whose files are there, once they are. Beside the table mhvae-run.json has the `account`. `page` is where
    the page to review goes; a run that is stopped writes it too, of what is done.
    """

    def __init__(
        self,
        verb: str,
        jobs: Sequence[Job],
        target: Target,
        *,
        columns: Sequence[str],
        account: Account,
        as_json: bool = False,
        quiet: bool = False,
        progress: str = "auto",
        settled: Callable[[Job], None] | None = None,
        page: Path | None = None,
    ) -> None:
        self.settled = settled
        self.account, self.folder = account, target.folder
        self.columns = ["input", "page", "output", "status", *columns, "error", "made_by"]
        self.as_json, self.quiet, self.total = as_json, quiet, len(jobs)
        self.counts = {"ok": 0, "skipped": 0, "stale": 0, "failed": 0, "missed": 0}
        self.warned, self.told_of_halving = 0, False
        self.first_stale: Job | None = None
        self.table: Table | None = None
        if target.folder is not None:
            self.table = Table(target.folder / "results.csv", self.columns, keeper(jobs))
            with self.table.held():
                for folder in {path.parent for job in jobs for path in job.outputs}:
                    sweep(folder, self.table.path)
        self.earlier: dict[Key, str] = {}
        self.review = None if page is None else _review(page, verb, self.columns, len(jobs))
        self.progress = Progress(verb, len(jobs), "off" if quiet else progress)

    def __enter__(self) -> "Report":
        self._account("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        try:
            if self.table is not None:
                self.table.close()
            code = self.exit_code if error is None else _code(error)
            self._account("ended", code)
            if self.review is not None and isinstance(error, None | KeyboardInterrupt | SystemExit):
                self._write_page(self.review, code)
        except OutputError:
            if error is None:  # else that is the first cause
                raise
        finally:
            if self.review is not None:
                self.review.close()
        if kind is not None and issubclass(kind, BrokenPipeError):
            return
        self.progress.wipe()
        if self.first_stale is not None and error is None:
            complain(_told(self.first_stale, self.counts["stale"]))
        if not self.quiet and (self.total > 1 or isinstance(error, KeyboardInterrupt | SystemExit)):
            print(self._summary(), file=sys.stderr, flush=True)

    def done(
        self,
        job: Job,
        files: Sequence[bytes],
        fields: Mapping[str, Any],
        missed: str | None = None,
        thumb: "Thumb | None" = None,
    ) -> None:
        """Write a job's files, in the order of its outputs (to stdout if it has none), then tell.

        `missed`: which quality gate the result does not pass; it is written all the same. `thumb` is for the
        page.
        """
        with unbroken():
            row = self._row(job, "missed" if missed else "ok", **fields, error=missed)
            with nullcontext(len) if self.table is None else self.table.held() as append:
                put(job.outputs, files, lambda: append(row), table=self.table and self.table.path)
            self.counts[row["status"]] += 1
            self.warned += row.get("qc") == "warn"
            if self.review is not None:
                self.review.add(row, thumb)
            self._settle(job)
        if missed:
            self.progress.wipe()
            complain(QualityError(f"{job.outputs[0] if job.outputs else job.item.name}: {missed}"))
        if not job.outputs:
            emit(files[0])
        self._tell(row, job.outputs)

    def skipped(self, job: Job) -> None:
        """Tell of a job whose outputs are there already; the row of the run that made them stays."""
        self.counts["skipped"] += 1
        self.earlier[key_of(job)] = ""
        self._settle(job)
        self._tell(self._row(job, "skipped"))

    def stale(self, job: Job) -> None:
        """Tell of a job whose outputs are there and not what this run would make: they are left alone."""
        self.counts["stale"] += 1
        self.first_stale = self.first_stale or job
        self.earlier[key_of(job)] = job.stale
        row = self._row(job, "stale", error=job.stale)
        if self.table is not None and key_of(job) not in self.table.known:
            self.table.add(row)
        self._tell(row)

    def failed(self, job: Job, error: InputError) -> None:
        """Tell of an input that cannot be used."""
        self.progress.wipe()
        complain(error)
        self.counts["failed"] += 1
        row = self._row(job, "failed", error=str(error).removeprefix(f"{job.item.name}: "))
        if self.table is not None:
            self.table.add(row)
        if self.review is not None:
            self.review.add(row)
        self._tell(row)

    @property
    def exit_code(self) -> int:
        """0 all done or rightly skipped, 3 some inputs failed, 4 nothing usable, 7 outputs that are stale,
        8 a quality gate missed."""
        if self.counts["failed"] and self.counts["failed"] == sum(self.counts.values()):
            return InputError.exit_code
        if self.counts["stale"]:
            return OutputError.exit_code
        if self.counts["missed"]:
            return QualityError.exit_code
        return 3 if self.counts["failed"] else 0

    def _settle(self, job: Job) -> None:
        if self.settled is not None:
            self.settled(job)

    def _row(self, job: Job, status: str, **fields: Any) -> dict[str, Any]:
        output = str(job.outputs[0]) if job.outputs and status != "failed" else None
        return {"input": job.item.name, "page": job.item.page, "output": output, "status": status, **fields}

    def _write_page(self, review: "Review", code: int | None) -> None:
        if self.table is not None:
            review.add_earlier(self.table.path, self.earlier)
        review.write(self.account.run("ended", self.counts, code))

    def _account(self, status: str, code: int | None = None) -> None:
        """What mhvae-run.json tells of this run, once it begins and once it ends."""
        from ..run_record import write_run

        if self.folder is not None and self.table is not None:
            counts = {"inputs": self.total, **self.counts, "warned": self.warned}
            write_run(self.folder, self.account.run(status, counts, code), guard=self.table.path)

    def _tell(self, row: Mapping[str, Any], written: Sequence[Path] = ()) -> None:
        if self.account.halved_to is not None and not self.told_of_halving:
            self.told_of_halving = True
            self.progress.wipe()
            few = f"{self.account.halved_to} at a time"
            print(f"warning: out of memory: the network works on {few} now", file=sys.stderr, flush=True)
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
            (report.stale if job.stale else report.skipped)(job)
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
    failed, stale = 0, [job for job in jobs if job.stale]
    for job in jobs:
        if job.item.fault:
            failed += 1
            complain(job.item.fault)
        elif as_json and (job.stale or not job.skip):
            output = str(job.outputs[0]) if job.outputs else None
            told = {"input": job.item.name, "page": job.item.page, "output": output}
            say(json.dumps(told | ({"status": "stale", "error": job.stale} if job.stale else PLANNED)))
        elif not job.skip:
            for path in job.outputs or ("-",):
                say(str(path))
    if stale:
        complain(_told(stale[0], len(stale)))
        return OutputError.exit_code
    if not failed:
        return 0
    return InputError.exit_code if failed == len(jobs) else 3


def _review(page: Path, verb: str, columns: Sequence[str], total: int) -> "Review":
    from ..review import Review

    return Review(page, title=f"mhvae {verb}", columns=columns, total=total)


def _told(job: Job, count: int) -> OutputError:
    others = f" (and {count - 1} more)" if count > 1 else ""
    return OutputError(
        f"{job.outputs[0]}: stale{others}: {job.stale}", hint="--existing overwrite makes it anew"
    )


def _code(error: BaseException) -> int | None:
    """What the process ends with."""
    if isinstance(error, MhvaeError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else None
    return 130 if isinstance(error, KeyboardInterrupt) else 141 if isinstance(error, BrokenPipeError) else 1
