"""From what the user named to a list of inputs: files, folders, globs, lists, stdin, pages and shards."""

import glob
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from ..errors import InputError, UsageError


@dataclass(frozen=True)
class Item:
    """One picture to work on, or one thing that was named and is none.

    `name` is what messages and tables call it; `source` a path or stdin's bytes; `stem` the output's path
    without its suffix, sub-folders kept; `page` counts from 0. An item with a `fault` fails without being
    opened.
    """

    name: str
    source: Path | bytes
    stem: PurePath
    page: int = 0
    fault: InputError | None = None


@dataclass(frozen=True)
class Gathered:
    """`items` in the order of the work. `many`: what was named may hold more than one picture."""

    items: list[Item]
    many: bool


def gather(
    inputs: list[str], *, from_file: str | None = None, recursive: bool = False, out: str | None = None
) -> Gathered:
    """Expand operands and the lines of a list; pages of a TIFF become items.

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
            found.append(Item("stdin", _stdin(), PurePath("stdin")))
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
        raise InputError(
            f"{path}: {(error.strerror or str(error)).lower()}", hint="--from-file takes a text file"
        ) from error
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
    return Item(path, Path(path), PurePath(Path(path).stem))


def _fault(name: str, what: str, hint: str | None = None) -> Item:
    return Item(name, Path(name), PurePath(Path(name).stem), fault=InputError(f"{name}: {what}", hint=hint))


def _folder(folder: str, recursive: bool, out: str | None) -> list[Item]:
    """The images of a folder, by their suffixes; hidden ones are left alone.

    A folder that calls itself x.png is listed as an input, so that it fails in sight.
    """
    from ..imaging import SUFFIXES

    items: list[Item] = []
    for root, folders, files in os.walk(folder):
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural)
        posing = [name for name in folders if Path(name).suffix.lower() in SUFFIXES and not recursive]
        images = [
            name for name in files if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
        for name in sorted([*images, *posing], key=natural):
            path = Path(root, name)
            items.append(Item(str(path), path, path.relative_to(folder).with_suffix("")))
        folders[:] = [
            name for name in folders if recursive and os.path.abspath(os.path.join(root, name)) != out
        ]
    hint = None if recursive else "sub-folders are entered with --recursive"
    return items or [_fault(folder, "no images in this folder", hint)]


def _once(items: Iterable[Item]) -> list[Item]:
    """Each file once, where it was named first."""
    first: dict[str, Item] = {}
    for item in items:
        first.setdefault("" if isinstance(item.source, bytes) else os.path.abspath(item.source), item)
    return list(first.values())


def _pages(item: Item) -> Iterator[Item]:
    """An item a page, `_p0` and so on behind the stem (zero-padded), if it has several."""
    from ..imaging import count_pages

    pages = 1
    tiff = isinstance(item.source, bytes) or item.source.suffix.lower() in (".tif", ".tiff")
    if tiff and item.fault is None:
        try:
            pages = count_pages(item.source, name=item.name)
        except InputError as error:
            item = replace(item, fault=error)
    if pages == 1:
        yield item
        return
    for page in range(pages):
        number = str(page).zfill(len(str(pages - 1)))
        yield replace(item, page=page, stem=item.stem.with_name(f"{item.stem.name}_p{number}"))
