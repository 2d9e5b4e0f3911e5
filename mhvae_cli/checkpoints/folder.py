"""A model folder, which is also the model's repository on the Hub: config.json, *.safetensors, README.md.

Names, folders and configurations need neither torch nor a network connection. Weights that do not match the
folder's SHA256SUMS are not loaded.
"""

import json
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..config import ModelConfig, from_dict
from ..errors import ModelError, UsageError, os_error_text
from ..filesystem import open_regular, write_atomic
from ..hashing import sha256_of
from ..limits import check_model
from .checksums import SUMS, expected_sums, format_sums, mismatch
from .tensors import PICKLED, encode_state, is_finite, load_tensors, pickled, unique

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KIND = "mhvae"
FIELDS = {"format": int, "kind": str, "name": str} | dict.fromkeys(
    ("model", "training", "card", "figures"), dict
)
NUMBERS = re.compile(r"\[\n[\s\d.,eE+-]*\]")
"""A list of numbers alone, as JSON: it is written on one line."""
OPTIONAL = {"cddpm": dict, "trust": dict}
PARTS = ("vae", "cddpm", "frames", "audit")
"""The components of a model: its .safetensors files."""
FILES = ("config.json", *(f"{part}.safetensors" for part in PARTS), "README.md", SUMS)
"""All files of a model folder; the first two are required."""
CONFIG_CAP = 2**20


def read_config(folder: Path) -> dict[str, Any]:
    """A model's config.json: strict JSON with the keys of FIELDS, perhaps OPTIONAL; else ModelError."""
    path = Path(folder) / "config.json"
    try:
        with open_regular(path) as file:
            data = file.read(CONFIG_CAP + 1)
        if len(data) > CONFIG_CAP:
            raise ValueError("too large")
        config: dict[str, Any] = json.loads(
            data.decode("utf-8"), object_pairs_hook=unique, parse_constant=_no_constant
        )
    except FileNotFoundError:
        raise ModelError(f"{folder}: not a model folder (no config.json)") from None
    except OSError as error:
        raise ModelError(f"{path}: {os_error_text(error)}") from error
    except RecursionError as error:
        raise ModelError(f"{path}: cannot be read: nested too deeply") from error
    except ValueError as error:
        raise ModelError(f"{path}: cannot be read: {error}") from error
    _check_config(config, str(path))
    return config


def model_config(content: Mapping[str, Any], folder: Path) -> ModelConfig:
    """The model configuration in a folder's config.json. ModelError if it is invalid."""
    try:
        config = from_dict(ModelConfig, content["model"], where="model.")
        check_model(config)
    except UsageError as error:
        raise ModelError(f"{folder}: {error}") from error
    return config


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _check_config(config: object, where: str) -> None:
    if not isinstance(config, dict) or config.get("kind") != KIND:
        raise ModelError(f"{where}: not an mhvae model's configuration")
    if config.get("format") != FORMAT:
        upgrade = "it was written by another version: pip install --upgrade mhvae"
        found = f"format {reprlib.repr(config.get('format'))} is not supported"
        found += f", this version reads format {FORMAT}"
        raise ModelError(f"{where}: {found}", hint=upgrade)
    for key in {**FIELDS, **config}:
        kind = {**FIELDS, **OPTIONAL}.get(key)
        if kind is None:
            raise ModelError(f"{where}: unknown key {reprlib.repr(key)}")
        if type(config.get(key)) is not kind:
            raise ModelError(f"{where}: {key!r} is missing or has the wrong type")


def digest(folder: Path, components: Sequence[str] | None = None) -> str:
    """A model's SHA-256 in hexadecimal: what `sha256sum FILES | sha256sum` prints in its folder.

    FILES, sorted by name: config.json and what images are made with (all but the audit); or only those of
    `components`, whose digest a new name, card or cDDPM does not change. ModelError if one is missing.
    """
    names = [f"{name}.safetensors" for name in components or ()]
    if components is None:
        more = [f"{part}.safetensors" for part in ("cddpm", "frames")]
        names = ["config.json", "vae.safetensors", *(name for name in more if (folder / name).exists())]
    lines = format_sums({name: sha256_of(folder / name, error=ModelError) for name in names})
    return sha256_of(lines.encode())


def load_state(
    folder: Path,
    component: str = "vae",
    *,
    device: str = "cpu",
    expected: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, "Tensor"]:
    """The tensors of `folder`/`component`.safetensors, all finite, in their stored dtypes.

    On the CPU they are a private mapping of the file, not a copy. `expected`: exactly the names and shapes
    that it must contain. ModelError otherwise, or if the file is missing, damaged, pickled or does not match
    the folder's checksums.
    """
    path = Path(folder) / f"{component}.safetensors"
    if not path.is_file():
        others = sorted(other for other in Path(folder).glob("*") if other.suffix in PICKLED)
        raise pickled(others[0]) if others else ModelError(f"{folder}: no {path.name}")
    wanted = expected_sums(Path(folder)).get(path.name)  # 7 ms for 10 MB: about 1 % of the start-up time
    if wanted is not None and sha256_of(path, error=ModelError) != wanted:
        raise mismatch(path)
    return load_tensors(path, device=device, expected=expected)


def save_model(
    folder: Path,
    *,
    config: Mapping[str, Any],
    states: Mapping[str, Mapping[str, "Tensor"]],
    card: str,
    dtype: Literal["float16"] | None = None,
) -> None:
    """Write a model folder: `states` by component ("vae"), `card` as README.md, SHA256SUMS; config.json last.

    With `dtype`, floating-point tensors of two or more dimensions are stored in it; vectors are small and
    keep theirs. Numbers in `config` that are not finite become null. ModelError if a tensor is not finite (in
    `dtype`), or for a config that `read_config` would reject; OutputError if a file cannot be written.
    """
    config = _plain(config)
    _check_config(config, "config.json")
    parts: dict[str, bytes] = {}
    for component, state in states.items():
        ready = {name: _halved(tensor) if dtype else tensor for name, tensor in state.items()}
        for name, tensor in ready.items():
            if not is_finite(tensor):
                raise ModelError(f"{component}: {name} is not finite" + (f" as {dtype}" if dtype else ""))
        parts[f"{component}.safetensors"] = encode_state(ready, {"kind": KIND, "component": component})
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    text = NUMBERS.sub(lambda found: " ".join(found[0].split()), text)
    parts |= {"README.md": card.encode(), "config.json": text.encode()}
    listed = {name: sha256_of(data) for name, data in parts.items()}
    folder = Path(folder)
    # Emptied first and written again once the files are: a run that is killed between two files must not
    # leave checksums that they do not match. config.json comes last, since it makes the folder a model.
    write_atomic(folder / SUMS, b"")
    config_json = parts.pop("config.json")
    for name, data in parts.items():
        write_atomic(folder / name, data)
    write_atomic(folder / SUMS, format_sums(listed).encode())
    write_atomic(folder / "config.json", config_json)


def rewrite_model(
    folder: Path,
    *,
    config: Mapping[str, Any] | None = None,
    states: Mapping[str, Mapping[str, "Tensor"]] | None = None,
    card: str | None = None,
) -> None:
    """Write a model folder again with another configuration or card, or other or further components."""
    kept = {part: load_state(folder, part) for part in PARTS if (folder / f"{part}.safetensors").exists()}
    card = (folder / "README.md").read_text() if card is None else card
    save_model(folder, config=config or read_config(folder), states={**kept, **(states or {})}, card=card)


def _halved(tensor: "Tensor") -> "Tensor":
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
