"""Which folder a model's name means: a bundled, an imported or a Hub model's, or the folder itself.

Needs neither torch nor, unless a Hub model is asked for, the network.
"""

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError
from .folder import FILES
from .hub import cached, fetch
from .tensors import PICKLED, load_tensors, pickled

if TYPE_CHECKING:
    from torch import Tensor

MODELS = Path(__file__).parents[1] / "models"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)


def bundled() -> list[str]:
    """Names of the models that ship with the package, sorted."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json"))


def home() -> Path:
    """Where imported models are kept: MHVAE_HOME, or mhvae/ in XDG_DATA_HOME (LOCALAPPDATA on Windows)."""
    if place := os.environ.get("MHVAE_HOME"):
        return Path(place).expanduser()
    data = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME")
    return (Path(data) if data else Path("~/.local/share").expanduser()) / "mhvae"


def imported() -> list[str]:
    """Names of the models that `mhvae models import` has put into `home`, sorted."""
    found = (path.parent.name for path in (home() / "models").glob("*/config.json"))
    return sorted(name for name in found if not name.startswith("."))


def known() -> list[tuple[str, str, Path]]:
    """Every model at hand: the ref that means it, "bundled", "imported" or "hub", and its folder."""
    found = [(name, "bundled", MODELS / name) for name in bundled()]
    found += [(name, "imported", home() / "models" / name) for name in imported()]
    return found + [(ref, "hub", folder) for ref, folder in cached()]


def resolve(ref: str | Path, *, offline: bool = False, check: bool = False) -> Path:
    """The folder that `ref` means: a bundled name, a folder, an imported name, or ORG/NAME[@REVISION].

    A Hub model is downloaded into the Hub's usual cache (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and HF_ENDPOINT as
    its users know them) and served from there later; with `offline` no socket is opened, with `check` the Hub
    is asked what each file is. ModelError if none.
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
    if ref and os.path.exists(path):
        raise ModelError(f"{ref}: a file, not a model", hint=f"a model is a folder: --model {path.parent}")
    if _HUB_ID.fullmatch(ref):
        return fetch(ref, FILES[:2], FILES[2:], offline=offline, check=check)
    names += imported()
    near = difflib.get_close_matches(ref, names, 1)
    others = f"models here: {', '.join(names) or 'none'}; or give a folder, or ORG/NAME on the Hub"
    raise ModelError(f"no model {ref!r}", hint=f"did you mean {near[0]!r}?" if near else others)


def _with_config(folder: Path, ref: str) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{ref}: no config.json in it, so not a model", hint="train-vae makes models")
    return folder


def load_pretrained(ref: str | Path, *, offline: bool = False) -> dict[str, "Tensor"]:
    """The tensors, as stored, of a .safetensors file, or of model.safetensors of ORG/NAME[@REVISION].

    ModelError if there is none.
    """
    ref = os.fspath(ref)
    path = Path(os.path.expanduser(ref))
    if path.suffix in PICKLED:
        raise pickled(path)
    if not os.path.isfile(path):
        if path.suffix == ".safetensors" or not _HUB_ID.fullmatch(ref):
            raise ModelError(f"no weights {ref!r}", hint="give a .safetensors file, or ORG/NAME on the Hub")
        path = fetch(ref, ["model.safetensors"], offline=offline) / "model.safetensors"
    return load_tensors(path)
