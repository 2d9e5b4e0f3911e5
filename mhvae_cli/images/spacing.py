"""The size of a pixel in mm: as stated by the user or the file, never a guess."""

import csv
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from ..errors import UsageError, os_error_text
from ..filesystem import open_regular
from ..polygons import overlaps_box
from .read import SUFFIXES, read_resolution
from .scan import Region, Scan, Spacing

NAME_COLUMNS = ("input", "path", "filename", "file", "image", "name", "id")
ONE_COLUMN = ("spacing", "spacing_mm", "pixel_size_mm", "pixel size(mm)")
TWO_COLUMNS = ("spacing_x", "spacing_y")


@dataclass(frozen=True)
class SpacingTable:
    """The rows of a --spacing-csv, by path as given, or by file stem."""

    rows: Mapping[str, Spacing] = field(default_factory=dict)

    def find(self, name: str) -> Spacing | None:
        """The row of an image, by its path as given, else by its file name or stem; None if there is none."""
        return self.rows.get(os.path.normpath(name)) or self.rows.get(stem_key(name))


@dataclass(frozen=True)
class SpacingSources:
    """The sources of an input's spacing; the first that has one is used.

    `table`: rows by the inputs' names; `given`: one for all inputs; then the file's own (DICOM);
    `trust_dpi`: the resolution tags of a TIFF.
    """

    table: SpacingTable | None = None
    given: Spacing | None = None
    trust_dpi: bool = False

    def of(self, name: str, scan: Scan, source: Path | bytes) -> Spacing | None:
        """The spacing of the STORED pixels of an input, whose file or bytes are `source`; None if unknown, or
        if it differs between the scan's regions."""
        found = (self.table.find(name) if self.table else None) or self.given
        if found is None and scan.spacing is not None:
            found = scan.spacing if scan.orientation < 5 else scan.spacing.transposed
        if found is None and self.trust_dpi:
            found = read_resolution(source, page=scan.page, name=name)
        return found


def spacing_of_outline(
    regions: Sequence[Region], rings: Sequence[np.ndarray]
) -> tuple[Spacing | None, str | None]:
    """The spacing of the region that holds a whole outline in STORED pixels; None, and why, if there is none.

    There is none either if another region that overlaps the outline has another spacing.
    """
    if not rings:
        return None, None
    points = np.concatenate(rings)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    half = 0.5  # of a pixel: adjacent regions share a border
    under = [
        region
        for region in regions
        if overlaps_box(
            rings,
            np.array([region.x0 + half, region.y0 + half]),
            np.array([region.x1 - half, region.y1 - half]),
        )
    ]
    held = [it for it in under if it.x0 <= left and it.y0 <= top and it.x1 >= right and it.y1 >= bottom]
    if not held:
        return None, f"outline {'crosses' if under else 'is outside'} the ultrasound regions"
    sizes = [it.spacing for it in under if it.spacing is not None]
    if len(sizes) < len(under):
        return None, "an ultrasound region of the outline has no known spacing"
    if not np.allclose(sizes, sizes[0], rtol=1e-3):
        return None, "the ultrasound regions of the outline differ in spacing"
    return sizes[0], None


def parse_spacing(text: str) -> Spacing:
    """`0.12`, or `0.12,0.15`: the width and the height of a stored pixel in mm. Raises UsageError."""
    width, comma, height = text.partition(",")
    x, y = _positive(width), _positive(height if comma else width)
    if x is None or y is None:
        raise UsageError(
            f"--spacing {text}: not a pixel size in mm", hint="use 0.12, or X,Y if pixels are not square"
        )
    return Spacing(x, y)


def read_spacing_csv(path: Path) -> SpacingTable:
    """Spacings of stored pixels by image, from a CSV file.

    It has one of the columns NAME_COLUMNS, and one of ONE_COLUMN or both of TWO_COLUMNS. A name with a folder
    is a path as given; a name without one is a file name, with or without its suffix, in any folder. Raises
    UsageError, with the line number, for any other table, an invalid size, and a duplicate name.
    """
    try:
        with open_regular(path) as file:
            lines = file.read().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"{path}: {os_error_text(error)}", hint="--spacing-csv needs a CSV file") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not a CSV file in UTF-8") from error
    try:
        return SpacingTable(_rows(csv.DictReader(lines), path))
    except csv.Error as error:
        raise UsageError(f"{path}: not a CSV file ({error})") from error


def _rows(reader: "csv.DictReader[str]", path: Path) -> dict[str, Spacing]:
    columns = {column.strip().lower(): column for column in reader.fieldnames or ()}
    names = [columns[known] for known in NAME_COLUMNS if known in columns]
    one, two = ([columns[known] for known in each if known in columns] for each in (ONE_COLUMN, TWO_COLUMNS))
    sizes = [one[0], one[0]] if one else two
    if not names or len(sizes) < 2:
        lacks = "the pixel spacing" if names else "the file name"
        hint = "it needs filename, and spacing (in mm) or spacing_x and spacing_y"
        raise UsageError(f"{path}, line 1: no column for {lacks}", hint=hint)
    table: dict[str, Spacing] = {}
    for row in reader:
        where, name = f"{path}, line {reader.line_num}", row[names[0]] or ""
        x, y = (_positive(row[size] or "") for size in sizes)
        if x is None or y is None:
            wrong = row[sizes[0] if x is None else sizes[1]]
            raise UsageError(f"{where}: {wrong!r} is not a pixel size in mm")
        if (key := _key(name)) in table:
            raise UsageError(f"{where}: duplicate entry for {name!r}")
        table[key] = Spacing(x, y)
    return table


def _positive(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 1e-6 <= value <= 1e4 else None


def _key(name: str) -> str:
    plain = PurePath(name.strip())
    return stem_key(name) if plain.name == str(plain) else os.path.normpath(plain)


def stem_key(name: str) -> str:
    """A file name without a known image suffix, case-folded and in Unicode NFC."""
    path = PurePath(name.strip())
    stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
    return unicodedata.normalize("NFC", stem).casefold()
