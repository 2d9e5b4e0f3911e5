"""results.csv, the table of an output folder, and other tables that grow with a folder."""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import OutputError, os_error_text
from ..filesystem import locked, open_regular, place, stage, staging, write_atomic

if TYPE_CHECKING:
    from .review.thumbnails import Thumbnail

Key = tuple[str, ...]
"""The first three cells of a row: in results.csv input, page and output (empty for a failed input)."""
FORMULA = tuple("=+-@\t\r\n")
"""What a text begins with that a spreadsheet takes as a formula."""
Keep = Callable[[dict[str, str]], dict[str, str] | None]
"""Decides about a row of an earlier run: returns it, unchanged or changed, or None to drop it."""


@dataclass(frozen=True)
class Result:
    """The result of a job: its `files` in the order of its outputs, its columns of results.csv (`fields`),
    the quality gate that it `missed` (the files are still written), else a `warning` for the user, its
    `thumbnail` for the review page, and its fingerprint (`RunFingerprint.made_by`).
    """

    files: Sequence[bytes]
    fields: Mapping[str, object]
    missed: str | None = None
    warning: str | None = None
    thumbnail: "Thumbnail | None" = None
    made_by: str | None = None


class Table:
    """One row per result, appended by a single write, so that a killed run leaves no partial line.

    The first three columns are the key; of several rows with one key the last is kept. `keep` decides about
    each row of earlier runs; by default all stay. Their additional columns are kept, too. Different verbs and
    concurrent runs (shards) may share a folder, as the file is locked while it is changed. Raises OutputError
    for a table with other key columns, or one that cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: Keep = dict) -> None:
        self.path, self.columns = path, list(columns)
        self._end = 0
        self._shared = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path):
                remove_leftovers(path.parent, path)
                self.known = self._tidy(keep)
        except OSError as error:
            raise self._output_error(error) from error

    def add(self, row: Mapping[str, object]) -> None:
        """Append one row; on a full disk the table is left unchanged."""
        with self.appending() as append:
            append(row)

    @contextmanager
    def appending(self) -> Iterator[Callable[[Mapping[str, object]], None]]:
        """Lock the table while its row is appended, by the function this yields, and its files are placed.

        If that fails, or the disk is full, the row is removed again.
        """
        try:
            with locked(self.path) as file:
                begun = self._next_row(file)
                try:
                    yield partial(self._append, file)
                except BaseException:
                    os.ftruncate(file, begun)
                    self._end = begun
                    raise
        except OSError as error:
            raise self._output_error(error) from error

    def close(self) -> None:
        """Reduce the table to one row per key, including rows added by other processes."""
        if not self._shared:
            return
        try:
            with locked(self.path):
                self._tidy(dict)
        except OSError as error:
            raise self._output_error(error) from error

    def _next_row(self, file: int) -> int:
        """The position of the next row, after the last complete line."""
        end = os.fstat(file).st_size
        self._shared |= end != self._end
        if end and os.pread(file, 1, end - 1) != b"\n":
            end = len(_whole_rows(os.pread(file, end, 0)))
            os.ftruncate(file, end)
        return end

    def _append(self, file: int, row: Mapping[str, object]) -> None:
        if self._shared:  # another process may have added columns, or the table may have been removed
            self.columns = next(_parsed(os.pread(file, 2**16, 0).partition(b"\n")[0]), self.columns)
        data = _line([row.get(column) for column in self.columns])
        if not os.fstat(file).st_size:
            data = _line(self.columns) + data
        if os.write(file, data) < len(data):
            raise OSError("no space left on device")
        self._end = os.fstat(file).st_size

    def _tidy(self, keep: Keep) -> set[Key]:
        """Create the table or tidy the existing one; return the keys of the rows kept."""
        text = self.path.read_bytes()
        lines = _parsed(_whole_rows(text))
        header = next(lines, [])
        if text and header[:3] != self.columns[:3]:
            raise OutputError(
                f"{self.path}: not a table of this command", hint="move the file, or choose another folder"
            )
        rows = (dict(zip(header, cells, strict=True)) for cells in lines if len(cells) == len(header))
        self.columns = header + [column for column in self.columns if column not in header]
        kept: dict[Key, bytes] = {}
        for row in filter(None, map(keep, rows)):
            cells = [row.get(column, "") for column in self.columns]
            kept.pop((*cells[:3],), None)
            kept[(*cells[:3],)] = _line(cells)
        content = _line(self.columns) + b"".join(kept.values())
        if content != text:
            write_atomic(self.path, content, beside=staged_name(self.path, self.path))
        self._end = len(content)
        return set(kept)

    def _output_error(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: {os_error_text(error)}")


def staged_name(path: Path, table: Path | None) -> Path:
    """A temporary name beside `path`, for a file to be moved there while the table, if any, is locked."""
    return staging(path, f"{table.name}-" if table else "")


def remove_leftovers(folder: Path, table: Path) -> None:
    """Remove such temporary files of killed runs; with the table locked, no other run has any."""
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in entries if entry.name.startswith(f".{table.name}-")]:
            os.unlink(path)


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The complete rows of a table on disk, as dicts; none if there is no table."""
    try:
        with open_regular(path) as file:
            text = file.read()
    except OSError:
        return
    lines = _parsed(_whole_rows(text))
    head = next(lines, [])
    yield from (dict(zip(head, cells, strict=True)) for cells in lines if len(cells) == len(head))


def _parsed(text: bytes) -> Iterator[list[str]]:
    return csv.reader(io.TextIOWrapper(io.BytesIO(text), "utf-8", "surrogateescape", newline=""))


def _whole_rows(text: bytes) -> bytes:
    """A table without the partial row that a killed run may have left at its end."""
    end = text.rfind(b"\n") + 1
    inside = text.count(b'"', 0, end) % 2  # this line break is one in a quoted name
    while inside:
        begin = text.rfind(b"\n", 0, end - 1) + 1
        inside ^= text.count(b'"', begin, end) % 2
        end = begin
    return text[:end]


def csv_line(values: Iterable[object]) -> str:
    """One row of a CSV file, whose cells are `csv_cell`; line breaks in names are quoted."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(map(csv_cell, values))  # quotes both, thanks to these
    return text.getvalue()[:-2] + "\n"


def csv_cell(value: object) -> object:
    """The value, or a text with ./ before it that a spreadsheet would take as a formula.

    As a path, ./=a.png is still the file =a.png; an apostrophe, the usual way, would name another one.
    """
    return f"./{value}" if isinstance(value, str) and _is_formula(value) else value


def _is_formula(text: str) -> bool:
    try:
        float(text)  # numbers may be negative
    except ValueError:
        return text.startswith(FORMULA)
    return False


def _line(values: Iterable[object]) -> bytes:
    return csv_line(values).encode(errors="surrogateescape")


def commit_files(
    outputs: Sequence[Path], files: Sequence[bytes], record: Callable[[], object], *, table: Path | None
) -> None:
    """Write the files of one job, all or none, and record it, while the `table`, if any, is locked.

    Existing files are removed first, and the record precedes the new files: if the process is killed at any
    point, no file exists that is not recorded.
    """
    staged = [staged_name(path, table) for path in outputs]
    placed: list[Path] = []
    try:
        for beside, path, data in zip(staged, outputs, files, strict=bool(outputs)):
            stage(beside, path, data)
        for path in outputs if table else ():
            path.unlink(missing_ok=True)
        record()
        for beside, path in zip(staged, outputs, strict=True):
            place(beside, path)
            placed.append(path)
    except BaseException:
        for path in placed:  # an image without its mask is worse than none
            path.unlink(missing_ok=True)
        raise
    finally:
        for beside in staged:
            beside.unlink(missing_ok=True)
