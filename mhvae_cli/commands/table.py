"""results.csv, the table of a folder of results, and other tables that grow with a folder."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import OutputError

Key = tuple[str, ...]
"""The first three cells of a row: in results.csv input, page and output, which is empty where it failed."""


class Table:
    """A row a result, appended whole by one write: a killed run leaves no half line.

    The first three columns tell rows apart. Rows of earlier runs stay, except those of results that are
    made again (`anew`); columns that only they have, too: commands may share a folder, and several runs at
    once (shards). Raises OutputError for a table that begins otherwise, or one that cannot be written.
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
        try:
            created = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            pass
        else:
            os.write(created, _line(self.columns))
            os.close(created)
            return set()
        text = self.path.read_bytes()
        lines = text[: text.rfind(b"\n") + 1]  # a line without an end was cut
        rows = list(csv.reader(io.StringIO(lines.decode(errors="surrogateescape"), newline="")))
        there = rows.pop(0) if rows else []
        if text and there[:3] != self.columns[:3]:
            raise OutputError(
                f"{self.path}: not a table of this command", hint="move it away, or name another folder"
            )
        self.columns = there + [column for column in self.columns if column not in there]
        more = [""] * (len(self.columns) - len(there))
        kept = [[*row, *more] for row in rows if len(row) == len(there) and (*row[:3],) not in anew]
        whole = _line(self.columns) + b"".join(map(_line, kept))
        if whole != text:
            from ..imaging import write_atomic

            write_atomic(self.path, whole)
        return {tuple(row[:3]) for row in kept}

    def _fault(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: {(error.strerror or str(error)).lower()}")


def _line(values: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue().encode(errors="surrogateescape")
