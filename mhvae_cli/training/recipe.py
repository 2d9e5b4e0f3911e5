"""Recipes: presets, JSON files and command-line options, merged and checked. Needs no torch."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoints.folder import read_config
from ..checkpoints.registry import IMAGENET, bundled, model_folder, resolve
from ..config import SCRATCH, CDDPMRecipe, Recipe, from_dict, merge
from ..errors import UsageError, os_error_text
from ..filesystem import open_regular
from ..limits import check_diffusion, check_model, check_training, refuse

AUTO = "auto"
PRESETS: dict[str, dict[str, Any]] = {
    AUTO: {
        "model": {
            "image_size": 160,
            "z_dim": 128,
            "tones": 32,
            "boundary": True,
            "encoder": {"arch": "efficientnet-lite0", "hidden": 256},
            "decoder": {"channels": 48, "max_size": 128},
        },
        "train": {
            "part": "position",
            "lr": 3e-4,
            "ema": 0.995,
            "patience": 12,
            "loss": {"contour": 8.0, "kl_theta": 1e-6, "kl_warmup": 0.0},
            "augment": {"rotate": 60.0, "scale": 0.3, "noise": 0.025, "crop": 0.4},
        },
        "start": IMAGENET,
    },
    "paper": {"train": {"lr": 1e-4, "epochs": 200}},
    "small": {
        "model": {
            "image_size": 192,
            "z_dim": 64,
            "encoder": {"arch": "resnet18", "width": 0.5, "hidden": 256},
            "decoder": {"channels": 48, "max_size": 128},
        },
        "train": {"lr": 5e-4, "epochs": 60, "loss": {"contour": 2.0}},
    },
}
"""`paper` is the model of the paper, `small` a smaller one, of which all parts are trained at once. `auto`
trains what finds the object, from an ImageNet encoder; `automatic.choose` chooses the rest from the data."""

CONTINUED: dict[str, Any] = {
    "train": {
        "batch_size": 4,
        "crop": 0,
        "crops": 1,
        "lr": 5e-4,
        "ema": 0.995,
        "level": 0.0,
        "level_sd": 1.8,
        "augment": {
            "rotate": 0.0,
            "scale": 0.1,
            "shift": 0.03,
            "flip_x": False,
            "flip_y": False,
            "tone": 0.15,
            "noise": 0.0,
        },
    }
}
"""What a training that starts from a trained cDDPM has by default: whole images, hardly moved, so that what
always lies at the same place in them is learnt; all levels of noise, as fine texture needs the lowest."""

CHOSEN = {
    "model.image_size",
    "model.warp.family",
    "train.batch_size",
    "train.epochs",
    "train.lr_warmup",
    "train.validate_every",
    "train.val_fraction",
}
"""The values of `auto` that are chosen from the data."""


def load_recipe(
    preset: str, file: Path | None, options: dict[str, Any], *, offline: bool = False
) -> tuple[Recipe, set[str]]:
    """A preset, overridden by the configuration of the model that the training starts from, overridden by a
    JSON file, overridden by `options`; and the dotted keys whose values are to be chosen from the data.

    Raises UsageError for an unreadable file or an invalid key or value, which it names, and ModelError for a
    start that does not exist.
    """
    over = merge(_read(file), options)
    start = merge(PRESETS[preset], over).get("start", SCRATCH)
    folder = None if start == SCRATCH or not isinstance(start, str) else model_folder(start, offline=offline)
    own = {} if folder is None else {"model": read_config(folder)["model"]}
    recipe = from_dict(Recipe, merge(merge(PRESETS[preset], own), over))
    if recipe.start == IMAGENET and "start" not in over and recipe.model.encoder.arch != "efficientnet-lite0":
        recipe = replace(recipe, start=SCRATCH)  # of other encoders there are no bundled weights
    check_model(recipe.model)
    check_training(recipe.train)
    if recipe.train.part in ("style", "boundary") and recipe.start in (SCRATCH, IMAGENET):
        raise UsageError(
            f'train.part = "{recipe.train.part}" needs a trained model', hint="specify it with --from"
        )
    if recipe.train.part == "boundary" and not recipe.model.boundary:
        raise UsageError('train.part = "boundary" needs model.boundary = true')
    if recipe.train.part == "position" and recipe.model.single_head:
        hint = "--preset small trains all of it"
        raise UsageError('train.part = "position": a single-headed VAE has no position code', hint=hint)
    if "model.reference" in _keys(over) and recipe.model.reference:
        raise UsageError("model.reference cannot be set here: use --reference MASK")
    chosen = CHOSEN - _keys(own) if preset == AUTO else set()
    return recipe, (chosen | {"model.channels"}) - _keys(over)


def _keys(values: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys of the values in nested objects."""
    keys: set[str] = set()
    for key, value in values.items():
        keys |= _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
    return keys


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        with open_regular(file) as stream:
            values = json.load(stream)
    except OSError as error:
        raise UsageError(f"{file}: {os_error_text(error)}") from error
    except RecursionError as error:
        raise UsageError(f"{file}: nested too deeply") from error
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file}: not a JSON object")
    return values


def load_cddpm_recipe(
    file: Path | None,
    options: dict[str, Any],
    *,
    model: Path,
    start: str | None = None,
    offline: bool = False,
) -> tuple[CDDPMRecipe, set[str]]:
    """The recipe of a cDDPM for the VAE in the folder `model`, and the keys that are still to be chosen.

    The default recipe, or, if `start` (see `warm_start.start_refiner`) has a cDDPM and no value of
    "diffusion" is given, its configuration with CONTINUED; overridden by a JSON file, overridden by
    `options`. Errors as in `load_recipe`.
    """
    over = merge(_read(file), options)
    own = {} if "diffusion" in over else _started(model, start, offline=offline)
    fresh = {} if "diffusion" in over else {"spectral": True}
    recipe = from_dict(CDDPMRecipe, merge(merge({"diffusion": own or fresh}, CONTINUED if own else {}), over))
    check_diffusion(recipe.diffusion)
    check_training(recipe.train)
    refuse(
        {
            "train.crop: 0 for whole images, or 16 or more": 0 != recipe.train.crop < 16,
            "train.crops: 1 or more": recipe.train.crops < 1,
            "train.level: finite": not math.isfinite(recipe.train.level),
            "train.level_sd: above 0": not 0 < recipe.train.level_sd < math.inf,
            "train.augment.crop: 0, because a cDDPM is trained without masks": recipe.train.augment.crop != 0,
        }
    )
    return recipe, ({"train.epochs"} if own else set()) - _keys(over)


def _started(model: Path, start: str | None, *, offline: bool) -> dict[str, Any]:
    """The configuration of the cDDPM that a training starts from, as fine as it was in relation to the VAE;
    empty if it starts from scratch."""
    vae = read_config(model)["model"]
    if start == SCRATCH or vae.get("single_head"):
        return {}
    for ref in [str(model), *bundled()] if start is None else [start]:
        content = read_config(resolve(ref, offline=offline))
        if "cddpm" in content and content["model"].get("channels") == vae.get("channels"):
            found: dict[str, Any] = content["cddpm"]["model"]
            fineness = found.get("image_size", 0) / content["model"]["image_size"]
            return {**found, "image_size": round(fineness * vae["image_size"])}
    return {}
