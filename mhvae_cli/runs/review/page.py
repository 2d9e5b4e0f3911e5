"""The page for reviewing a run: a single self-contained HTML file.

Rows are spooled to an anonymous temporary file during the run, so memory use stays small, and the page is
written atomically; a killed run leaves no partial page. Names are escaped, and hidden characters in them
(control characters, bidirectional marks) are made visible.
"""

import base64
import csv
import json
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from ...errors import OutputError, UsageError, os_error_text
from ...filesystem import open_regular, write_atomic
from .markup import (
    KINDS,
    attribute,
    buttons,
    choose_measures,
    content_security_policy,
    definitions,
    escaped,
    fill_template,
    header_cells,
    key_of,
    row_of,
)
from .thumbnails import SIDE, Thumbnail

TEMPLATE = Path(__file__).with_name("review.html")
OMITTED = ("id", "status", "verb", "process")
TEXT_COLUMNS = ("input", "output", "status", "qc", "qc_why", "error")
"""Columns of text, in which even a number is kept as text."""

_EARLIER = re.compile(
    rb'<tr class="\w+" data-k="([0-9a-f]{16})".*?'
    rb'<svg viewBox="0 0 (\d+) (\d+)"><image width="\d+" height="\d+" '
    rb'href="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"/><path d="([-MlZ 0-9]*)"/>'
)


def check_page(path: Path, existing: str) -> None:
    """Before any work: UsageError for a page not named .html, OutputError for one that already exists.

    `existing` is the run's --existing; skip and overwrite both replace the page.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path}: not an .html file", hint="for example --report night.html")
    if os.path.lexists(path) and existing == "error":
        raise OutputError(f"{path}: already exists", hint="use --existing skip or --existing overwrite")


class Review:
    """Collects the rows of a run, and writes the page at its end.

    `columns` are those of results.csv, `total` is the number of inputs. Raises OutputError if the spool or
    the page cannot be written.
    """

    def __init__(self, path: Path, *, title: str, columns: Sequence[str], total: int) -> None:
        self.path, self.title, self.columns, self.total = path, title, columns, total
        self._begun = datetime.now().astimezone()
        # Per row: the rank of its kind, minus its number of reasons, its offset in the spool.
        self._index: list[tuple[int, int, int]] = []
        self._counts = dict.fromkeys(KINDS, 0)
        self._reasons: Counter[str] = Counter()
        self._filled: set[str] = set()
        self._earlier = self._without_image = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._spool = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - open for the whole run
        except OSError as error:
            raise self._output_error(error) from error

    def add(
        self,
        row: Mapping[str, object],
        thumbnail: Thumbnail | None = None,
        *,
        earlier: bool = False,
        stale: str = "",
    ) -> None:
        """Add one row, with the columns of results.csv, and its thumbnail if there is one.

        `earlier`: made by an earlier run; `stale`: why this run would give a different result.
        """
        values = {name: _value(name, row.get(name)) for name in self.columns}
        kind = "flagged" if stale else _kind(values)
        reasons = [why for why in str(values.get("qc_why") or "").split(";") if why]
        reasons += [f"stale: {stale}"] if stale else []
        self._counts[kind] += 1
        self._earlier += earlier
        self._without_image += earlier and thumbnail is None
        self._reasons.update(reasons if kind == "flagged" else ())
        self._filled.update(name for name, value in values.items() if value is not None)
        encoded = thumbnail and [base64.b64encode(thumbnail.jpeg).decode(), thumbnail.size, thumbnail.outline]
        self._index.append((KINDS.index(kind), -len(reasons), self._spool.tell()))
        entry = {"kind": kind, "why": reasons, "values": values, "thumbnail": encoded, "earlier": earlier}
        try:
            self._spool.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise self._output_error(error) from error

    def add_earlier(self, table: Path, keys: Mapping[tuple[str, ...], str]) -> None:
        """Add rows of earlier runs from results.csv, by input, page and output.

        The values of `keys` are the reasons why rows are stale, or "". Thumbnails are taken from the
        existing page at the same path, if it has them.
        """
        left, offsets = dict(keys), _thumbnail_offsets(self.path) if keys else {}
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file):
                key = (row.get("input", ""), row.get("page", ""), row.get("output", ""))
                if key in left:
                    values = {name: _value(name, row.get(name)) for name in self.columns}
                    thumbnail = _read_thumbnail(self.path, offsets.get(key_of(values)))
                    self.add(row, thumbnail, earlier=True, stale=left.pop(key))
        for (name, page, output), stale in left.items():
            row = {"input": name, "page": page, "output": output, "status": "skipped"}
            self.add(row, earlier=True, stale=stale)

    def write(self, run: Mapping[str, object]) -> None:
        """Write the page: flagged rows first, then failed ones, then the others in the order of the run.

        `run` is the run's entry in mhvae-run.json.
        """
        write_atomic(self.path, self._page({name: run[name] for name in run if name not in OMITTED}))

    def close(self) -> None:
        """Close the spool."""
        with suppress(OSError):  # unwritten data of a full disk is no longer needed
            self._spool.close()

    def _page(self, run: Mapping[str, object]) -> Iterator[bytes]:
        names = [name for name in self.columns if name in self._filled or name in TEXT_COLUMNS]
        measures = choose_measures(names)
        text = TEMPLATE.read_text(encoding="utf-8")
        parts = {
            "policy": content_security_policy(text),
            "title": escaped(self.title),
            "summary": self._summary(),
            "facts": definitions(run),
            "kinds": buttons(self._counts),
            "columns": "".join(f"<option>{escaped(name)}</option>" for name in names),
            "names": attribute(names),
            "count": str(len(measures)),
            "heads": header_cells(measures),
            "side": str(SIDE),
        }
        head, tail = text.split("{{rows}}\n")
        yield fill_template(head, parts)
        folder = os.path.abspath(self.path.parent)
        for _, _, offset in sorted(self._index):
            self._spool.seek(offset)
            yield row_of(json.loads(self._spool.readline()), names, measures, folder)
        yield fill_template(tail, parts)

    def _summary(self) -> str:
        done = len(self._index)
        lines = [f"<p>{escaped(self._begun.strftime('%Y-%m-%d %H:%M %Z'))}</p>"]
        if done < self.total:
            lines.append(f'<p class="stopped">Stopped: {done:,} of {self.total:,} inputs are included.</p>')
        if self._earlier:
            bare = f", {self._without_image:,} of them without an image" if self._without_image else ""
            lines.append(f"<p>{self._earlier:,} rows are from earlier runs{bare}.</p>")
        if self._counts["done"]:
            lines.append(f"<p>{self._counts['done']:,} results were not checked for quality.</p>")
        if self._reasons:
            why = " ".join(
                f'<button data-text="{escaped(name)}">{escaped(name)} {count:,}</button>'
                for name, count in self._reasons.most_common()
            )
            lines.append(f"<p>Flagged for: {why}</p>")
        return "\n".join(lines)

    def _output_error(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: {os_error_text(error)}")


def _thumbnail_offsets(path: Path) -> dict[str, int]:
    """The offset of each row with a thumbnail in an existing page, by key."""
    found: dict[str, int] = {}
    try:
        with open_regular(path) as page:
            offset = 0
            for line in page:
                if line.startswith(b"<tr ") and (match := _EARLIER.match(line)):
                    found[match[1].decode()] = offset
                offset += len(line)
    except OSError:  # no readable page, so no thumbnails
        return {}
    return found


def _read_thumbnail(path: Path, offset: int | None) -> Thumbnail | None:
    if offset is None:
        return None
    with path.open("rb") as page:
        page.seek(offset)
        match = _EARLIER.match(page.readline())
    if match is None:
        return None
    size = (int(match[3]) // 10, int(match[2]) // 10)
    return Thumbnail(base64.b64decode(match[4]), size, match[5].decode())


def _value(name: str, value: Any) -> str | float | None:
    """A cell as a JSON value, identical for a new row and one read from the table; None if empty."""
    if value is None or value == "":
        return None
    if name in TEXT_COLUMNS:
        return str(value)
    try:
        number = float(value)
    except ValueError:
        return str(value)
    return number if math.isfinite(number) else None


def _kind(values: Mapping[str, Any]) -> str:
    if values["status"] == "failed":
        return "failed"
    if values["status"] == "missed" or values.get("qc") == "warn":
        return "flagged"
    return "ok" if values.get("qc") else "done"
