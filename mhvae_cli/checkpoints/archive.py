"""A model as one file, NAME.mhvae: an uncompressed tar archive of NAME/SHA256SUMS and the files it lists.

Equal models give equal bytes, and no other bytes are accepted: an entry is read only if its header is exactly
the one that `pack` writes for its name and size, so an archive cannot hold links, paths or compressed data.
"""

import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from ..errors import ModelError, os_error_text
from ..filesystem import open_regular, write_atomic
from ..hashing import sha256_of
from .checksums import SUMS, SUMS_CAP, format_sums, parse_sums

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,31}", re.ASCII)
"""The names that an imported model, and a file in an archive, may have."""
_BLOCK = 512
_PIECE = 2**20
_END = bytes(2 * _BLOCK)


def pack(folder: Path, name: str, sums: Mapping[str, str]) -> Iterator[bytes]:
    """The archive, in pieces, of the folder's files listed in `sums`. ModelError if one has changed."""
    text = format_sums(sums).encode()
    yield from (_header(f"{name}/{SUMS}", len(text)), text, _padding(len(text)))
    for entry in sorted(sums):
        try:
            data = (folder / entry).read_bytes()
        except OSError as error:
            raise ModelError(f"{folder / entry}: {os_error_text(error)}") from error
        if sha256_of(data) != sums[entry]:
            raise ModelError(f"{folder / entry}: changed while it was being read")
        yield from (_header(f"{name}/{entry}", len(data)), data, _padding(len(data)))
    yield _END


def name_in(path: Path) -> str:
    """The name of the model in an archive. ModelError if the file is not an archive."""
    try:
        with open_regular(path) as file:
            return _next(file)[0]
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error


def unpack(path: Path, folder: Path, names: Sequence[str]) -> None:
    """Extract an archive into `folder`: only files in `names`, each with the SHA-256 that the archive lists.

    ModelError for any other archive, OutputError if the folder cannot be written; what was extracted by then
    stays.
    """
    try:
        with open_regular(path) as file:
            _unpack(file, folder, names, str(path))
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error


def _unpack(file: BinaryIO, folder: Path, names: Sequence[str], where: str) -> None:
    room = os.fstat(file.fileno()).st_size
    name, first, size = _next(file)
    if first != SUMS or size > SUMS_CAP:
        raise ValueError(f"it does not begin with {SUMS}")
    text = _read(file, size)
    sums = parse_sums(text, where)
    if text != format_sums(sums).encode() or not set(sums) <= set(names) - {SUMS}:
        raise ValueError("it lists files that do not belong to a model")
    _read_padding(file, size)
    write_atomic(folder / SUMS, text)
    for expected in sorted(sums):
        model, entry, size = _next(file)
        if (model, entry) != (name, expected):
            raise ValueError(f"{expected} is missing or out of order")
        if size > room:
            raise ValueError(f"it is truncated in {entry}")
        write_atomic(folder / entry, _pieces(file, size))
        if sha256_of(folder / entry, error=ModelError) != sums[entry]:
            raise ValueError(f"{entry}: checksum mismatch")
        _read_padding(file, size)
    if file.read(len(_END) + 1) != _END:
        raise ValueError("it has data after its end, or no end")


def _header(path: str, size: int) -> bytes:
    info = tarfile.TarInfo(path)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _next(file: BinaryIO) -> tuple[str, str, int]:
    """Model, file name and size of the entry that begins here; ValueError unless `pack` would write it so."""
    block = _read(file, _BLOCK)
    model, _, name = block[:100].rstrip(b"\0").decode("ascii", "replace").partition("/")
    octal = block[124:135]
    if not NAME.fullmatch(model) or not NAME.fullmatch(name) or not re.fullmatch(rb"[0-7]{11}", octal):
        raise ValueError("not an archive made by mhvae models export")
    size = int(octal, 8)
    if block != _header(f"{model}/{name}", size):
        raise ValueError(f"{name} is a link, or has attributes that export does not write")
    return model, name, size


def _read(file: BinaryIO, size: int) -> bytes:
    try:
        data = file.read(size)
    except OSError as error:
        raise ValueError(os_error_text(error)) from error
    if len(data) < size:
        raise ValueError("it is truncated")
    return data


def _read_padding(file: BinaryIO, size: int) -> None:
    if any(_read(file, len(_padding(size)))):
        raise ValueError("it has data between its files")


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = _read(file, min(size, _PIECE))
        size -= len(piece)
        yield piece


def _unusable(path: Path, error: Exception) -> ModelError:
    if isinstance(error, OSError):
        return ModelError(f"{path}: {os_error_text(error)}")
    return ModelError(f"{path}: cannot be imported: {error}", hint="copy the file or export it again")
