"""Load the networks of a model folder, and verify the folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints.checksums import SUMS, check
from ..checkpoints.folder import FILES, load_state, model_config, read_config
from ..config import DiffusionConfig, check_diffusion, from_dict
from ..devices import layout
from ..errors import ModelError, UsageError
from ..vae.model import MultiHeadedVAE, NoDraws, build

if TYPE_CHECKING:
    from ..diffusion.refiner import Refiner


def load_model(folder: Path) -> tuple[MultiHeadedVAE, str]:
    """The VAE of a model folder, and the model's name. Weights are not initialised before they are loaded.

    ModelError if it is missing, damaged, or does not match its config.json.
    """
    content = read_config(folder)
    model = build(model_config(content, folder), seed=None)
    state = load_state(folder, expected=_shapes(model))
    model.load_state_dict(_widened(state), assign=True)
    return model, content["name"]


def load_refiner(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> "Refiner":
    """The cDDPM of a model folder, its network in `dtype`. ModelError if it has none, or an invalid one."""
    from ..diffusion.refiner import Refiner  # not needed for segmentation

    content = read_config(folder)
    if "cddpm" not in content:
        hint = "--no-refine gives the VAE's own image; train-cddpm trains a cDDPM"
        raise ModelError(f"{content['name']}: has no cDDPM, so it cannot refine images", hint=hint)
    state = load_state(folder, "cddpm")
    try:
        config = from_dict(DiffusionConfig, content["cddpm"]["model"], where="cddpm.model.")
        check_diffusion(config)
        with torch.device("meta"), NoDraws():
            refiner = Refiner(config, channels=content["model"]["channels"], codes=len(state["codes_mean"]))
    except (UsageError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: {error}") from error
    state = load_state(folder, "cddpm", expected=_shapes(refiner))
    refiner.load_state_dict(_widened(state), assign=True)
    refiner.network.unet.to(dtype)
    memory_format = layout(torch.device(device))
    refiner.eval().to(device=device, memory_format=memory_format)  # type: ignore[call-overload]  # torch's stubs
    return refiner


def verify_model(folder: Path) -> dict[str, str]:
    """Check a model folder: checksums, config.json, and weights that fit it; returns its files' SHA-256.

    ModelError if anything is wrong.
    """
    sums = check(folder, FILES)
    content = read_config(folder)
    parts = ["vae"] + ["cddpm"] * ("cddpm" in content)
    if missing := [name for part in parts if (name := f"{part}.safetensors") not in sums]:
        raise ModelError(f"{folder}: no {missing[0]}")
    load_model(folder)
    if "cddpm" in parts:
        load_refiner(folder)
    return {name: sums[name] for name in FILES if name in sums and name != SUMS}


def _shapes(module: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


def _widened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point tensors as float32: files may store them in 16 bits."""
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
