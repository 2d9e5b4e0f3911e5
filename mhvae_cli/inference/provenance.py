"""Provenance of section 5.2's generated images, stored in the files: model, sources, command.

No text, EXIF data or name of a source goes into a generated file: a source is identified by its SHA-256.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.tensors import read_metadata
from ..errors import InputError, ModelError, os_error_text
from ..filesystem import open_regular
from ..images.encode import RECORD
from ..images.read import MAX_TEXT, read_text

LATENTS = (".safetensors", ".json")
NOTICE = "Synthetic image made by a model; not for diagnosis."
DERIVED = "Derived from a scan: protect it as you protect the scan. It is edited and not for diagnosis."


@dataclass(frozen=True)
class Origin:
    """What all files of one run share: the model's name and SHA-256, the seed, and the command.

    The command is the verb and the options that affect the image, without file names, which may identify a
    patient.
    """

    model: str
    model_sha256: str
    seed: int
    command: str


def make_record(
    origin: Origin, sources: Sequence[str] = (), *, derived: bool = False, **extra: object
) -> dict[str, Any]:
    """The record of one generated file, as plain JSON values.

    `sources` are the SHA-256 of the files it was made from (`hashing.sha256_of`); `derived`: it contains
    pixels of theirs; `extra` are fields of the verb, such as edit={...}.
    """
    from ..version import version

    return {
        "mhvae": version(),
        "synthetic": True,
        "derived_from_scan": derived,
        "notice": DERIVED if derived else NOTICE,
        "model": origin.model,
        "model_sha256": origin.model_sha256,
        "seed": origin.seed,
        "sources": [{"sha256": digest} for digest in sources],
        "command": origin.command,
        **extra,
    }


def embed(record: Mapping[str, object]) -> dict[str, str]:
    """The texts that store a record, all ASCII: for the encoders' `text`, and for safetensors metadata."""
    return {
        RECORD: json.dumps(record, allow_nan=False),
        "Description": str(record["notice"]),
        "Software": f"mhvae {record['mhvae']}",
    }


def noise_key(sha256: str, page: int = 0) -> str:
    """The `Source.key` of one page, counted from 0, of a file."""
    return sha256 + (f"/page{page}" if page else "")


def read(source: Path | bytes, *, name: str | None = None) -> dict[str, Any] | None:
    """The record in a PNG, TIFF or GIF, or in a latent code's .safetensors or .json file; None without one.

    Raises InputError for a file that cannot be read, and for a damaged record.
    """
    display_name = name or ("stdin" if isinstance(source, bytes) else str(source))
    texts = _texts(source, display_name)
    if RECORD in texts:
        record = _parsed(texts[RECORD])
        if record is None:
            raise InputError(f"{display_name}: its mhvae record is damaged")
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
        with open_regular(path) as file:
            data = file.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise InputError(f"{name}: too large for a latent code")
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
    """The record in a text, or None unless it is a record in strict JSON, without NaN and infinity."""
    try:
        record = json.loads(text)
        json.dumps(record, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("mhvae"), str) and "synthetic" in record
    return record if whole else None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: {os_error_text(error)}")
