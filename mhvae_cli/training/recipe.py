"""Recipes: presets, JSON files and command-line options, merged and checked. Needs no torch."""

import json
import math
from pathlib import Path
from typing import Any

from ..config import CDDPMRecipe, Recipe, from_dict, merge
from ..errors import UsageError, os_error_text
from ..filesystem import open_regular
from ..limits import check_diffusion, check_model, check_training, refuse

PRESETS: dict[str, dict[str, Any]] = {
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
"""`paper` is the model of the paper; `small` trains in one to two hours on two CPU cores."""


def load_recipe(preset: str, file: Path | None, options: dict[str, Any]) -> tuple[Recipe, set[str]]:
    """A preset, overridden by a JSON file, overridden by `options`, and the keys of "model" that they set.

    Raises UsageError for an unreadable file or an invalid key or value, which it names.
    """
    over = merge(_read(file), options)
    recipe = from_dict(Recipe, merge(PRESETS[preset], over))
    check_model(recipe.model)
    check_training(recipe.train)
    if recipe.train.part == "style" and recipe.pretrained is None:
        raise UsageError('train.part = "style" needs a trained model', hint="specify it with --pretrained")
    if recipe.train.part == "position" and recipe.model.single_head:
        raise UsageError('train.part = "position": a single-headed VAE has no position code')
    if recipe.model.reference:
        raise UsageError("model.reference cannot be set here: use --reference MASK")
    return recipe, set(over.get("model") or {})


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


def load_cddpm_recipe(file: Path | None, options: dict[str, Any]) -> CDDPMRecipe:
    """The default recipe, overridden by a JSON file, overridden by `options`. Errors as in `load_recipe`."""
    recipe = from_dict(CDDPMRecipe, merge(_read(file), options))
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
    return recipe
