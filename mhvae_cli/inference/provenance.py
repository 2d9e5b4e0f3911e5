"""Section 5.2's made pictures say so themselves: synthetic, by which model, from what, by which command.

No text, EXIF or name of a source goes into a generated file: a source is told by the SHA-256 of its bytes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.tensors import read_metadata
from ..errors import InputError, ModelError, os_error_text
from ..images.encode import RECORD
from ..images.read import MAX_TEXT, read_text

LATENTS = (".safetensors", ".json")
NOTICE = "Synthetic image made by a model; not for diagnosis."


@dataclass(frozen=True)
class Origin:
    """What the files of one run share: the model's name and SHA-256, the seed, and the command.

    The command is the verb and what changes the picture, no file names: those may tell of a patient.
    """

    model: str
    model_sha256: str
    seed: int
    command: str


def make_record(origin: Origin, sources: Sequence[str] = (), **extra: object) -> dict[str, Any]:
    """The record of one generated file, as plain JSON values.

    `sources` are the SHA-256 of the files it was made from (`sha256_of`); `extra` is the verb's own, such
    as edit={...}.
    """
    from ..version import version

    return {
        "mhvae": version(),
        "synthetic": True,
        "notice": NOTICE,
        "model": origin.model,
        "model_sha256": origin.model_sha256,
        "seed": origin.seed,
        "sources": [{"sha256": digest} for digest in sources],
        "command": origin.command,
        **extra,
    }


def embed(record: Mapping[str, Any]) -> dict[str, str]:
    """The texts that carry a record, all ASCII: for the encoders' `text`, and for a safetensors' metadata."""
    return {
        RECORD: json.dumps(record, allow_nan=False),
        "Description": record["notice"],
        "Software": f"mhvae {record['mhvae']}",
    }


def noise_key(sha256: str, page: int = 0) -> str:
    """The `Source.key` of one page, counted from 0, of a file."""
    return sha256 + (f"/page{page}" if page else "")


def read(source: Path | bytes, *, name: str | None = None) -> dict[str, Any] | None:
    """The record in a PNG, TIFF or GIF, or in a .safetensors or .json file of latents; None without one.

    Raises InputError for a file that cannot be read, and for a record that is damaged.
    """
    called = name or ("stdin" if isinstance(source, bytes) else str(source))
    texts = _texts(source, called)
    if RECORD in texts:
        record = _parsed(texts[RECORD])
        if record is None:
            raise InputError(f"{called}: its mhvae record is damaged")
        return record
    found = (_parsed(texts[key]) for key in ("ImageDescription", "Comment") if key in texts)
    return next((record for record in found if record is not None), None)


def _texts(source: Path | bytes, name: str) -> dict[str, str]:
    if isinstance(source, bytes) or source.suffix.lower() not in LATENTS:
        return read_text(source, name=name)
    if source.suffix.lower() == ".json":
        return _sidecar(source, name)
    try:
        return read_metadata(source)
    except ModelError as error:
        raise InputError(str(error), hint=error.hint) from error


def _sidecar(path: Path, name: str) -> dict[str, str]:
    """The "mhvae" of a JSON object, as text."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise InputError(f"{name}: larger than a file of latents can be")
        values = json.loads(data)
        record = values.get(RECORD) if isinstance(values, dict) else None
        if record is None:
            return {}
        return {RECORD: record if isinstance(record, str) else json.dumps(record)}
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not JSON") from error


def _parsed(text: str) -> dict[str, Any] | None:
    """The record that a text is, or None. It is JSON that can be written again: no NaN, no infinity."""
    try:
        record = json.loads(text)
        json.dumps(record, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("mhvae"), str) and "synthetic" in record
    return record if whole else None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: {os_error_text(error)}")
