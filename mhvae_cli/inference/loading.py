"""Load the networks of a model folder, and verify the folder."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..checkpoints.checksums import SUMS, check
from ..checkpoints.folder import FILES, load_state, model_config, read_config
from ..config import DiffusionConfig, from_dict
from ..devices import layout
from ..errors import ModelError, UsageError
from ..limits import check_diffusion
from ..vae.model import MultiHeadedVAE, NoDraws, build

if TYPE_CHECKING:
    from ..diffusion.frames import Frames
    from ..diffusion.refiner import Refiner


def load_model(folder: Path) -> tuple[MultiHeadedVAE, str]:
    """The VAE of a model folder, and the model's name. Weights are not initialised before they are loaded.

    ModelError if it is missing, damaged, or does not match its config.json.
    """
    content = read_config(folder)
    config = model_config(content, folder)
    try:
        model = build(config, seed=None)
    except (RuntimeError, MemoryError, OverflowError, ValueError, TypeError) as error:
        raise ModelError(f"{folder}: no model can be built from its config.json: {error}") from error
    model.load_state_dict(_load_state(folder, "vae", model), assign=True)
    return model, content["name"]


def load_refiner(
    folder: Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> "Refiner":
    """The cDDPM of a model folder, its network in `dtype`. ModelError if it has none, or an invalid one."""
    from ..diffusion.density import Density  # not needed for segmentation
    from ..diffusion.refiner import STORED, Refiner

    content = read_config(folder)
    if "cddpm" not in content:
        hint = "--no-refine gives the VAE's own image; train-cddpm trains a cDDPM"
        raise ModelError(f"{content['name']}: has no cDDPM, so it cannot refine images", hint=hint)
    state = load_state(folder, "cddpm")
    try:
        config = from_dict(DiffusionConfig, content["cddpm"]["model"], where="cddpm.model.")
        check_diffusion(config)
        with torch.device("meta"), NoDraws():
            refiner = Refiner(config, channels=content["model"]["channels"], codes=len(state["codes_factor"]))
    except UsageError as error:
        raise ModelError(f"{folder}: {error}", hint=error.hint) from error
    except (RuntimeError, MemoryError, OverflowError, LookupError, ValueError, TypeError) as error:
        raise ModelError(f"{folder}: no cDDPM can be built from its config.json: {error}") from error
    if earlier := "codes_mean" in state:  # models had a Gaussian of the latent codes before
        del refiner.codes_marginals
        refiner.register_buffer("codes_mean", torch.zeros(len(state["codes_factor"]), device="meta"))
    absent = [name for name in STORED if hasattr(Density, name) and f"codes_{name}" not in state]
    for name in absent:  # nor did they have what has a default
        delattr(refiner, f"codes_{name}")
    refiner.load_state_dict(_load_state(folder, "cddpm", refiner), assign=True)
    for name in absent:
        refiner.register_buffer(f"codes_{name}", torch.tensor(getattr(Density, name)))
    if earlier:
        mean, factor = (state[f"codes_{name}"].double().numpy() for name in ("mean", "factor"))
        del refiner.codes_mean
        refiner.store(Density.gaussian(mean, factor, z_dim=0))
    if (folder / "frames.safetensors").exists():
        refiner.frames = _load_frames(folder, config.image_size or content["model"]["image_size"])
    refiner.network.unet.to(dtype)
    memory_format = layout(torch.device(device))
    refiner.eval().to(device=device, memory_format=memory_format)  # type: ignore[call-overload]  # torch's stubs
    return refiner


def _load_frames(folder: Path, side: int) -> "Frames":
    from ..diffusion.frames import Frames

    arrays = {name: value.numpy() for name, value in load_state(folder, "frames").items()}
    try:
        return Frames.of_arrays(arrays, side)
    except ValueError as error:
        raise ModelError(f"{folder / 'frames.safetensors'}: {error}") from error


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


def _load_state(folder: Path, component: str, module: torch.nn.Module) -> dict[str, Tensor]:
    """The tensors for a module in its shapes and dtypes: files may store those of float32 in other sizes."""
    wanted = module.state_dict()
    state = load_state(folder, component, expected={name: value.shape for name, value in wanted.items()})
    for name, value in state.items():
        if value.is_floating_point() != wanted[name].is_floating_point():
            dtypes = f"{value.dtype} in the file, {wanted[name].dtype} in the model".replace("torch.", "")
            raise ModelError(f"{folder / component}.safetensors: {name} is {dtypes}")
    return {name: value.to(wanted[name].dtype) for name, value in state.items()}
