"""The outcome of each job: its files, its row, its line on stdout, and the exit code of the run."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import InputError, InternalError, OutputError, QualityError, exit_code_of
from .console import (
    Progress,
    defer_signals,
    print_cause,
    print_error,
    print_note,
    print_warning,
    write_bytes,
    write_line,
)
from .fingerprint import RunFingerprint
from .inventory import record_inputs
from .manifest import write_run
from .outputs import Job, Target
from .results import Keep, Key, Result, Table, commit_files, csv_cell, remove_leftovers
from .settings import RunSettings

if TYPE_CHECKING:
    from .review.page import Review

STATUSES = ("ok", "skipped", "stale", "failed", "missed")


@dataclass
class Counts:
    """Number of jobs per status, of flagged results, and of failures that are bugs."""

    total: int
    by_status: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    flagged: int = 0
    bugs: int = 0

    def add(self, row: Mapping[str, object]) -> None:
        """Count a row of results.csv."""
        self.by_status[str(row["status"])] += 1
        self.flagged += row.get("qc") == "warn"

    @property
    def exit_code(self) -> int:
        """0 all done or up to date, 1 all inputs failed by a bug, 3 some inputs failed, 4 all inputs failed,
        7 stale outputs, 8 a quality gate was missed."""
        failed = self.by_status["failed"]
        if failed and failed == sum(self.by_status.values()):
            return InternalError.exit_code if self.bugs == failed else InputError.exit_code
        if self.by_status["stale"]:
            return OutputError.exit_code
        if self.by_status["missed"]:
            return QualityError.exit_code
        return 3 if failed else 0

    def summary(self, verb: str, seconds: float) -> str:
        """The last line of a run."""
        done = sum(self.by_status.values())
        shown = [f"{n} {status}" for status, n in self.by_status.items() if n or status == "ok"]
        ended = f"{done} done" if done == self.total else f"stopped, {done} of {self.total} done"
        return f"{verb}: {ended}: {', '.join(shown)}, in {seconds:.1f} s"


class Reporter:
    """Records the outcome of each job, in order; a context manager around the run.

    Columns of results.csv and keys of the JSON lines: input, page, output, status (one of STATUSES), the
    verb's own `columns`, error, made_by. `planned` are the jobs of every shard, for `mhvae status`; `settled`
    is called with each job once its files exist.
    `review_page` is the path of --report; a run that is stopped also writes it, with the jobs done so far.
    """

    def __init__(
        self,
        verb: str,
        jobs: Sequence[Job],
        target: Target,
        settings: RunSettings,
        *,
        columns: Sequence[str],
        fingerprint: RunFingerprint,
        planned: Sequence[Job],
        settled: Callable[[Job], None] | None = None,
        review_page: Path | None = None,
    ) -> None:
        self.verb, self.settings, self.fingerprint = verb, settings, fingerprint
        self.settled = settled
        self.columns = ["input", "page", "output", "status", *columns, "error", "made_by"]
        self.counts = Counts(len(jobs))
        self.first_stale: Job | None = None
        self.halving_reported = False
        self.table = _open_table(jobs, planned, target, self.columns)
        self.review = (
            None if review_page is None else _open_review(review_page, verb, self.columns, len(jobs))
        )
        self.earlier: dict[Key, str] = {}
        self.progress = Progress(verb, len(jobs), "off" if settings.quiet else settings.progress)

    def __enter__(self) -> "Reporter":
        self._write_manifest("running")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> None:
        try:
            self._close(self.counts.exit_code if error is None else exit_code_of(error), error)
        except OutputError:
            if error is None:  # else keep the original error
                raise
        finally:
            if self.review is not None:
                self.review.close()
        if kind is not None and issubclass(kind, BrokenPipeError):
            return
        self.progress.clear()
        if self.first_stale is not None and error is None:
            print_error(_stale_error(self.first_stale, self.counts.by_status["stale"]))
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        if not self.settings.quiet and (self.counts.total > 1 or stopped):
            print_note(self.counts.summary(self.verb, time.monotonic() - self.progress.begun))

    def done(self, job: Job, result: Result) -> None:
        """Write a job's files, in the order of its outputs (to stdout if it has none), and its row."""
        with defer_signals():
            status = "missed" if result.missed else "ok"
            row = self._row(job, status, **result.fields, error=result.missed, made_by=result.made_by)
            with nullcontext(len) if self.table is None else self.table.appending() as append:
                table = None if self.table is None else self.table.path
                commit_files(job.outputs, result.files, lambda: append(row), table=table)
            self.counts.add(row)
            if self.review is not None:
                self.review.add(row, result.thumbnail)
            self._settle(job)
        shown = job.outputs[0] if job.outputs else job.item.name
        if result.missed:
            self.progress.clear()
            print_error(QualityError(f"{shown}: {result.missed}"))
        elif result.warning and not self.settings.quiet:
            self.progress.clear()
            print_warning(f"{shown}: {result.warning}")
        if not job.outputs:
            write_bytes(result.files[0])
        self._print(row, job.outputs)

    def skipped(self, job: Job) -> None:
        """Record a job whose outputs already exist; the row of the earlier run is kept."""
        row = self._row(job, "skipped")
        self.counts.add(row)
        self.earlier[key_of(job)] = ""
        self._settle(job)
        self._print(row)

    def stale(self, job: Job) -> None:
        """Record a job whose existing outputs differ from what this run would give; they are kept."""
        row = self._row(job, "stale", error=job.stale)
        self.counts.add(row)
        self.first_stale = self.first_stale or job
        self.earlier[key_of(job)] = job.stale
        if self.table is not None and key_of(job) not in self.table.known:
            self.table.add(row)
        self._print(row)

    def failed(self, job: Job, error: InputError) -> None:
        """Record an unusable input."""
        self.progress.clear()
        print_error(error)
        if isinstance(error, InternalError):
            self.counts.bugs += 1
            if self.settings.verbose:
                print_cause(error)
        row = self._row(job, "failed", error=str(error).removeprefix(f"{job.item.name}: "))
        self.counts.add(row)
        if self.table is not None:
            self.table.add(row)
        if self.review is not None:
            self.review.add(row)
        self._print(row)

    def _close(self, code: int | None, error: BaseException | None) -> None:
        """Finish the table, the manifest and the review page."""
        if self.table is not None:
            self.table.close()
        self._write_manifest("ended", code)
        if self.review is not None and isinstance(error, None | KeyboardInterrupt | SystemExit):
            if self.table is not None:
                self.review.add_earlier(self.table.path, self.earlier)
            self.review.write(self.fingerprint.describe("ended", self.counts.by_status, code))

    def _write_manifest(self, status: str, code: int | None = None) -> None:
        if self.table is not None:
            counts = {"inputs": self.counts.total, **self.counts.by_status, "warned": self.counts.flagged}
            run = self.fingerprint.describe(status, counts, code)
            write_run(self.table.path.parent, run, guard=self.table.path)

    def _settle(self, job: Job) -> None:
        if self.settled is not None:
            self.settled(job)

    def _row(self, job: Job, status: str, **fields: object) -> dict[str, object]:
        output = str(job.outputs[0]) if job.outputs and status != "failed" else None
        return {"input": job.item.name, "page": job.item.page, "output": output, "status": status, **fields}

    def _print(self, row: Mapping[str, object], written: Sequence[Path] = ()) -> None:
        """Print a job's line to stdout: its row as JSON, or the paths written."""
        if self.fingerprint.halved_to is not None and not self.halving_reported:
            self.halving_reported = True
            self.progress.clear()
            print_warning(f"out of memory: batch size reduced to {self.fingerprint.halved_to}")
        if sys.stdout.isatty():
            self.progress.clear()
        if self.settings.as_json:
            write_line(json.dumps({column: row.get(column) for column in self.columns}))
        for path in () if self.settings.as_json else written:
            write_line(str(path))
        self.progress.step()


def drive(
    reporter: Reporter, jobs: Sequence[Job], results: Iterator[Result | InputError], on_error: str
) -> int:
    """Report every job in order; return the exit code. `results` has one entry per job to be done."""
    for job in jobs:
        if job.skip:
            (reporter.stale if job.stale else reporter.skipped)(job)
            continue
        result = job.item.error or next(results)
        if not isinstance(result, InputError):
            reporter.done(job, result)
            continue
        reporter.failed(job, result)
        if on_error == "stop":
            break
    return reporter.counts.exit_code


def preview(jobs: Sequence[Job], as_json: bool) -> int:
    """--dry-run: print what would be written; return the exit code, as far as it can be known in advance."""
    failed, stale = 0, [job for job in jobs if job.stale]
    for job in jobs:
        if job.item.error:
            failed += 1
            print_error(job.item.error)
        elif as_json and (job.stale or not job.skip):
            output = str(job.outputs[0]) if job.outputs else None
            status = {"status": "stale", "error": job.stale} if job.stale else {"status": "planned"}
            write_line(
                json.dumps({"input": job.item.name, "page": job.item.page, "output": output, **status})
            )
        elif not job.skip:
            for path in job.outputs or ("-",):
                write_line(str(path))
    if stale:
        print_error(_stale_error(stale[0], len(stale)))
        return OutputError.exit_code
    if not failed:
        return 0
    return InputError.exit_code if failed == len(jobs) else 3


def row_policy(jobs: Sequence[Job]) -> Keep:
    """The policy for rows of earlier runs: those of results that are made again are dropped."""
    fates: dict[Key, str] = {}
    for job in jobs:
        name, page, output = key_of(job)
        fates[name, page, output] = "redo" if not job.skip else "stale" if job.stale else "current"
        if not job.skip:
            fates[name, page, ""] = "redo"  # the row of a failed input has no output

    def keep(row: dict[str, str]) -> dict[str, str] | None:
        fate = fates.get((row["input"], row["page"], row["output"]))
        if fate == "redo":
            return None
        if fate == "current" and row["status"] == "stale":  # it was stale only for another run
            return row | {"status": "missed" if row.get("error") else "ok"}
        return row | {"status": "stale"} if fate == "stale" else row

    return keep


def key_of(job: Job) -> Key:
    """The key of a job's row, as the table has it."""
    output = str(job.outputs[0]) if job.outputs else ""
    return str(csv_cell(job.item.name)), str(job.item.page), str(csv_cell(output))


def _open_table(
    jobs: Sequence[Job], planned: Sequence[Job], target: Target, columns: Sequence[str]
) -> Table | None:
    """results.csv of an output folder, and the list of its inputs; leftovers of killed runs are removed."""
    if target.folder is None:
        return None
    table = Table(target.folder / "results.csv", columns, row_policy(jobs))
    with table.appending():
        for folder in {path.parent for job in jobs for path in job.outputs}:
            remove_leftovers(folder, table.path)
    record_inputs(target.folder, planned, guard=table.path)
    return table


def _open_review(page: Path, verb: str, columns: Sequence[str], total: int) -> "Review":
    from .review.page import Review

    return Review(page, title=f"mhvae {verb}", columns=columns, total=total)


def _stale_error(job: Job, count: int) -> OutputError:
    others = f" (and {count - 1} more)" if count > 1 else ""
    return OutputError(
        f"{job.outputs[0]}: stale{others}: {job.stale}", hint="use --existing overwrite to replace it"
    )
