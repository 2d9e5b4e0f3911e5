"""The results of benchmarks that take hours: a row of a CSV file as each part ends, and a Markdown table."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from mhvae_cli.filesystem import write_atomic

Row = dict[str, str]


def read_csv(path: Path) -> list[Row]:
    """The rows of a CSV file; none if it does not exist."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Write rows to a CSV file, whole or not at all."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomic(path, text.getvalue().encode())


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for README.md."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
