"""Resolve a model's name to its folder: a bundled, an imported or a Hub model, or a folder itself.

Needs no torch, and a network connection only for a model on the Hub.
"""

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from .folder import FILES, load_state
from .hub import cached, fetch
from .tensors import PICKLED, load_tensors, pickled

if TYPE_CHECKING:
    from torch import Tensor

MODELS = Path(__file__).parents[1] / "models"
IMAGENET = "imagenet"
"""The bundled weights of an ImageNet encoder: training starts from them, but they find no object."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)


def bundled() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json"))


def home() -> Path:
    """The folder of imported models: MHVAE_HOME, or mhvae/ in XDG_DATA_HOME (LOCALAPPDATA on Windows)."""
    if chosen := os.environ.get("MHVAE_HOME"):
        return Path(chosen).expanduser()
    data = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME")
    return (Path(data) if data else Path("~/.local/share").expanduser()) / "mhvae"


def imported() -> list[str]:
    """Names of the models that `mhvae models import` has installed in `home`, sorted."""
    found = (path.parent.name for path in (home() / "models").glob("*/config.json"))
    return sorted(name for name in found if not name.startswith("."))


def list_models() -> list[tuple[str, str, Path]]:
    """Every model on this machine: its ref, its origin ("bundled", "imported" or "hub") and its folder."""
    found = [(name, "bundled", MODELS / name) for name in bundled()]
    found += [(name, "imported", home() / "models" / name) for name in imported()]
    return found + [(ref, "hub", folder) for ref, folder in cached()]


def resolve(ref: str | Path, *, offline: bool = False, check: bool = False) -> Path:
    """The model folder of `ref`: a bundled name, a folder, an imported name, or ORG/NAME[@REVISION].

    A Hub model is downloaded into the Hub's usual cache (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT
    apply as usual) and later read from there; with `offline` no socket is opened, with `check` every file is
    compared with the Hub's hash. ModelError if there is no such model.
    """
    ref = os.fspath(ref)
    names = bundled()
    if ref in names:
        return MODELS / ref
    path = Path(os.path.expanduser(ref))
    if ref and os.path.isdir(path):
        return _with_config(path, ref)
    if ref in imported():
        return home() / "models" / ref
    if ref == IMAGENET:
        raise ModelError(
            f"{IMAGENET}: an encoder's weights, not a model",
            hint=f"train-vae --from {IMAGENET} starts from them",
        )
    if ref and os.path.exists(path):
        raise ModelError(f"{ref}: not a model folder", hint=f"name the folder: --model {path.parent}")
    if _HUB_ID.fullmatch(ref):
        return fetch(ref, FILES[:2], FILES[2:], offline=offline, check=check)
    names += imported()
    near = difflib.get_close_matches(ref, names, 1)
    others = f"available: {', '.join(names) or 'none'}; or name a model folder, or ORG/NAME on the Hub"
    raise ModelError(f"no model {ref!r}", hint=f"did you mean {near[0]!r}?" if near else others)


def _with_config(folder: Path, ref: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{ref}: not a model folder (no config.json)", hint="train a model with train-vae")
    return folder


def model_folder(ref: str, *, offline: bool = False) -> Path | None:
    """The folder of the model `ref`, as in `resolve`, or None for what `load_pretrained` loads instead."""
    path = Path(ref).expanduser()
    if ref == IMAGENET or path.suffix in (".safetensors", *PICKLED) or path.is_file():
        return None
    try:
        return resolve(ref, offline=offline)
    except ModelError:
        if _HUB_ID.fullmatch(ref) and not path.exists():
            return None  # weights of another library
        raise


def load_pretrained(ref: str | Path, *, offline: bool = False) -> dict[str, "Tensor"]:
    """The tensors, in their stored dtypes, of a .safetensors file or a Hub model's model.safetensors.

    `ref`: "imagenet", the file, or ORG/NAME[@REVISION]. ModelError if there is none.
    """
    ref = os.fspath(ref)
    if ref == IMAGENET:
        return load_state(MODELS / IMAGENET, "encoder")
    path = Path(os.path.expanduser(ref))
    if path.suffix in PICKLED:
        raise pickled(path)
    if not os.path.isfile(path):
        if path.suffix == ".safetensors" or not _HUB_ID.fullmatch(ref):
            raise ModelError(f"no weights {ref!r}", hint="name a .safetensors file, or ORG/NAME on the Hub")
        path = fetch(ref, ["model.safetensors"], offline=offline) / "model.safetensors"
    return load_tensors(path)
