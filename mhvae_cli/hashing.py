"""SHA-256 of files and bytes, and git's blob id of a file, in hexadecimal."""

import hashlib
from pathlib import Path

from .errors import InputError, MhvaeError, os_error_text
from .filesystem import open_regular


def sha256_of(source: Path | bytes, *, error: type[MhvaeError] = InputError) -> str:
    """SHA-256 of a file, read in pieces, or of bytes; raises `error` if the file cannot be read."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        with open_regular(source) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as cause:
        raise error(f"{source}: {os_error_text(cause)}") from cause


def git_blob_id(path: Path) -> str:
    """SHA-1 of git's blob header and a file's bytes: how git, and so the Hub, identifies a small file."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def seed_of(text: str, *, size: int = 8) -> int:
    """A random seed that depends only on `text`: the first `size` bytes of its SHA-256, big-endian."""
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogateescape")).digest()[:size], "big")
