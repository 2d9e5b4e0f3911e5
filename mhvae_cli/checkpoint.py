"""A model's folder, which is also its repository on the Hub: config.json, *.safetensors, README.md.

The only place that reads or writes safetensors. Names, folders, configurations and headers need neither torch
nor the network. Pickled weights are never opened, whatever their name: unpickling runs code.
"""

import difflib
import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mhvae_cli.errors import ModelError, UsageError
from mhvae_cli.imaging import write_atomic

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1
KIND = "mhvae"
MODELS = Path(__file__).parent / "models"
FIELDS = {"format": int, "kind": str, "name": str} | dict.fromkeys(
    ("model", "training", "card", "figures"), dict
)
CONFIG_CAP = 2**20
HEADER_CAP = 2**24
PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
HUB_LICENSES = {"apache-2.0", "mit", "bsd-3-clause", "gpl-3.0", "cc0-1.0"} | {
    f"cc-by{terms}-4.0" for terms in ("", "-sa", "-nd", "-nc", "-nc-sa", "-nc-nd")
}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
_LOGIN = "`hf auth login`, or set HF_TOKEN"


def bundled() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json"))


def resolve(ref: str | Path, *, offline: bool = False) -> Path:
    """The folder that `ref` means: a bundled name, a folder on disk, or ORG/NAME[@REVISION] on the Hub.

    A Hub model is downloaded into the Hub's usual cache (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT as
    its users know them) and served from there later; with `offline` no socket is opened. ModelError if none.
    """
    ref = os.fspath(ref)
    names = bundled()
    if ref in names:
        return MODELS / ref
    path = Path(os.path.expanduser(ref))
    if ref and os.path.isdir(path):
        return _with_config(path, ref)
    if ref and os.path.exists(path):
        raise ModelError(f"{ref}: a file, not a model", hint=f"a model is a folder: --model {path.parent}")
    if _HUB_ID.fullmatch(ref):
        return _with_config(_fetch(ref, ["config.json", "*.safetensors", "README.md"], offline=offline), ref)
    near = difflib.get_close_matches(ref, names, 1)
    known = f"bundled models: {', '.join(names) or 'none'}; or give a folder, or ORG/NAME on the Hub"
    raise ModelError(f"no model {ref!r}", hint=f"did you mean {near[0]!r}?" if near else known)


def _with_config(folder: Path, ref: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{ref}: no config.json in it, so not a model", hint="train-vae makes models")
    return folder


def _fetch(ref: str, patterns: list[str], *, offline: bool) -> Path:
    """The cached snapshot of ORG/NAME[@REVISION] on the Hub, with its files that match `patterns`."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read once, by the import that follows

    from huggingface_hub import errors, get_session, is_offline_mode, snapshot_download
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"disable": None, **options})  # None: shown on a terminal only

    repo, _, revision = ref.partition("@")
    offline = offline or is_offline_mode()
    hooks = get_session().event_hooks
    if _limit not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _limit]}
    files = {"revision": revision or None, "allow_patterns": patterns}
    try:
        return Path(snapshot_download(repo, **files, local_files_only=offline, tqdm_class=Bar))
    except (OSError, ValueError, errors.HTTPError) as error:
        raise _hub_fault(error, ref, offline=offline) from error


def _limit(request: Any) -> None:
    """Request hook: the client's calls to the Hub's API carry no time limit, and would wait for ever."""
    from huggingface_hub import constants

    if (request.extensions.get("timeout") or {}).get("read") is None:
        limit = constants.HF_HUB_ETAG_TIMEOUT
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), limit)


def _hub_fault(error: BaseException, ref: str, *, offline: bool) -> ModelError:
    """What went wrong on the Hub, in the user's words."""
    from huggingface_hub import errors

    repo, _, revision = ref.partition("@")
    if isinstance(error, errors.LocalEntryNotFoundError):
        if offline:
            command = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
            what = f"{ref}: no such folder, not in the Hub's cache, and offline"
            return ModelError(what, hint=f"fetch it while online: {command}")
        error = error.__cause__ or error
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    number = getattr(error, "errno", None)
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, errors.GatedRepoError):
        what, hint = "gated, and you have no access yet", f"ask for access on its page, then {_LOGIN}"
    elif isinstance(error, errors.RevisionNotFoundError):
        what, hint = "the Hub has no such revision", "leave out @REVISION for the main branch"
    elif isinstance(error, errors.RepositoryNotFoundError):
        what = "no such folder, and no such model on the Hub, or it is private"
        hint = f"check the name; for a private model, {_LOGIN}"
    elif status in (401, 403):
        what, hint = f"the Hub refuses your access token ({status})", f"use one that may read it: {_LOGIN}"
    elif status is not None:
        what, hint = f"the Hub answers with error {status}", "try again later"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        what, hint = "the disk is full", "free some space, or set HF_HOME to a folder on another disk"
    elif number is not None:
        what, hint = f"cannot write the Hub's cache: {cause}", "set HF_HOME to a folder you may write to"
    elif isinstance(error, errors.HTTPError):
        what = f"no such folder, and fetching it from the Hub failed: {cause}"
        hint = "check the network, the proxy and HF_ENDPOINT"
    elif isinstance(error, errors.HFValidationError):
        what, hint = "no such folder, and not a name the Hub allows", "write ORG/NAME[@REVISION]"
    else:
        what, hint = f"the download failed: {cause}", "run the same command again"
    return ModelError(f"{ref}: {what}", hint=hint)


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json: strict JSON with exactly the keys of FIELDS. ModelError says what is wrong."""
    path = Path(folder) / "config.json"
    try:
        with path.open("rb") as file:
            data = file.read(CONFIG_CAP + 1)
        if len(data) > CONFIG_CAP:
            raise ValueError("too large")
        config = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except FileNotFoundError:
        raise ModelError(f"{folder}: no config.json in it, so not a model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: not a readable configuration: {error}") from error
    _check_config(config, str(path))
    return config


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice")
    return values


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _check_config(config: Any, where: str) -> None:
    if not isinstance(config, dict) or config.get("kind") != KIND:
        raise ModelError(f"{where}: not the configuration of an mhvae model")
    if config.get("format") != FORMAT:
        newer = "it was written by another version: pip install --upgrade mhvae"
        raise ModelError(f"{where}: format {config.get('format')!r}, this version reads {FORMAT}", hint=newer)
    for key in {**FIELDS, **config}:
        if key not in FIELDS:
            raise ModelError(f"{where}: unknown key {key!r}")
        if type(config.get(key)) is not FIELDS[key]:
            raise ModelError(f"{where}: {key!r} is missing or of the wrong type")


def _read_header(path: Path) -> dict[str, Any]:
    """A safetensors file's header; the file is as long as it says. ModelError otherwise."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(8)
            length = int.from_bytes(first, "little")
            if length > HEADER_CAP and (first[:4] == b"PK\x03\x04" or first[:1] == b"\x80"):
                raise _pickled(path)
            if length > HEADER_CAP:
                raise ValueError(f"its header claims {length} bytes, at most {HEADER_CAP} are read")
            if size < 8 or 8 + length > size:
                raise ValueError("it is cut short in its header")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique)
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
        if any(type(side) is not int or side < 0 for entry in tensors for side in entry["shape"]):
            raise ValueError("a tensor has an impossible shape")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        cause = error if type(error) is ValueError else "its header is damaged"
        raise ModelError(f"{path}: not a usable safetensors file: {cause}") from error
    if size < end:
        raise ModelError(f"{path}: cut short, {size} of {end} bytes", hint="copy or download it again")
    return header


def _pickled(path: Path) -> ModelError:
    return ModelError(f"{path}: pickled weights are never loaded: they can run code", hint="use safetensors")


def read_metadata(path: Path) -> dict[str, str]:
    """The text that `save_state` put beside the tensors; reads the header alone, without torch."""
    metadata = _read_header(Path(path)).get("__metadata__", {})
    if not isinstance(metadata, dict) or any(type(text) is not str for text in metadata.values()):
        raise ModelError(f"{path}: not a usable safetensors file: its metadata is damaged")
    return metadata


def load_state(
    folder: Path,
    component: str = "vae",
    *,
    device: str = "cpu",
    expected: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, "Tensor"]:
    """The tensors of `folder`/`component`.safetensors, all finite, in their stored dtypes.

    On the CPU they are a private mapping of the file, not a copy. `expected`: the names and shapes that it
    must hold, no more and no fewer. ModelError otherwise, or if the file is missing, damaged or pickled.
    """
    path = Path(folder) / f"{component}.safetensors"
    if not path.is_file():
        pickled = sorted(other for other in Path(folder).glob("*") if other.suffix in PICKLED)
        raise _pickled(pickled[0]) if pickled else ModelError(f"{folder}: no {path.name} in it")
    return load_tensors(path, device=device, expected=expected)


def load_pretrained(ref: str | Path, *, offline: bool = False) -> dict[str, "Tensor"]:
    """The tensors, as stored, of a .safetensors file, or of model.safetensors of ORG/NAME[@REVISION].

    ModelError if there is none.
    """
    ref = os.fspath(ref)
    path = Path(os.path.expanduser(ref))
    if path.suffix in PICKLED:
        raise _pickled(path)
    if not os.path.isfile(path):
        if path.suffix == ".safetensors" or not _HUB_ID.fullmatch(ref):
            raise ModelError(f"no weights {ref!r}", hint="give a .safetensors file, or ORG/NAME on the Hub")
        path = _fetch(ref, ["model.safetensors"], offline=offline) / "model.safetensors"
        if not path.is_file():
            raise ModelError(f"{ref}: no model.safetensors in it", hint="pickled weights are never loaded")
    return load_tensors(path)


def load_tensors(
    path: Path, *, device: str = "cpu", expected: Mapping[str, Sequence[int]] | None = None
) -> dict[str, "Tensor"]:
    header = _read_header(path)
    found = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
    wanted = found if expected is None else {name: tuple(shape) for name, shape in expected.items()}
    for name in {**wanted, **found}:
        if found.get(name) != wanted.get(name):
            shapes = f"{found.get(name, 'absent')} in the file, {wanted.get(name, 'absent')} in the model"
            raise ModelError(f"{path}: does not fit its config.json: {name} is {shapes}")

    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=device) as file:
            state = {name: file.get_tensor(name) for name in found}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a usable safetensors file: {error}") from error
    for name, tensor in state.items():
        if not _is_finite(tensor):
            raise ModelError(f"{path}: {name} holds NaN or infinity")
    return state


def _is_finite(tensor: "Tensor") -> bool:
    import torch

    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)  # NaN spreads to both; some 15 x faster than isfinite().all()
    return bool(torch.isfinite(low) & torch.isfinite(high))


def save_state(path: Path, tensors: Mapping[str, "Tensor"], metadata: Mapping[str, str]) -> None:
    """Write tensors (any device and layout, none sharing memory) and texts as one file, whole or not at all.

    Structured metadata, such as a training's place in its schedule, is one JSON text. OutputError on failure.
    """
    from safetensors.torch import save

    ready = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    write_atomic(Path(path), save(ready, metadata={"format": "pt", **metadata}))


def save_model(
    folder: Path,
    *,
    config: Mapping[str, Any],
    states: Mapping[str, Mapping[str, "Tensor"]],
    card: str,
    dtype: Literal["float16"] | None = None,
) -> None:
    """Write a model folder: `states` by component ("vae"), `card` as README.md; config.json last seals it.

    With `dtype` the tensors of two and more dimensions are stored so; vectors weigh nothing and keep theirs.
    Numbers of `config` that are not finite become null. ModelError if a tensor is not finite (in `dtype`), or
    for a config that `read_config` would refuse; OutputError if a file cannot be written.
    """
    config = _plain(config)
    _check_config(config, "config.json")
    for component, state in states.items():
        ready = {name: _halved(tensor) if dtype else tensor for name, tensor in state.items()}
        for name, tensor in ready.items():
            if not _is_finite(tensor):
                raise ModelError(f"{component}: {name} is not finite" + (f" as {dtype}" if dtype else ""))
        save_state(Path(folder) / f"{component}.safetensors", ready, {"kind": KIND, "component": component})
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(Path(folder) / "README.md", card.encode())
    write_atomic(Path(folder) / "config.json", text.encode())


def _halved(tensor: "Tensor") -> "Tensor":
    return tensor.half() if tensor.is_floating_point() and tensor.ndim > 1 else tensor


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def model_card(config: Mapping[str, Any]) -> str:
    """README.md of a model: YAML front matter as the Hub reads it, then what `config` says of its data.

    From config["card"]: license (required: UsageError), attribution, data, splits; from config["training"]:
    command, and splits if the card has none; config["figures"]: numbers, in groups or not.
    """
    card, training = config["card"], config["training"]
    licence = _line(card.get("license") or "")
    if not licence:
        raise UsageError("a model needs a licence", hint='name that of its weights, such as "CC BY 4.0"')
    slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    front = [f"license: {slug}"] if slug in HUB_LICENSES else ["license: other", f'license_name: "{slug}"']
    front += [
        "library_name: mhvae",
        "pipeline_tag: image-segmentation",
        "tags: [mhvae, medical, segmentation]",
    ]
    rows = [f"| {_line(name)} | {_line(value)} |" for name, value in _flat(config["figures"])]
    sections = {
        "Use": f"```\nmhvae segment scan.png --model {_line(config['name'])} -o masks/\n```\n"
        "In place of the name: this folder, or its ORG/NAME on the Hub.",
        "Intended use": "Research; not a medical device.",
        "Data": _prose(card.get("data")),
        "Splits": _prose(card.get("splits") or training.get("splits")),
        "Figures": "\n".join(["| | |", "|---|---|", *rows]) if rows else "",
        "Training": f"```\n{_line(training['command'])}\n```" if training.get("command") else "",
        "Attribution": _prose(card.get("attribution")),
        "Licence": licence,
    }
    body = [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    about = f"# {_line(config['name'])}\n\nA multi-headed VAE that finds one object in a 2-D medical image."
    return "\n".join(["---", *front, "---", "", "\n\n".join([about, *body]), ""])


def _line(value: Any) -> str:
    if value is None or isinstance(value, float):
        return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield prefix + key, value


def _prose(value: Any) -> str:
    """Text as it is, an object or a list as bullets."""
    if isinstance(value, Mapping):
        return "\n".join(f"- {_line(key)}: {_line(item)}" for key, item in _flat(value))
    return (
        "\n".join(f"- {_line(item)}" for item in value)
        if isinstance(value, list | tuple)
        else str(value or "")
    )
