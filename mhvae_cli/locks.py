"""Several processes that write one folder at once: a file is held while it is changed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
