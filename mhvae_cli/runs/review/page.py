"""The page on which a person reviews a run: one HTML file that asks for nothing outside itself.

Rows are spooled to a nameless file beside the page while the run goes on, so memory stays small, and the page
is moved into its place whole; a killed run leaves no page and no half one. Names are escaped, and what a name
hides (controls, marks that turn the writing) is spelt out.
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
from ...filesystem import write_atomic
from .markup import KINDS, attribute, buttons, choose, entries, escaped, fill, heads, key_of, policy, row_of
from .thumbnails import SIDE, Thumbnail

TEMPLATE = Path(__file__).with_name("review.html")
UNTOLD = ("id", "status", "verb", "process")
WORDS = ("input", "output", "status", "qc", "qc_why", "error")
"""The columns of text: a number in one of them is still a name."""

_EARLIER = re.compile(
    rb'<tr class="\w+" data-k="([0-9a-f]{16})".*?'
    rb'<svg viewBox="0 0 (\d+) (\d+)"><image width="\d+" height="\d+" '
    rb'href="data:image/jpeg;base64,([A-Za-z0-9+/=]+)"/><path d="([-MlZ 0-9]*)"/>'
)


def check_page(path: Path, existing: str) -> None:
    """Before any work: UsageError for a page not named .html, OutputError for one that is there already.

    `existing` is the run's --existing; skip and overwrite write the page anew.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {path}: not named .html", hint="--report night.html")
    if os.path.lexists(path) and existing == "error":
        raise OutputError(f"{path}: exists already", hint="--existing skip or --existing overwrite")


class Review:
    """Takes the rows of a run as they come, and writes the page at its end.

    `columns` are those of results.csv, `total` is the number of inputs. Raises OutputError where the spool or
    the page cannot be written.
    """

    def __init__(self, path: Path, *, title: str, columns: Sequence[str], total: int) -> None:
        self.path, self.title, self.columns, self.total = path, title, columns, total
        self._begun = datetime.now().astimezone()
        self._index: list[tuple[int, int, int]] = []  # rank of the kind, - reasons, place in the spool
        self._counts = dict.fromkeys(KINDS, 0)
        self._reasons: Counter[str] = Counter()
        self._filled: set[str] = set()
        self._earlier = self._bare = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._spool = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - open as long as the run
        except OSError as error:
            raise self._fault(error) from error

    def add(
        self,
        row: Mapping[str, Any],
        thumb: Thumbnail | None = None,
        *,
        earlier: bool = False,
        stale: str = "",
    ) -> None:
        """One row, with the columns of results.csv, and its picture if there is one.

        `earlier`: another run made it; `stale`: why it is not what this run would make.
        """
        values = {name: _value(name, row.get(name)) for name in self.columns}
        kind = "flagged" if stale else _kind(values)
        reasons = [why for why in str(values.get("qc_why") or "").split(";") if why]
        reasons += [f"stale: {stale}"] if stale else []
        self._counts[kind] += 1
        self._earlier += earlier
        self._bare += earlier and thumb is None
        self._reasons.update(reasons if kind == "flagged" else ())
        self._filled.update(name for name, value in values.items() if value is not None)
        picture = thumb and [base64.b64encode(thumb.jpeg).decode(), thumb.size, thumb.outline]
        self._index.append((KINDS.index(kind), -len(reasons), self._spool.tell()))
        entry = {"kind": kind, "why": reasons, "values": values, "picture": picture, "earlier": earlier}
        try:
            self._spool.write(json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise self._fault(error) from error

    def add_earlier(self, table: Path, keys: Mapping[tuple[str, ...], str]) -> None:
        """Rows that an earlier run made: from its results.csv, by input, page and output.

        `keys` also tells why each is stale, "" if it is not.

        Their pictures come from the page that stands where this one goes to, if they are on it.
        """
        left, pictures = dict(keys), self._pictures() if keys else {}
        with table.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for row in csv.DictReader(file):
                key = (row.get("input", ""), row.get("page", ""), row.get("output", ""))
                if key in left:
                    values = {name: _value(name, row.get(name)) for name in self.columns}
                    thumb = self._take(pictures, key_of(values))
                    self.add(row, thumb, earlier=True, stale=left.pop(key))
        for (name, page, output), stale in left.items():
            row = {"input": name, "page": page, "output": output, "status": "skipped"}
            self.add(row, earlier=True, stale=stale)

    def write(self, run: Mapping[str, Any]) -> None:
        """Put the page in its place, flagged first, then failed ones, then the others in the run's order.

        `run` is what mhvae-run.json tells of it.
        """
        write_atomic(self.path, self._page({name: run[name] for name in run if name not in UNTOLD}))

    def close(self) -> None:
        """Let go of the spool."""
        with suppress(OSError):  # what a full disk did not take is not wanted any more
            self._spool.close()

    def _page(self, run: Mapping[str, Any]) -> Iterator[bytes]:
        names = [name for name in self.columns if name in self._filled or name in WORDS]
        measures = choose(names)
        text = TEMPLATE.read_text(encoding="utf-8")
        parts = {
            "policy": policy(text),
            "title": escaped(self.title),
            "summary": self._summary(),
            "facts": entries(run),
            "kinds": buttons(self._counts),
            "columns": "".join(f"<option>{escaped(name)}</option>" for name in names),
            "names": attribute(names),
            "count": str(len(measures)),
            "heads": heads(measures),
            "side": str(SIDE),
        }
        head, tail = text.split("{{rows}}\n")
        yield fill(head, parts)
        folder = os.path.abspath(self.path.parent)
        for _, _, place in sorted(self._index):
            self._spool.seek(place)
            yield row_of(json.loads(self._spool.readline()), names, measures, folder)
        yield fill(tail, parts)

    def _summary(self) -> str:
        done = len(self._index)
        lines = [f"<p>{escaped(self._begun.strftime('%Y-%m-%d %H:%M %Z'))}</p>"]
        if done < self.total:
            lines.append(f'<p class="stopped">Stopped: {done:,} of {self.total:,} inputs are here.</p>')
        if self._earlier:
            bare = f", {self._bare:,} of them without a picture" if self._bare else ""
            lines.append(f"<p>{self._earlier:,} rows are of earlier runs{bare}.</p>")
        if self._counts["done"]:
            lines.append(f"<p>{self._counts['done']:,} results were not checked: no flag either way.</p>")
        if self._reasons:
            why = " ".join(
                f'<button data-text="{escaped(name)}">{escaped(name)} {count:,}</button>'
                for name, count in self._reasons.most_common()
            )
            lines.append(f"<p>Flagged for: {why}</p>")
        return "\n".join(lines)

    def _pictures(self) -> dict[str, int]:
        """Where in the page that is there each row with a picture begins, by the row's key."""
        found: dict[str, int] = {}
        try:
            with self.path.open("rb") as page:
                place = 0
                for line in page:
                    if line.startswith(b"<tr ") and (match := _EARLIER.match(line)):
                        found[match[1].decode()] = place
                    place += len(line)
        except OSError:  # no page, or none that can be read: no pictures
            return {}
        return found

    def _take(self, pictures: Mapping[str, int], key: str) -> Thumbnail | None:
        if key not in pictures:
            return None
        with self.path.open("rb") as page:
            page.seek(pictures[key])
            match = _EARLIER.match(page.readline())
        if match is None:
            return None
        size = (int(match[3]) // 10, int(match[2]) // 10)
        return Thumbnail(base64.b64decode(match[4]), size, match[5].decode())

    def _fault(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: {os_error_text(error)}")


def _value(name: str, value: Any) -> str | float | None:
    """A cell as JSON has it, the same whether it was just made or read from the table: None where empty."""
    if value is None or value == "":
        return None
    if name in WORDS:
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
