"""results.csv, the table of a folder of results, and other tables that grow with a folder."""

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OutputError, os_error_text
from ..filesystem import locked, place, stage, staging, write_atomic

if TYPE_CHECKING:
    from .review.thumbnails import Thumbnail

Key = tuple[str, ...]
"""The first three cells of a row: in results.csv input, page and output, which is empty where it failed."""
Keep = Callable[[dict[str, str]], dict[str, str] | None]


@dataclass(frozen=True)
class Result:
    """What a job gives: its `files` in the order of its outputs, its own columns of results.csv (`fields`),
    the quality gate that it `missed` (it is written all the same), its `thumbnail` for the review page, and
    what it was made by (`RunFingerprint.made_by`).
    """

    files: Sequence[bytes]
    fields: Mapping[str, Any]
    missed: str | None = None
    thumbnail: "Thumbnail | None" = None
    made_by: str | None = None


class Table:
    """A row a result, appended whole by one write: a killed run leaves no half line.

    The first three columns tell rows apart; of several rows for one thing the last stays. Rows of earlier
    runs stay as `keep` says: as they are, changed, or not at all (None). Columns that only they have stay,
    too: commands may share a folder, and several runs at once (shards), as the file is held while it is
    changed. Raises OutputError for a table that begins otherwise, or one that cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str], keep: Keep = dict) -> None:
        self.path, self.columns = path, list(columns)
        self._end = 0
        self._shared = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path):
                sweep(path.parent, path)
                self.known = self._take_over(keep)
        except OSError as error:
            raise self._fault(error) from error

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row; a row that does not fit on the disk leaves no trace."""
        with self.held() as append:
            append(row)

    @contextmanager
    def held(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Hold the table while a row is appended, by what this gives, and what it tells of is put in place.

        If that fails, or the row does not fit on the disk, the row leaves no trace.
        """
        try:
            with locked(self.path) as file:
                begun = self._begin(file)
                try:
                    yield partial(self._append, file)
                except BaseException:
                    os.ftruncate(file, begun)
                    self._end = begun
                    raise
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        """Leave one row for each thing, also where another process has told of it meanwhile."""
        if not self._shared:
            return
        try:
            with locked(self.path):
                self._take_over(dict)
        except OSError as error:
            raise self._fault(error) from error

    def _begin(self, file: int) -> int:
        """Where the next row goes: behind the last whole line."""
        end = os.fstat(file).st_size
        self._shared |= end != self._end
        if end and os.pread(file, 1, end - 1) != b"\n":
            end = os.pread(file, end, 0).rfind(b"\n") + 1
            os.ftruncate(file, end)
        return end

    def _append(self, file: int, row: Mapping[str, Any]) -> None:
        if self._shared:  # another process may have added columns, or a person taken the table away
            self.columns = next(_parsed(os.pread(file, 2**16, 0).partition(b"\n")[0]), self.columns)
        data = _line([row.get(column) for column in self.columns])
        if not os.fstat(file).st_size:
            data = _line(self.columns) + data
        if os.write(file, data) < len(data):
            raise OSError("no space left on device")
        self._end = os.fstat(file).st_size

    def _take_over(self, keep: Keep) -> set[Key]:
        """Make the table or tidy the one that is there; the keys of the rows that stay."""
        text = self.path.read_bytes()
        lines = _parsed(text[: text.rfind(b"\n") + 1])  # a line without an end was cut
        there = next(lines, [])
        if text and there[:3] != self.columns[:3]:
            raise OutputError(
                f"{self.path}: not a table of this command", hint="move it away, or name another folder"
            )
        rows = (dict(zip(there, cells, strict=True)) for cells in lines if len(cells) == len(there))
        self.columns = there + [column for column in self.columns if column not in there]
        kept: dict[Key, bytes] = {}
        for row in filter(None, map(keep, rows)):
            cells = [row.get(column, "") for column in self.columns]
            kept.pop((*cells[:3],), None)
            kept[(*cells[:3],)] = _line(cells)
        whole = _line(self.columns) + b"".join(kept.values())
        if whole != text:
            write_atomic(self.path, whole, beside=held_name(self.path, self.path))
        self._end = len(whole)
        return set(kept)

    def _fault(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: {os_error_text(error)}")


def held_name(path: Path, table: Path | None) -> Path:
    """A name beside `path`, for what is moved there while the table, if there is one, is held."""
    return staging(path, f"{table.name}-" if table else "")


def sweep(folder: Path, table: Path) -> None:
    """Remove what killed runs have left under such names; nobody else has one while the table is held."""
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in entries if entry.name.startswith(f".{table.name}-")]:
            os.unlink(path)


def read_rows(path: Path) -> Iterator[dict[str, str]]:
    """The whole rows of a table by their columns, as they lie on the disk; none if there is no table."""
    try:
        text = path.read_bytes()
    except OSError:
        return
    lines = _parsed(text[: text.rfind(b"\n") + 1])
    head = next(lines, [])
    yield from (dict(zip(head, cells, strict=True)) for cells in lines if len(cells) == len(head))


def _parsed(text: bytes) -> Iterator[list[str]]:
    return csv.reader(io.TextIOWrapper(io.BytesIO(text), "utf-8", "surrogateescape", newline=""))


def _line(values: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode(errors="surrogateescape")


def commit_files(
    outputs: Sequence[Path], files: Sequence[bytes], record: Callable[[], object], *, table: Path | None
) -> None:
    """Write the files of one job, all or none, and have it recorded, while the `table`, if any, is held.

    What was there goes first, and the record comes before the files: wherever this is killed, no file is
    there that the record does not tell of.
    """
    staged = [held_name(path, table) for path in outputs]
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
        for path in placed:  # a picture without its mask is worse than none
            path.unlink(missing_ok=True)
        raise
    finally:
        for beside in staged:
            beside.unlink(missing_ok=True)
