"""How large a pixel is, in mm: told by the user or by the file, never guessed."""

import csv
import math
import os
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ..errors import UsageError, os_error_text
from .read import SUFFIXES, read_resolution
from .scan import Scan

Size = tuple[float, float]
"""Width and height of a pixel in mm: (x, y)."""

NAMES = ("input", "path", "filename", "file", "image", "name", "id")
ONE = ("spacing", "spacing_mm", "pixel_size_mm", "pixel size(mm)")
TWO = ("spacing_x", "spacing_y")


@dataclass(frozen=True)
class Spacings:
    """Where the spacing of an input comes from; the first that has one is believed.

    `table`: rows by the inputs' names (`read_table`); `given`: one for all; then the file's own (a DICOM
    file's); `trust_dpi`: the resolution that a TIFF is labelled with.
    """

    table: dict[str, Size] = field(default_factory=dict)
    given: Size | None = None
    trust_dpi: bool = False

    def of(self, name: str, scan: Scan, source: Path | bytes) -> Size | None:
        """The spacing of the STORED pixels of an input, whose file or bytes are `source`; None if unknown."""
        told = self.row_of(name) or self.given
        if told is None and scan.spacing is not None:
            told = scan.spacing if scan.orientation < 5 else scan.spacing[::-1]
        if told is None and self.trust_dpi:
            told = read_resolution(source, page=scan.page, name=name)
        return told

    def row_of(self, name: str) -> Size | None:
        """What the table has for an input: by its path as given, else by its file's name or stem."""
        return self.table.get(os.path.normpath(name)) or self.table.get(_stem(name))


def parse(text: str) -> Size:
    """`0.12`, or `0.12,0.15`: the width and the height of a stored pixel in mm. Raises UsageError."""
    x, comma, y = text.partition(",")
    size = _positive(x), _positive(y if comma else x)
    if size[0] is None or size[1] is None:
        raise UsageError(
            f"--spacing {text}: not a pixel's size in mm", hint="0.12, or X,Y where it is not square"
        )
    return size[0], size[1]


def read_table(path: Path) -> dict[str, Size]:
    """Spacings by input from a CSV: a column of NAMES, and one of ONE or both of TWO (of stored pixels).

    A name with a folder is a path as given; one without is a file's name, with or without its suffix, in any
    folder. Raises UsageError, with the line, for what is no such table or no size, and for a name told twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        fault = os_error_text(error)
        raise UsageError(f"{path}: {fault}", hint="--spacing-csv takes a CSV file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a CSV file in UTF-8") from error
    try:
        return _rows(csv.DictReader(lines), path)
    except csv.Error as error:
        raise UsageError(f"{path}: not a CSV file ({error})") from error


def _rows(reader: "csv.DictReader[str]", path: Path) -> dict[str, Size]:
    columns = {column.strip().lower(): column for column in reader.fieldnames or ()}
    names = [columns[known] for known in NAMES if known in columns]
    one, two = ([columns[known] for known in each if known in columns] for each in (ONE, TWO))
    sizes = [one[0], one[0]] if one else two
    if not names or len(sizes) < 2:
        lacks = "the size of a pixel" if names else "the file's name"
        hint = "it needs filename, and spacing (in mm) or spacing_x and spacing_y"
        raise UsageError(f"{path}, line 1: no column for {lacks}", hint=hint)
    table: dict[str, Size] = {}
    for row in reader:
        where, name = f"{path}, line {reader.line_num}", row[names[0]] or ""
        x, y = (_positive(row[size] or "") for size in sizes)
        if x is None or y is None:
            wrong = row[sizes[0] if x is None else sizes[1]]
            raise UsageError(f"{where}: {wrong!r} is not a pixel's size in mm")
        if (key := _key(name)) in table:
            raise UsageError(f"{where}: {name!r} is there twice")
        table[key] = x, y
    return table


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 < value < math.inf else None


def _key(name: str) -> str:
    plain = PurePath(name.strip())
    return _stem(name) if plain.name == str(plain) else os.path.normpath(plain)


def _stem(name: str) -> str:
    """A file's name without a known suffix, whatever its case, in one Unicode form."""
    path = PurePath(name.strip())
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return unicodedata.normalize("NFC", stem).casefold()
