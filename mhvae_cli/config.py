"""What a model is and how it is trained: frozen dataclasses, strict JSON both ways.

An unknown key, a wrong type or a value outside its choices is a `UsageError` that names the key.
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .errors import UsageError, os_error_text

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Family = Literal["affine", "tps"]
Points = Literal["circular", "uniform"]
Arch = Literal["resnet18", "resnet34", "resnet50", "resnet50-vit-b16", "efficientnet-lite0"]


@dataclass(frozen=True)
class WarpConfig:
    """Section 3.2. `points` is the control-point layout of the thin-plate spline (appendix C)."""

    family: Family = "tps"
    points: Points = "circular"


@dataclass(frozen=True)
class EncoderConfig:
    """Section 3.1. `width` multiplies a ResNet's channels; `reduce` is how many are kept to be flattened.

    `thumbnail` is the side in pixels of a shrunk image that the style head sees beside them, 0 for none: what
    a ConvNet keeps to find an object with says little of the image's colours.
    """

    arch: Arch = "resnet50"
    width: float = 1.0
    reduce: int = 64
    hidden: int = 512
    thumbnail: int = 0


@dataclass(frozen=True)
class DecoderConfig:
    """Section 3.3. `channels` of the 32 x 32 features; they halve at every doubling of the size."""

    channels: int = 64
    max_size: int = 256


@dataclass(frozen=True)
class ModelConfig:
    """Figure 1. `image_size` is the side of the model's square in pixels; `edge` the softness of the
    predicted mask's rim while training, in reference units ([-1, 1]); `reference` the side in pixels of the
    reference's distance map, 0 for the disc."""

    image_size: int = 256
    channels: int = 1
    z_dim: int = 256
    single_head: bool = False
    edge: float = 0.02
    reference: int = 0
    warp: WarpConfig = field(default_factory=WarpConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


@dataclass(frozen=True)
class LossConfig:
    """Section 3.4: weights of the parts; the KL weights rise linearly from 0 over `kl_warmup` of the run.

    `contour` weighs how far the true contour lies from the warp's (`losses.contour_miss`); `consistency` how
    far the codes found in an edited picture are from those it was made of (`Objective.consistency`); `coarse`
    how far the picture's tones are from the image's over larger areas (`losses.coarse_miss`).
    """

    recon: float = 1.0
    coarse: float = 0.0
    dice: float = 1.0
    contour: float = 0.0
    consistency: float = 0.0
    kl_theta: float = 1e-4
    kl_z: float = 1e-4
    kl_warmup: float = 0.2


@dataclass(frozen=True)
class AugmentConfig:
    """Ranges of the random similarity (moves image and mask together) and of the image's tone.

    `crop` is how likely an image is to be cut out about its object after it was moved, as a second look would
    see it (`datasets.crop`). It needs masks.
    """

    rotate: float = 180.0
    scale: float = 0.2
    shift: float = 0.1
    flip_x: bool = True
    flip_y: bool = True
    tone: float = 0.2
    noise: float = 0.02
    crop: float = 0.0


@dataclass(frozen=True)
class UNetConfig:
    """Section 4.2's network: `channels` at the finest of `levels` (x 1.5, 2, ... below), `blocks` a level;
    the image is folded into `patch` x `patch` as many channels first."""

    channels: int = 64
    levels: int = 3
    blocks: int = 2
    patch: int = 2


@dataclass(frozen=True)
class DiffusionConfig:
    """Section 4. `process`: the paper's (equation 13), or DiffuseVAE's form 2 (equation 9). `sees`: what the
    score network is given; the paper writes S(x, t), that is "x". `normalise`: the process runs on what it
    starts at over its sd. `strength` changes pictures, not the training: see `Refiner.refine`."""

    process: Literal["mhvae", "diffusevae"] = "mhvae"
    sees: Literal["residual+recon", "residual", "x"] = "residual+recon"
    normalise: bool = True
    beta_min: float = 0.1
    beta_max: float = 20.0
    strength: float = 1.0
    unet: UNetConfig = field(default_factory=UNetConfig)


@dataclass(frozen=True)
class FitConfig:
    """One training run. `lr` falls by a half cosine to 1 % after a rise over `lr_warmup` of the run."""

    epochs: int = 100
    batch_size: int = 16
    lr: float = 1e-3
    lr_warmup: float = 0.03
    weight_decay: float = 1e-2
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    val_fraction: float = 0.1
    augment: AugmentConfig = field(default_factory=AugmentConfig)


@dataclass(frozen=True)
class TrainConfig(FitConfig):
    """A training of the VAE. `part`: "position" trains what finds the object alone, without the image head;
    "style" the style and image heads alone, on a frozen rest, so that masks stay as they are to the bit."""

    part: Literal["all", "position", "style"] = "all"
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True)
class CDDPMConfig(FitConfig):
    """A training of the cDDPM: of each image in a batch `crops` squares of `crop` pixels, 0 for the whole.

    Noise levels are drawn from a normal distribution of log(alpha / sigma): mean `level`, sd `level_sd`. An
    image's coarse tones are settled where its pixels are nearly all noise, so that the mean lies below 0.
    """

    batch_size: int = 8
    crop: int = 64
    crops: int = 4
    level: float = -1.5
    level_sd: float = 2.0


@dataclass(frozen=True)
class CDDPMRecipe:
    """All that a training of the cDDPM is made of; `card` adds to the model card of the VAE."""

    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    train: CDDPMConfig = field(default_factory=CDDPMConfig)
    card: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """All that a training of the VAE is made of; `card` holds the model card's licence, attribution, data."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    card: dict[str, str] = field(default_factory=dict)
    pretrained: str | None = None


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
"""`paper` is the paper's model; `small` trains on two CPU cores in an hour or two."""

T = TypeVar("T")


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """The dataclass as plain JSON values, every field present."""
    return dataclasses.asdict(config)


def from_dict(kind: type[T], values: dict[str, Any], *, where: str = "") -> T:
    """Build `kind` from JSON values; absent keys keep their defaults. UsageError names the faulty key."""
    hints = typing.get_type_hints(kind)
    if not isinstance(values, dict):
        raise UsageError(f"{where.rstrip('.') or 'config'}: expected an object, got {values!r}")
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            raise UsageError(
                f"unknown key {where + key!r} in the configuration",
                hint=f"did you mean {where + near[0]!r}?" if near else f"known keys: {', '.join(hints)}",
            )
    return kind(**{key: _coerce(hints[key], value, where + key) for key, value in values.items()})


def load_recipe(preset: str, file: Path | None, flags: dict[str, Any]) -> tuple[Recipe, set[str]]:
    """A preset, then a JSON file's values, then `flags`, each upon the last; UsageError names a faulty key.

    Also returns the keys of "model" that the file or the flags set.
    """
    over = merge(_read(file), flags)
    recipe = from_dict(Recipe, merge(PRESETS[preset], over))
    check_model(recipe.model)
    _check_training(recipe.train)
    if recipe.train.part == "style" and recipe.pretrained is None:
        raise UsageError('train.part = "style" trains on a frozen rest', hint="--pretrained names its model")
    if recipe.train.part == "position" and recipe.model.single_head:
        raise UsageError('train.part = "position": a single-headed VAE has no position code')
    if recipe.model.reference:
        raise UsageError("model.reference: set by --reference MASK")
    return recipe, set(over.get("model") or {})


def _read(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        values = json.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file}: {os_error_text(error)}") from error
    except ValueError as error:
        raise UsageError(f"{file}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{file}: not a JSON object")
    return values


def load_cddpm_recipe(file: Path | None, flags: dict[str, Any]) -> CDDPMRecipe:
    """A JSON file's values and `flags` upon them; UsageError names a faulty key."""
    recipe = from_dict(CDDPMRecipe, merge(_read(file), flags))
    check_diffusion(recipe.diffusion)
    _check_training(recipe.train)
    _refuse(
        {
            "train.crop: 0 for whole images, or 16 or more": 0 != recipe.train.crop < 16,
            "train.crops: 1 or more": recipe.train.crops < 1,
            "train.level: finite": not math.isfinite(recipe.train.level),
            "train.level_sd: above 0": not 0 < recipe.train.level_sd < math.inf,
            "train.augment.crop: 0, a cDDPM sees no masks": recipe.train.augment.crop != 0,
        }
    )
    return recipe


def check_diffusion(diffusion: DiffusionConfig) -> None:
    """UsageError if a value makes no network."""
    unet = diffusion.unet
    _refuse(
        {
            "unet.channels: 8 or more, even": unet.channels < 8 or unet.channels % 2 != 0,
            "unet.levels: 1 to 6": not 1 <= unet.levels <= 6,
            "unet.blocks: 1 or more": unet.blocks < 1,
            "unet.patch: 1 or more": unet.patch < 1,
            "diffusion.strength: above 0.001, at most 1": not 1e-3 < diffusion.strength <= 1,
        }
    )


def check_model(model: ModelConfig) -> None:
    """UsageError if a value makes no model."""
    arch = model.encoder.arch
    stride = {"efficientnet-lite0": 32, "resnet50-vit-b16": 16}.get(arch, 1)
    _refuse(
        {
            "model.image_size: 32 or more": model.image_size < 32,
            f"model.image_size: a multiple of {stride} for {arch}": model.image_size % stride != 0,
            "model.channels: 1 or 3": model.channels not in (1, 3),
            "model.reference: 0 or more": model.reference < 0,
            "model.z_dim: 1 or more": model.z_dim < 1,
            "model.edge: above 0": not 0 < model.edge < math.inf,
            "model.encoder.width: above 0, at most 8": not 0 < model.encoder.width <= 8,
            "model.encoder.reduce: 1 or more": model.encoder.reduce < 1,
            "model.encoder.hidden: 1 or more": model.encoder.hidden < 1,
            "model.encoder.thumbnail: 0 or more": model.encoder.thumbnail < 0,
            "model.decoder.channels: 1 or more": model.decoder.channels < 1,
        }
    )


def _check_training(train: FitConfig) -> None:
    weights = [*vars(getattr(train, "loss", LossConfig())).values(), *vars(train.augment).values()]
    _refuse(
        {
            "train.epochs: 1 or more": train.epochs < 1,
            "train.batch_size: 1 or more": train.batch_size < 1,
            "train.lr: above 0": not 0 < train.lr < math.inf,
            "train.lr_warmup: 0 or more, below 1": not 0 <= train.lr_warmup < 1,
            "train.clip: above 0": not train.clip > 0,
            "train.ema: 0 or more, below 1": not 0 <= train.ema < 1,
            "train.val_fraction: above 0, below 1": not 0 < train.val_fraction < 1,
            "train.loss and train.augment: 0 or more": not all(0 <= value < math.inf for value in weights),
            "train.augment.crop: at most 1": train.augment.crop > 1,
        }
    )


def _refuse(faults: dict[str, bool]) -> None:
    for wanted, fault in faults.items():
        if fault:
            raise UsageError(wanted)


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid upon `base`, nested objects key by key."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _coerce(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where=where + ".")
    if typing.get_origin(hint) is Literal:
        if value in typing.get_args(hint):
            return value
        raise UsageError(f"{where} = {value!r}: choose one of {', '.join(map(str, typing.get_args(hint)))}")
    if typing.get_origin(hint) is dict:
        if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
            return value
        raise UsageError(f"{where} = {value!r}: expected an object of texts")
    if typing.get_origin(hint) is types.UnionType:
        return None if value is None else _coerce(typing.get_args(hint)[0], value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise UsageError(f"{where} = {value!r}: expected {hint.__name__}")
    return value
