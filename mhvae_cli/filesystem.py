"""Regular files, atomic file writes, and locks between processes that write to the same folder."""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from .errors import OutputError, os_error_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def check_regular(path: str | os.PathLike[str]) -> os.stat_result:
    """The status of a regular file; OSError, with a reason fit for a message, for anything else."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
    return status


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading; OSError as `check_regular`.

    A FIFO or a device is never opened, because that, or reading it, may block for ever.
    """
    check_regular(path)
    return open(path, "rb")


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Lock a file, created if absent, against other processes; yields its descriptor, to read and append.

    The lock is released when the process ends, however it ends. The locked file is the one now at `path`,
    even if another process replaced it meanwhile. Without support by the system or the file system there is
    no lock. OSError if the file cannot be opened for writing.
    """
    # A lock belongs to the open file, not to its path: if another process replaced the file while this one
    # waited, the lock obtained is that of the old file, which nobody else will ever contend for. Try again.
    while True:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            check_regular(path)
            _lock(file)
            if _is_at(file, path):
                yield file
                return
        finally:
            os.close(file)


def _lock(file: int) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:  # some network file systems have no locks; a row is still appended by a single write
        return


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def write_atomic(path: Path, data: bytes | Iterable[bytes], *, beside: Path | None = None) -> None:
    """Write a file completely or not at all: to `beside` first, then moved to `path`; parents are created.

    `data` may be an iterable of pieces, written as they arrive; `beside` has a random name by default.
    Raises OutputError if that fails, or if `path` exists and is not a regular file.
    """
    beside = beside or staging(path)
    try:
        stage(beside, path, data)
        place(beside, path)
    finally:
        with suppress(OSError):  # NotADirectoryError if the parent is a file
            beside.unlink(missing_ok=True)


def staging(path: Path, mark: str = "") -> Path:
    """A temporary name in the folder of `path`, which begins with a dot and `mark`."""
    # The same folder, hence the same file system, or os.replace would not be atomic. From os.urandom, so that
    # forked processes and seeded generators never pick the same name.
    return path.parent / f".{mark}{os.urandom(8).hex()}.part"


def stage(beside: Path, path: Path, data: bytes | Iterable[bytes]) -> None:
    """The first half of `write_atomic`: everything that can fill a disk. The caller removes `beside`."""
    try:
        if path.exists() and not path.is_file():  # os.replace would replace /dev/null by a file
            raise OutputError(f"{path}: already exists and is not a file", hint="name another output")
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
    hint = "check the free space and your write permission"
    return OutputError(f"{path}: {os_error_text(error)}", hint=hint)
