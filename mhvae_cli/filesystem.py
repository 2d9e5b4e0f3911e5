"""Files written whole or not at all, and file locks between processes that write one folder at once."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError, os_error_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold a file, made if it is absent, against other processes; its descriptor, for reading and appending.

    It is let go of when the process ends, however that comes about. The file that is held is the one in that
    place, also where another process moves a new one there meanwhile. Where the system or the file system has
    no locks, none is held. OSError if the file cannot be opened for writing.
    """
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            _hold(file)
            if _lies_at(file, path):
                yield file
                return
        finally:
            os.close(file)


def _hold(file: int) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # some network file systems have none; a row is still appended by one write
        return


def _lies_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def write_atomic(path: Path, data: bytes | Iterable[bytes], *, beside: Path | None = None) -> None:
    """Write a file whole or not at all: beside its place, then moved there; parents are made.

    `data` may come in pieces, which are written as they come; by default `beside` has a name of chance.

    Raises OutputError if that fails, or if something other than a file lies there.
    """
    beside = beside or staging(path)
    try:
        stage(beside, path, data)
        place(beside, path)
    finally:
        with suppress(OSError):  # where a file lies in the folder's place, it is no folder to look in
            beside.unlink(missing_ok=True)


def staging(path: Path, mark: str = "") -> Path:
    """A name beside `path`, which begins with a dot and `mark`, for what is to be moved there."""
    return path.parent / f".{mark}{os.urandom(8).hex()}.part"


def stage(beside: Path, path: Path, data: bytes | Iterable[bytes]) -> None:
    """The first half of `write_atomic`: all that can fill a disk. The caller removes `beside`."""
    try:
        if path.exists() and not path.is_file():  # os.replace would put a file in the place of /dev/null
            raise OutputError(f"{path}: is there already and is no file", hint="name another output")
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
    except OSError as error:
        raise _unwritten(path, error) from error


def place(beside: Path, path: Path) -> None:
    """The second half of `write_atomic`: `beside` becomes `path`."""
    try:
        os.replace(beside, path)
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> OutputError:
    fault = os_error_text(error)
    return OutputError(f"{path}: {fault}", hint="is there room, and may you write there?")
