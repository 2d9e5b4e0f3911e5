"""What a training starts from (--from): the weights of a trained VAE, encoder or cDDPM, in a new network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints.folder import load_state, model_config, read_config
from ..checkpoints.registry import IMAGENET, bundled, load_pretrained, model_folder, resolve
from ..config import SCRATCH, CDDPMRecipe, DiffusionConfig, EncoderConfig, texture_length, to_dict
from ..diffusion.refiner import Refiner
from ..errors import ModelError, UsageError
from ..inference.loading import load_refiner
from ..vae.model import MultiHeadedVAE
from ..vae.pretrained import STEMS, adapt_stem, start_from

FIRST_LAYER = "network.unet.enter.weight"
LAST_LAYER = "network.unet.leave.2."
HEADS = {
    "position": ("encoder.theta.", "warp."),
    "style": ("encoder.z.",),
    "image": ("image_head.",),
    "boundary": ("boundary_head.",),
    "reference": ("segmentation_head.",),
}
"""The parts of a VAE beside its encoder, each of which is taken over as a whole or not at all."""


def start_vae(model: MultiHeadedVAE, start: str, *, part: str, offline: bool = False) -> set[str]:
    """Copy the weights of `start` into a model of random weights; return the HEADS that it takes from there.

    `start`: "scratch", "imagenet" or other weights of an encoder, or a model. What it has of another shape,
    the model keeps at random, except for the encoder, whose stem alone is adapted, to the number of channels,
    and what `part` "style" freezes. Raises ModelError if these do not match.
    """
    if start == SCRATCH:
        return set()
    folder = model_folder(start, offline=offline)
    if folder is None:
        try:
            start_from(model.encoder.convnet, load_pretrained(start, offline=offline))
        except ModelError as error:
            raise ModelError(f"{start}: {error}", hint=error.hint) from error
        return set()
    given, wanted = (
        _architecture(c.encoder) for c in (model_config(read_config(folder), folder), model.config)
    )
    if given != wanted:
        raise ModelError(f"{start}: its encoder is {given}, not {wanted}", hint=f"use --from {SCRATCH}")
    own, loaded = model.state_dict(), load_state(folder)
    for name in (f"encoder.convnet.{prefix}{stem}" for prefix in ("", "resnet.") for stem in STEMS):
        if name in own and name in loaded:
            loaded[name] = adapt_stem(loaded[name], model.config.channels)
    taken = set()
    for head, prefixes in HEADS.items():
        names = [{n for n in state if n.startswith(prefixes)} for state in (own, loaded)]
        if names[0] == names[1] and all(loaded[n].shape == own[n].shape for n in names[0]):
            taken.add(head)
        elif head != "position" or part != "style" or model.warp is None:
            loaded = {n: v for n, v in loaded.items() if n not in names[1]} | {n: own[n] for n in names[0]}
    for name in sorted(own.keys() | loaded.keys()):
        if name not in loaded or name not in own or loaded[name].shape != own[name].shape:
            raise ModelError(f"{start}: does not match this configuration: {name} differs")
    model.load_state_dict(loaded)
    return taken


def describe_start(start: str, taken: set[str], model: MultiHeadedVAE) -> str:
    """What a VAE starts from, for the terminal and the model card: of a path the last component only."""
    if start == SCRATCH:
        return "from scratch"
    path = Path(start).expanduser()
    name = path.resolve().name if path.exists() else start
    anew = [head for head in ("position", "style", "image", "boundary") if taken and head not in taken]
    if not anew:
        return f"starting from {name}"
    *first, last = anew
    heads = f"{', '.join(first)} and {last} heads" if first else f"{last} head"
    return f"starting from {name}, its {heads} anew"


def attribution_of(start: str, *, offline: bool = False) -> dict[str, str]:
    """The entry "attribution" of the model card that what `start` names asks for; its licence may bind."""
    folder = None if start == SCRATCH else model_folder(start, offline=offline)
    if folder is not None:
        card = read_config(folder)["card"]
        origin = f"The training started from the weights of {read_config(folder)['name']}, licence"
        return {"attribution": f"{origin} {card.get('license')}. {card.get('attribution') or ''}".strip()}
    if start == IMAGENET:
        text = "The encoder began from the ImageNet weights of EfficientNet-Lite0 (Apache-2.0)."
        return {"attribution": text}
    return {}


def _architecture(encoder: EncoderConfig) -> str:
    width = "" if encoder.arch == "efficientnet-lite0" else f" of width {encoder.width:g}"
    return encoder.arch + width


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
        codes = vae.config.z_dim + texture_length(config.sees) + vae.theta_dim
        refiner = Refiner(config, channels=channels, codes=codes)
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
            hint=f"use --from {SCRATCH}",
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
    """Copy the network's weights; channels that only the new one sees begin without weight.

    If only one of the two starts from a spectrum, their answers mean different things: the last layer begins
    anew.
    """
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith("codes_")}
    if (trained.network.spectrum is None) != (refiner.network.spectrum is None):
        state = {name: value for name, value in state.items() if not name.startswith(LAST_LAYER)}
    new = refiner.state_dict()[FIRST_LAYER].shape[1] - state[FIRST_LAYER].shape[1]
    state[FIRST_LAYER] = nn.functional.pad(state[FIRST_LAYER], (0, 0, 0, 0, 0, new))
    refiner.load_state_dict(state, strict=False)
