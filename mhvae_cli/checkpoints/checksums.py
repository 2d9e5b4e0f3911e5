"""What a model's files should be: their SHA-256 in a text that `sha256sum -c` reads too.

A model folder holds its own, SHA256SUMS that `checkpoint.save_model` writes. For a snapshot of the Hub there
is one beside the snapshots in its cache, made when every file agreed with the Hub's hash of that commit.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import ModelError, os_error_text
from ..hashing import sha256_of

SUMS = "SHA256SUMS"
SUMS_CAP = 2**16
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][\w.-]{0,99})", re.ASCII)


def record_of(folder: Path) -> Path:
    """Where the sums of a model folder, or of a snapshot in the Hub's cache, are kept."""
    if folder.parent.name == "snapshots":
        return folder.parents[1] / "mhvae" / f"{folder.name}.sha256"
    return folder / SUMS


def format_sums(sums: Mapping[str, str]) -> str:
    """A line a file, by name: its SHA-256, two spaces, its name."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def parse_sums(data: bytes, where: str) -> dict[str, str]:
    """SHA-256 by file name. ModelError for anything but plain lines of plain names, each once."""
    lines = [_LINE.fullmatch(line) for line in data.decode("ascii", "replace").splitlines()]
    sums = {line[2]: line[1] for line in lines if line}
    if len(data) > SUMS_CAP or len(sums) < len(lines) or not sums:
        raise ModelError(f"{where}: not a list of SHA-256 sums")
    return sums


def read_sums(path: Path) -> dict[str, str]:
    """The sums in a file, as `parse_sums`; ModelError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return parse_sums(file.read(SUMS_CAP + 1), str(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def pinned(folder: Path) -> dict[str, str]:
    """What the files of a model folder should be; empty if nothing tells."""
    for path in (record_of(folder), folder / SUMS):
        if path.is_file() and path.stat().st_size:
            return read_sums(path)
    return {}


def check(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The SHA-256 of each file of a model folder: of `names` that are there, and all that it should have.

    ModelError if nothing tells what they should be, or if one is missing, added or another.
    """
    wanted = pinned(folder)
    present = [name for name in names if (folder / name).is_file()]
    if not wanted and folder.parent.name == "snapshots":
        raise ModelError(f"{folder}: was not checked against the Hub yet", hint="mhvae models pull does it")
    if not wanted:
        hint = f"to vouch for it as it is: cd {folder} && sha256sum {' '.join(present)} > {SUMS}"
        raise ModelError(f"{folder}: no {SUMS} in it, so nothing tells what its files should be", hint=hint)
    for name in present:
        if name not in wanted and name != SUMS:
            raise ModelError(f"{folder / name}: is not in {record_of(folder).name}, so not of this model")
    for name, sha256 in wanted.items():
        if sha256_of(folder / name, error=ModelError) != sha256:
            raise altered(folder / name)
    return wanted


def altered(path: Path) -> ModelError:
    """The fault of a file that is not what its sum says."""
    hint = "fetch or copy the model again: mhvae models pull, or import"
    return ModelError(f"{path}: is not the file it was: its SHA-256 is another", hint=hint)


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"{path}: {os_error_text(error)}")
