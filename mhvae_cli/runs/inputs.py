"""From operands to a list of inputs: files, folders, globs, lists, stdin and pages."""

import codecs
import glob
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING

from ..errors import InputError, UsageError, os_error_text
from ..filesystem import check_regular, open_regular
from .folders import natural_key, visit
from .settings import RunSettings

if TYPE_CHECKING:
    from ..images.scan import Window

LIST_BYTES = 2**28
"""Maximum size of a list of inputs."""
STDIN_BYTES = 2**31
"""Maximum size of an image on stdin."""


@dataclass(frozen=True, slots=True)
class Item:
    """One input image, or an operand that is not usable as one.

    `name` identifies it in messages and tables; `path_or_bytes` is a path, or the bytes read from stdin;
    `base` is the path of the output without a suffix, including subfolders; `page` counts from 0. An item
    with an `error` fails without being opened. Path objects are built on demand, as there may be tens of
    thousands of items.
    """

    name: str
    path_or_bytes: str | os.PathLike[str] | bytes
    base: str | os.PathLike[str]
    page: int = 0
    error: InputError | None = None

    @property
    def source(self) -> Path | bytes:
        """`path_or_bytes`, as a Path unless it is bytes."""
        return self.path_or_bytes if isinstance(self.path_or_bytes, bytes) else Path(self.path_or_bytes)

    @property
    def stem(self) -> PurePath:
        """`base` as a path."""
        return PurePath(self.base)


@dataclass(frozen=True)
class Gathered:
    """`items` in processing order. `many`: the operands may give more than one image."""

    items: list[Item]
    many: bool


def gather(
    inputs: list[str],
    *,
    from_file: str | None = None,
    from_file0: str | None = None,
    recursive: bool = False,
    out: str | None = None,
) -> Gathered:
    """Expand operands and the paths in lists; each page of a TIFF or frame of a DICOM file is an item.

    A path that exists is taken literally, any other as a glob. Folders and globs are in natural order; a file
    named twice is one item. `recursive` includes subfolders and links to folders, except `out`, and keeps
    them in the stems. Raises UsageError if there are no operands or stdin is used twice, InputError for an
    unreadable list.
    """
    if [*inputs, from_file, from_file0].count("-") > 1:
        raise UsageError("stdin can be read only once", hint="use - only once")
    named = [*inputs, *_read_list(from_file), *_read_list(from_file0, nul=True)]
    if not named:
        raise UsageError("no inputs", hint="give files, folders or globs; see --help")
    found: list[Item] = []
    for position, operand in enumerate(named):
        if operand == "-" and position < len(inputs):
            found.append(Item("stdin", _stdin(), "stdin"))
        else:
            found.extend(_expand(operand, recursive, os.path.abspath(out) if out else None))
    pages = [paged for item in _unique(found) for paged in _pages(item)]
    listed = from_file is not None or from_file0 is not None
    many = len(pages) > 1 or listed or not all(map(_is_single_file, inputs))
    return Gathered(pages, many)


def find_inputs(inputs: list[str] | None, settings: RunSettings) -> Gathered:
    """The inputs of a run, expanded; see `gather`."""
    return gather(
        inputs or [],
        from_file=settings.from_file,
        from_file0=settings.from_file0,
        recursive=settings.recursive,
        out=settings.out,
    )


def parse_window(window: str) -> "Window":
    """--window in the form expected by `read.read_scan`; UsageError for an invalid value."""
    if window == "auto":
        return "auto"
    if window == "full":
        return "full"
    match = re.fullmatch(r"([^,]+),([^,]+)", window)
    try:
        low, high = map(float, match.groups() if match else ())
    except ValueError:
        low, high = 0.0, 0.0
    if not (low < high and high - low < math.inf):
        hint = "for example --window 0,4095 shows 0 as black and 4095 as white"
        raise UsageError(f"--window {window}: not auto, full, or LO,HI with LO < HI", hint=hint)
    return low, high


def _read_list(path: str | None, *, nul: bool = False) -> list[str]:
    """The paths in a list, if any: one per line, which ends in LF or CRLF, or each followed by NUL.

    The list may be a FIFO, as in --from-file <(find scans).
    """
    if path is None:
        return []
    try:
        with nullcontext(sys.stdin.buffer) if path == "-" else open(path, "rb") as file:
            data = _read_up_to(LIST_BYTES, file, path)
    except OSError as error:
        raise InputError(f"{path}: {os_error_text(error)}", hint="--from-file needs a text file") from error
    if not nul and b"\0" in data:
        hint = "save the list as UTF-8, or use --from-file0 if NUL ends each path"
        raise InputError(f"{path}: contains NUL characters", hint=hint)
    lines = re.split(rb"\r?\n", data.removeprefix(codecs.BOM_UTF8))
    paths = list(filter(None, data.split(b"\0"))) if nul else [line for line in lines if line.strip()]
    if not paths:
        raise InputError(f"{path}: lists no inputs", hint="a list has one path per line")
    return list(map(os.fsdecode, paths))


def _stdin() -> bytes:
    if sys.stdin.isatty():
        raise UsageError(
            "- reads an image from stdin, but stdin is a terminal", hint="redirect it: - < scan.png"
        )
    return _read_up_to(STDIN_BYTES, sys.stdin.buffer, "stdin")


def _read_up_to(most: int, file: IO[bytes], name: str) -> bytes:
    """All of a file that may have no end; InputError if it has more than `most` bytes."""
    data = bytearray()
    while piece := file.read(2**20):
        data += piece
        if len(data) > most:
            raise InputError(f"{name}: larger than {most >> 20} MiB")
    return bytes(data)


def _is_single_file(operand: str) -> bool:
    """Whether an operand is a single file: not a folder and not a glob."""
    return operand == "-" or (
        not os.path.isdir(operand) and (os.path.lexists(operand) or not glob.has_magic(operand))
    )


def _expand(operand: str, recursive: bool, out: str | None) -> list[Item]:
    if os.path.isdir(operand):
        return _folder(operand, recursive, out)
    if os.path.lexists(operand) or not glob.has_magic(operand):
        return [_file(operand)]
    matches = sorted(glob.glob(operand, recursive=True), key=natural_key)
    if not matches:
        return [_unusable(operand, "no matching files")]
    return [item for match in matches for item in _expand(match, recursive, out)]


def _file(path: str) -> Item:
    if not os.path.exists(path):
        return _unusable(path, "broken link" if os.path.islink(path) else "no such file or folder")
    try:
        check_regular(path)
    except OSError as error:
        return _unusable(path, os_error_text(error), "pipe an image in, with - as the input")
    folder, mark, below = path.partition("/./")  # what follows is kept in the output, as by rsync --relative
    if mark and ".." not in PurePath(below).parts:
        name, above = os.path.join(folder or "/", below), os.path.dirname(below)
        return Item(name, name, os.path.join(above, _stem(os.path.basename(below))))
    return Item(path, path, _stem(os.path.basename(path)))


def _unusable(name: str, what: str, hint: str | None = None) -> Item:
    return Item(name, name, Path(name).stem, error=InputError(f"{name}: {what}", hint=hint))


def _stem(name: str) -> str:
    """A file name without its suffix; the last number of a DICOM UID, 1.2.840.5, is not a suffix."""
    stem, suffix = os.path.splitext(name)
    return name if suffix[1:].isdecimal() else stem


def _folder(folder: str, recursive: bool, out: str | None) -> list[Item]:
    """The images of a folder, by suffix, and DICOM files without one; hidden files are ignored.

    What cannot be read is listed as an input, so that it fails visibly: a folder without permission, a broken
    link, a subfolder named like an image, x.png.
    """
    items: list[Item] = []
    for root, entries in visit(folder, recursive, out):
        if isinstance(entries, OSError):
            items.append(_unusable(root, os_error_text(entries)))
            continue
        above, below = str(Path(root)), os.path.relpath(root, folder)
        for name, is_folder, is_link in entries:
            path = _path_in(above, name)
            broken = is_link and not os.path.exists(path)
            if is_folder:
                listed = _has_image_suffix(name) and not recursive
            else:
                listed = _is_image(root, name) or (broken and recursive)
            if listed:
                error = InputError(f"{path}: broken link") if broken else None
                items.append(Item(path, path, _path_in(below, _stem(name)), error=error))
    hint = None if recursive else "use --recursive to include subfolders"
    return items or [_unusable(folder, "no images in this folder", hint)]


def _path_in(folder: str, name: str) -> str:
    return name if folder == "." else os.path.join(folder, name)


def _has_image_suffix(name: str) -> bool:
    from ..images.read import SUFFIXES

    return os.path.splitext(name)[1].lower() in SUFFIXES


def _is_image(folder: str, name: str) -> bool:
    """By suffix; a file without one, or with a numeric one, is opened, as it can only be DICOM."""
    suffix = os.path.splitext(name)[1]
    if suffix[1:].isdecimal() or (not suffix and name != "DICOMDIR"):
        return _may_be_dicom(os.path.join(folder, name))
    return _has_image_suffix(name)


def _may_be_dicom(path: str) -> bool:
    """Whether a file is DICOM, or cannot be opened to find out."""
    from ..images.dicom import has_preamble

    try:
        with open_regular(path) as file:
            return has_preamble(file)
    except OSError:
        return True


def _unique(items: Iterable[Item]) -> list[Item]:
    """Each file once, at its first position."""
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault(
            "" if isinstance(item.path_or_bytes, bytes) else os.path.abspath(item.path_or_bytes), item
        )
    return list(first.values())


def _pages(item: Item) -> Iterator[Item]:
    """One item per page, with `_p0` and so on (zero-padded) after the stem if there are several."""
    pages = 1
    if item.error is None and _may_have_pages(item.path_or_bytes):
        from ..images.read import count_pages

        try:
            pages = count_pages(item.source, name=item.name)
        except InputError as error:
            item = replace(item, error=error)
    if pages == 1:
        yield item
        return
    for page in range(pages):
        number = str(page).zfill(len(str(pages - 1)))
        yield replace(item, page=page, base=f"{item.base}_p{number}")


def _may_have_pages(path_or_bytes: str | os.PathLike[str] | bytes) -> bool:
    """Whether a file may have several pages, by its suffix, or as a DICOM file with another name."""
    if isinstance(path_or_bytes, bytes):
        return True
    from ..images.dicom import SUFFIXES

    path = os.fspath(path_or_bytes)
    paged = {".tif", ".tiff", *SUFFIXES}
    return os.path.splitext(path)[1].lower() in paged or (not _has_image_suffix(path) and _may_be_dicom(path))
