"""Configuration of models and of their training: frozen dataclasses, read from and written to strict JSON.

An unknown key, a wrong type or a value that is not allowed raises a `UsageError` that names the key.
"""

import dataclasses
import difflib
import math
import reprlib
import types
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from .errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

SCRATCH = "scratch"
"""The start of a training from random weights."""
TEXTURE = 16
"""The length of a texture code, for a cDDPM that sees the texture."""
STEPS, STEPS_CARRIED = 20, 10
"""Evaluations of the cDDPM for an image that is generated as a whole, and for what an edit leaves open."""

Family = Literal["affine", "tps"]
Points = Literal["circular", "uniform"]
Arch = Literal["resnet18", "resnet34", "resnet50", "resnet50-vit-b16", "efficientnet-lite0"]


@dataclass(frozen=True)
class WarpConfig:
    """Section 3.2. `points` is the layout of the thin-plate spline's control points (appendix C)."""

    family: Family = "tps"
    points: Points = "circular"


@dataclass(frozen=True)
class EncoderConfig:
    """Section 3.1. `width` multiplies a ResNet's channels; `reduce` is how many are kept for flattening."""

    arch: Arch = "resnet50"
    width: float = 1.0
    reduce: int = 64
    hidden: int = 512


@dataclass(frozen=True)
class DecoderConfig:
    """Section 3.3. `channels` is that of the 32 x 32 features; it halves whenever the size doubles."""

    channels: int = 64
    max_size: int = 256


@dataclass(frozen=True)
class ModelConfig:
    """Figure 1. `image_size` is the side in pixels of the model's square input; `edge` the softness of the
    predicted mask's boundary during training, in reference units ([-1, 1]); `reference` the side in pixels
    of the reference's distance map, 0 for the disc.

    Beyond the paper: with `boundary`, the outline is moved to the boundary that the image shows
    (`vae.boundary`), which needs the disc; `tones` is the side of the two coarse layers that z describes
    (`vae.tones`), 0 for none; `fill` the fraction of a crop's side that the object spans when it is found
    again (`inference.looking`), 0 for never; `pen` how far the masks extend beyond the line that head
    measurements follow, as a fraction of the image's side (the root of its area).
    """

    image_size: int = 256
    channels: int = 1
    z_dim: int = 256
    single_head: bool = False
    edge: float = 0.02
    reference: int = 0
    boundary: bool = False
    tones: int = 0
    fill: float = 0.7
    pen: float = 0.0
    warp: WarpConfig = field(default_factory=WarpConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)


@dataclass(frozen=True)
class LossConfig:
    """Section 3.4: weights of the loss terms; the KL weights rise linearly from 0 over the first `kl_warmup`
    (a fraction) of the run.

    `contour` weights the distance from the true contour to the warp's (`losses.contour_miss`); `consistency`
    the distance between the latent code found in an edited image and the one it was made from
    (`Objective.consistency`); `coarse` the difference in tone between the reconstruction and the image over
    larger areas (`losses.coarse_miss`).
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
    """Ranges of the random similarity (applied to image and mask together) and of the changes in tone.

    `crop` is the probability that an image is cropped around its object after the similarity
    (`datasets.crop`). It needs masks.
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
    """Section 4.2's network: `channels` at the finest of `levels` (x 1.5, 2, ... below), `blocks` per level.

    The image is first folded into `patch` x `patch` times as many channels (pixel unshuffle)."""

    channels: int = 64
    levels: int = 3
    blocks: int = 2
    patch: int = 2


@dataclass(frozen=True)
class DiffusionConfig:
    """Section 4. `process`: the paper's (equation 13), or DiffuseVAE's form 2 (equation 9). `sees`: the score
    network's input; the paper writes S(x, t), that is "x", DiffuseVAE's form 2 has "x+recon"; "mask" is the
    level function of the requested mask, "known" the part of the image that is already known (`score.Known`),
    "place" the coordinates of its pixels, "texture" how strong its detail is (`Texture`). `normalise`: divide
    the process's starting point by its standard deviation. `spectral`: the network starts from the score of a
    Gaussian field (`Spectrum`), unless it sees "x". `strength` affects generated images, not training: see
    `Refiner.refine`. `image_size`: the side in pixels of the square in which images are generated, which may
    be finer than the VAE's; 0 for the VAE's."""

    process: Literal["mhvae", "diffusevae"] = "mhvae"
    sees: Literal[
        "residual+recon+mask+known+place+texture",
        "residual+recon+mask+known+place",
        "residual+recon+mask+known",
        "residual+recon+mask",
        "residual+recon",
        "residual",
        "x+recon",
        "x",
    ] = "residual+recon"
    normalise: bool = True
    spectral: bool = False
    beta_min: float = 0.1
    beta_max: float = 20.0
    strength: float = 1.0
    image_size: int = 0
    unet: UNetConfig = field(default_factory=UNetConfig)


@dataclass(frozen=True)
class FitConfig:
    """One training run. `lr` rises over the first `lr_warmup` (a fraction) of the run, then falls along a
    half cosine to 1 %. It is validated after every `validate_every` epochs, and ends early after `patience`
    validations without a better score; 0: never."""

    epochs: int = 100
    validate_every: int = 1
    patience: int = 0
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
    """Training of the VAE. `part`: "position" trains only what finds the object, without the image head;
    "style" only the style and image heads, with all else frozen, so that masks stay identical bit for bit;
    "boundary" only the boundary head."""

    part: Literal["all", "position", "style", "boundary"] = "all"
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True)
class CDDPMConfig(FitConfig):
    """Training of the cDDPM: `crops` squares of `crop` pixels from each image of a batch; 0 for whole images.

    Noise levels are drawn from a normal distribution of log(alpha / sigma): mean `level`, sd `level_sd`. The
    mean is below 0 because an image's coarse tones are decided while its pixels are almost entirely noise.
    """

    batch_size: int = 8
    crop: int = 64
    crops: int = 4
    level: float = -1.5
    level_sd: float = 2.0


@dataclass(frozen=True)
class CDDPMRecipe:
    """Everything that defines a training of the cDDPM; `card` is added to the VAE's model card."""

    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    train: CDDPMConfig = field(default_factory=CDDPMConfig)
    card: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """Everything that defines a training of the VAE; `card` holds the licence, attribution and data of the
    model card; `start` names what the weights start from (`training.warm_start`)."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    card: dict[str, str] = field(default_factory=dict)
    start: str = SCRATCH


def texture_length(sees: str) -> int:
    """The length of the texture codes of a cDDPM with this `DiffusionConfig.sees`: 0 if it has none."""
    return TEXTURE if "texture" in sees else 0


T = TypeVar("T")


def to_dict(config: "DataclassInstance") -> dict[str, Any]:
    """The dataclass as plain JSON values, every field present."""
    return dataclasses.asdict(config)


def from_dict(kind: type[T], values: dict[str, Any], *, where: str = "") -> T:
    """Build `kind` from JSON values; absent keys keep their defaults. UsageError names an invalid key."""
    hints = typing.get_type_hints(kind)
    if not isinstance(values, dict):
        raise UsageError(f"{where.rstrip('.') or 'config'}: expected an object, got {reprlib.repr(values)}")
    for key in values:
        if key not in hints:
            near = difflib.get_close_matches(key, hints, 1)
            raise UsageError(
                f"unknown key {reprlib.repr(where + key)} in the configuration",
                hint=f"did you mean {where + near[0]!r}?" if near else f"known keys: {', '.join(hints)}",
            )
    return kind(**{key: _coerce(hints[key], value, where + key) for key, value in values.items()})


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`base` overridden by `over`; nested objects are merged key by key."""
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
        raise UsageError(
            f"{where} = {reprlib.repr(value)}: choose one of {', '.join(map(str, typing.get_args(hint)))}"
        )
    if typing.get_origin(hint) is dict:
        if isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
            return value
        raise UsageError(f"{where} = {reprlib.repr(value)}: expected an object of strings")
    if typing.get_origin(hint) is types.UnionType:
        return None if value is None else _coerce(typing.get_args(hint)[0], value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**53 else math.inf
    if type(value) is not hint:
        raise UsageError(f"{where} = {reprlib.repr(value)}: expected {hint.__name__}")
    return value
