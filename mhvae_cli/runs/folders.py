"""Folders and what is in them: in natural order, each folder once, links followed."""

import os
import re
from collections import deque
from collections.abc import Iterator


def visit(
    folder: str, recursive: bool, out: str | None
) -> Iterator[tuple[str, list[tuple[str, bool, bool]] | OSError]]:
    """A folder and, if `recursive`, those below it except `out`, each once, with its entries or the error.

    An entry is its name, whether it is a folder and whether it is a link. Folders behind links come last, so
    that an image is named without a link where it can be, and a link to a folder above makes no loop.
    """
    visited = set() if out is None else {_identity(out)} - {_identity(folder), None}
    waiting, linked = [folder], deque[str]()
    while waiting or linked:
        root = waiting.pop() if waiting else linked.popleft()
        if (identity := _identity(root)) in visited:
            continue
        try:
            with os.scandir(root) as found:
                seen = [(each.name, _is_folder(each), each.is_symlink()) for each in found]
        except OSError as error:
            yield root, error
            continue
        visited.add(identity)
        entries = [entry for entry in seen if not entry[0].startswith(".")]
        entries.sort(key=lambda entry: natural_key(entry[0]))
        yield root, entries
        if recursive:
            folders = [(os.path.join(root, name), link) for name, is_folder, link in entries if is_folder]
            waiting += [path for path, link in reversed(folders) if not link]
            linked += [path for path, link in folders if link]


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key for natural order: scan2 before scan10, ignoring case."""
    parts = re.findall(r"([0-9]+)|([^0-9]+)", name.casefold())
    return [(0, int(digits), "") if digits else (1, 0, text) for digits, text in parts]


def _identity(folder: str) -> tuple[int, int] | None:
    """What two paths of one folder have in common; None if there is no such folder."""
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
