"""From what the user named to a list of inputs: files, folders, globs, lists, stdin, pages and shards."""

import glob
import math
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from ..errors import InputError, UsageError, os_error_text

if TYPE_CHECKING:
    from ..images.scan import Window


@dataclass(frozen=True, slots=True)
class Item:
    """One picture to work on, or one thing that was named and is none.

    `name` is what messages and tables call it; `place` a path or stdin's bytes; `base` the output's path
    without its suffix, sub-folders kept; `page` counts from 0. An item with a `fault` fails without being
    opened. Tens of thousands are held at once: paths are made when they are asked for.
    """

    name: str
    place: str | os.PathLike[str] | bytes
    base: str | os.PathLike[str]
    page: int = 0
    fault: InputError | None = None

    @property
    def source(self) -> Path | bytes:
        """`place`, a path as such."""
        return self.place if isinstance(self.place, bytes) else Path(self.place)

    @property
    def stem(self) -> PurePath:
        """`base` as a path."""
        return PurePath(self.base)


@dataclass(frozen=True)
class Gathered:
    """`items` in the order of the work. `many`: what was named may hold more than one picture."""

    items: list[Item]
    many: bool


def gather(
    inputs: list[str], *, from_file: str | None = None, recursive: bool = False, out: str | None = None
) -> Gathered:
    """Expand operands and the lines of a list; pages of a TIFF and frames of a DICOM become items.

    A path that exists is taken literally, else as a glob. Folders and globs are in natural order; the same
    file twice is one item. With `recursive` sub-folders are entered, except `out`, and kept in the stems.
    Raises UsageError if nothing is named or stdin is asked for twice, InputError for a list that cannot be
    read.
    """
    if inputs.count("-") + (from_file == "-") > 1:
        raise UsageError("stdin can be read once only", hint="name - once")
    named = [*inputs, *(_lines(from_file) if from_file else [])]
    if not named:
        raise UsageError("no inputs", hint="name files, folders or globs; see --help")
    found: list[Item] = []
    for position, operand in enumerate(named):
        if operand == "-" and position < len(inputs):
            found.append(Item("stdin", _stdin(), "stdin"))
        else:
            found.extend(_expand(operand, recursive, os.path.abspath(out) if out else None))
    pages = [paged for item in _once(found) for paged in _pages(item)]
    many = len(pages) > 1 or from_file is not None or not all(map(_plain, inputs))
    return Gathered(pages, many)


def parse_shard(shard: str | None) -> slice:
    """`I/N`, 1 <= I <= N, as the slice that picks every N-th from the I-th; UsageError for anything else."""
    if shard is None:
        return slice(None)
    match = re.fullmatch(r"([0-9]+)/([0-9]+)", shard)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            f"--shard {shard}: not I/N with I from 1 to N", hint="the first of four is --shard 1/4"
        )
    return slice(int(match[1]) - 1, None, int(match[2]))


def parse_window(window: str) -> "Window":
    """--window, as `imaging.read_scan` takes it; UsageError for what is no window."""
    if window == "auto":
        return "auto"
    if window == "full":
        return "full"
    match = re.fullmatch(r"([^,]+),([^,]+)", window)
    try:
        low, high = map(float, match.groups() if match else ())
    except ValueError:
        low, high = 0.0, 0.0
    if not -math.inf < low < high < math.inf:
        hint = "--window 0,4095 makes 0 black and 4095 white"
        raise UsageError(f"--window {window}: not auto, full, or LO,HI with LO < HI", hint=hint)
    return low, high


def natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key that counts: scan2 before scan10, whatever the case."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", name.casefold())
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts]


def _lines(path: str) -> list[str]:
    try:
        text = (
            sys.stdin.read()
            if path == "-"
            else Path(path).read_text(encoding="utf-8", errors="surrogateescape")
        )
    except OSError as error:
        raise InputError(f"{path}: {os_error_text(error)}", hint="--from-file takes a text file") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise InputError(f"{path}: names no inputs", hint="a list has one path a line")
    return lines


def _stdin() -> bytes:
    if sys.stdin.isatty():
        raise UsageError("- reads an image from stdin, which is a terminal", hint="pipe it in: - < scan.png")
    return sys.stdin.buffer.read()


def _plain(operand: str) -> bool:
    """Whether an operand names one file: no folder and no glob."""
    return operand == "-" or (
        not os.path.isdir(operand) and (os.path.lexists(operand) or not glob.has_magic(operand))
    )


def _expand(operand: str, recursive: bool, out: str | None) -> list[Item]:
    if os.path.isdir(operand):
        return _folder(operand, recursive, out)
    if os.path.lexists(operand) or not glob.has_magic(operand):
        return [_file(operand)]
    matches = sorted(glob.glob(operand, recursive=True), key=natural)
    if not matches:
        return [_fault(operand, "no file matches")]
    return [item for match in matches for item in _expand(match, recursive, out)]


def _file(path: str) -> Item:
    if not os.path.exists(path):
        return _fault(path, "a broken link" if os.path.islink(path) else "no such file or folder")
    return Item(path, path, _stem(os.path.basename(path)))


def _fault(name: str, what: str, hint: str | None = None) -> Item:
    return Item(name, name, Path(name).stem, fault=InputError(f"{name}: {what}", hint=hint))


def _stem(name: str) -> str:
    """A file's name without its suffix; the last number of a DICOM's name, 1.2.840.5, is none."""
    stem, suffix = os.path.splitext(name)
    return name if suffix[1:].isdecimal() else stem


def _folder(folder: str, recursive: bool, out: str | None) -> list[Item]:
    """The images of a folder, by their suffixes, and DICOM files without one; hidden ones are left alone.

    A folder that calls itself x.png is listed as an input, so that it fails in sight.
    """
    items: list[Item] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        posing = [name for name in folders if _known(name) and not recursive]
        images = [name for name in files if not name.startswith(".") and _is_image(root, name)]
        above, below = str(Path(root)), os.path.relpath(root, folder)
        for name in sorted([*images, *posing], key=natural):
            path, base = (_joined(*pair) for pair in ((above, name), (below, _stem(name))))
            items.append(Item(path, path, base))
        folders[:] = [
            name for name in folders if recursive and os.path.abspath(os.path.join(root, name)) != out
        ]
    hint = None if recursive else "sub-folders are entered with --recursive"
    return items or [_fault(folder, "no images in this folder", hint)]


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else os.path.join(folder, name)


def _known(name: str) -> bool:
    from ..images.read import SUFFIXES

    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_image(folder: str, name: str) -> bool:
    """By its suffix; a file without one, or with a number for one, is opened: only DICOM is called so."""
    suffix = os.path.splitext(name)[1]
    if suffix[1:].isdecimal() or (not suffix and name != "DICOMDIR"):
        return _is_dicom(os.path.join(folder, name))
    return _known(name)


def _is_dicom(path: str) -> bool:
    from ..images.dicom import has_preamble

    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return has_preamble(file)
    except OSError:
        return False


def _once(items: Iterable[Item]) -> list[Item]:
    """Each file once, where it was named first."""
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault("" if isinstance(item.place, bytes) else os.path.abspath(item.place), item)
    return list(first.values())


def _pages(item: Item) -> Iterator[Item]:
    """An item a page, `_p0` and so on behind the stem (zero-padded), if it has several."""
    pages = 1
    if item.fault is None and _may_have_pages(item.place):
        from ..images.read import count_pages

        try:
            pages = count_pages(item.source, name=item.name)
        except InputError as error:
            item = replace(item, fault=error)
    if pages == 1:
        yield item
        return
    for page in range(pages):
        number = str(page).zfill(len(str(pages - 1)))
        yield replace(item, page=page, base=f"{item.base}_p{number}")


def _may_have_pages(place: str | os.PathLike[str] | bytes) -> bool:
    """Whether a file must be opened to know: its name tells, or it is DICOM under a name that does not."""
    if isinstance(place, bytes):
        return True
    from ..images.dicom import SUFFIXES

    path = os.fspath(place)
    paged = {".tif", ".tiff", *SUFFIXES}
    return os.path.splitext(path)[1].lower() in paged or (not _known(path) and _is_dicom(path))
