"""The expected SHA-256 of a model's files, in the format of `sha256sum -c`.

A model folder has its own SHA256SUMS, written by `folder.save_model`. For a snapshot of the Hub there is one
next to the snapshots in its cache, written once every file has matched the Hub's hash for that commit.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import ModelError, os_error_text
from ..filesystem import open_regular
from ..hashing import sha256_of

SUMS = "SHA256SUMS"
SUMS_CAP = 2**16
_LINE = re.compile(r"([0-9a-f]{64}) [ *]([A-Za-z0-9][\w.-]{0,99})", re.ASCII)


def sums_file(folder: Path) -> Path:
    """The file that holds the checksums of a model folder, or of a snapshot in the Hub's cache."""
    if folder.parent.name == "snapshots":
        return folder.parents[1] / "mhvae" / f"{folder.name}.sha256"
    return folder / SUMS


def format_sums(sums: Mapping[str, str]) -> str:
    """One line per file, sorted by name: its SHA-256, two spaces, its name."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))


def parse_sums(data: bytes, where: str) -> dict[str, str]:
    """SHA-256 by file name. ModelError unless every line is plain and every name plain and unique."""
    lines = [_LINE.fullmatch(line) for line in data.decode("ascii", "replace").splitlines()]
    sums = {line[2]: line[1] for line in lines if line}
    if len(data) > SUMS_CAP or len(sums) < len(lines) or not sums:
        raise ModelError(f"{where}: not a list of SHA-256 checksums")
    return sums


def read_sums(path: Path) -> dict[str, str]:
    """The checksums in a file, as `parse_sums`; ModelError if it cannot be read."""
    try:
        with open_regular(path) as file:
            return parse_sums(file.read(SUMS_CAP + 1), str(path))
    except OSError as error:
        raise _unreadable(path, error) from error


def expected_sums(folder: Path) -> dict[str, str]:
    """The expected SHA-256 of each file of a model folder; empty if none are recorded."""
    for path in (sums_file(folder), folder / SUMS):
        if path.is_file() and path.stat().st_size:
            return read_sums(path)
    return {}


def check(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Verify a model folder: all recorded files, and those of `names` that exist; returns their SHA-256.

    ModelError if no checksums are recorded, or if a file is missing, not recorded or different.
    """
    wanted = expected_sums(folder)
    present = [name for name in names if (folder / name).is_file()]
    if not wanted and folder.parent.name == "snapshots":
        raise ModelError(f"{folder}: not yet checked against the Hub", hint="run mhvae models pull")
    if not wanted:
        hint = f"to accept it as it is: cd {folder} && sha256sum {' '.join(present)} > {SUMS}"
        raise ModelError(f"{folder}: no {SUMS}, so its files cannot be verified", hint=hint)
    for name in present:
        if name not in wanted and name != SUMS:
            raise ModelError(f"{folder / name}: not listed in {sums_file(folder).name}")
    for name, sha256 in wanted.items():
        if sha256_of(folder / name, error=ModelError) != sha256:
            raise mismatch(folder / name)
    return wanted


def mismatch(path: Path) -> ModelError:
    """The error for a file whose SHA-256 is not the recorded one."""
    hint = "download or copy the model again: mhvae models pull, or import"
    return ModelError(f"{path}: checksum mismatch", hint=hint)


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"{path}: {os_error_text(error)}")
