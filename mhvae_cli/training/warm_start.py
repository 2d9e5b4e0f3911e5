"""Which trained cDDPM a training starts from, and its weights in a network that sees more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints.folder import read_config
from ..checkpoints.registry import bundled, resolve
from ..config import CDDPMRecipe, DiffusionConfig, to_dict
from ..diffusion.refiner import Refiner
from ..errors import ModelError, UsageError
from ..inference.loading import load_refiner
from ..vae.model import MultiHeadedVAE

SCRATCH = "scratch"
FIRST_LAYER = "network.unet.enter.weight"


def start_refiner(
    model: Path,
    vae: MultiHeadedVAE,
    recipe: CDDPMRecipe,
    *,
    start: str | None,
    offline: bool = False,
) -> tuple[Refiner, str, bool]:
    """A cDDPM for a VAE in the folder `model`, where its weights come from, and whether it was made for it.

    `start` is a model with a cDDPM, "scratch", or None: the cDDPM in `model` itself, else that of a bundled
    model with as many channels, else none. A cDDPM fits if it has the same process and U-Net and sees no more
    than the new one. ModelError if the named one does not; UsageError if the VAE has no mask to be seen.
    """
    config, channels = recipe.diffusion, vae.config.channels
    if "mask" in config.sees and vae.warp is None:
        raise UsageError(f"diffusion.sees = {config.sees!r}: a single-headed VAE has no mask")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.train.seed)
        refiner = Refiner(config, channels=channels, codes=vae.config.z_dim + vae.theta_dim)
    if start == SCRATCH:
        return refiner, "from scratch", False
    if start is None:
        own = _cddpm_of(model)
        if own | {"strength": config.strength} == to_dict(config):
            return load_refiner(model), "starting from the model's cDDPM", True
        refs = [str(model), *bundled()]
        start = next((ref for ref in refs if _fits(resolve(ref, offline=True), config, channels)), None)
        if start is None:
            return refiner, "from scratch", False
    folder = resolve(start, offline=offline)
    if not _fits(folder, config, channels):
        raise ModelError(
            f"{start}: has no cDDPM of this configuration with {channels} channels",
            hint="use --from scratch",
        )
    name = read_config(folder)["name"]
    _copy_network(load_refiner(folder), refiner)
    return refiner, f"starting from the cDDPM of {name}", False


def _cddpm_of(folder: Path) -> dict[str, Any]:
    """The configuration of a folder's cDDPM; empty if it has none."""
    found: Mapping[str, Any] = read_config(folder).get("cddpm", {})
    return dict(found.get("model", {}))


def _fits(folder: Path, config: DiffusionConfig, channels: int) -> bool:
    found, wanted = _cddpm_of(folder), to_dict(config)
    if not found or read_config(folder)["model"]["channels"] != channels:
        return False
    same = all(found.get(key) == wanted[key] for key in ("process", "unet", "normalise"))
    return same and f"{wanted['sees']}+".startswith(f"{found.get('sees')}+")


def _copy_network(trained: Refiner, refiner: Refiner) -> None:
    """Copy the network's weights; channels that only the new one sees begin without weight."""
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith("codes_")}
    new = refiner.state_dict()[FIRST_LAYER].shape[1] - state[FIRST_LAYER].shape[1]
    state[FIRST_LAYER] = nn.functional.pad(state[FIRST_LAYER], (0, 0, 0, 0, 0, new))
    refiner.load_state_dict(state, strict=False)
