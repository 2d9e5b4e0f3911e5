"""What `train-vae` chooses from the data (preset `auto`): size, warp, length of the training, validation."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from ..config import CDDPMRecipe, Family, FitConfig, ModelConfig, Recipe, WarpConfig
from ..errors import InputError
from ..evaluation.metrics import dice
from ..images.read import read_mask, read_scan
from ..images.transforms import to_square
from ..vae.fitting import fit
from ..vae.warp import RADIUS, Warp, pixel_centres
from .datasets import Sample

MAX_CHECKS = 100
"""Maximum number of masks that are measured."""
MAX_COLOUR_CHECKS = 32
"""Maximum number of images inspected for colour."""
FIT_SIZE = 96
ELLIPTIC = 0.97
"""The masks are ellipses if these agree with them by this Dice: an affine warp is then enough."""
TIME_SHARE = 0.85
"""The fraction of the time that is planned for the steps; the rest is for validation and the report."""
SMALL_OBJECT, LARGER = 0.05, 192
"""The image size if half of the objects cover a smaller fraction of their image."""
STEPS, AT_IMAGES, STEP_RANGE = 1300, 300, (600, 3000)
"""Optimiser steps for that many images; their number grows with the root of the number of images."""
CDDPM_STEPS = 1000
"""Optimiser steps of a cDDPM that starts from a trained one."""
CDDPM_VALIDATIONS = 10
WARMUP_STEPS, WARMUP_RANGE = 100, (0.03, 0.3)
"""Steps of the learning rate's warm-up, and the range of their fraction."""
VALIDATIONS = 40
"""Maximum number of validations in a run."""
MIN_VALIDATION, VAL_FRACTIONS = 20, (0.1, 0.2)
"""Number of validation images that is aimed at, and the range of their fraction."""


AnyRecipe = TypeVar("AnyRecipe", Recipe, CDDPMRecipe)


def choose(recipe: Recipe, undecided: set[str], samples: Sequence[Sample]) -> Recipe:
    """The recipe with the values of the `undecided` keys chosen from the data."""
    model, train = recipe.model, recipe.train
    masks = list(_masks(samples)) if undecided & {"model.image_size", "model.warp.family"} else []
    if "model.channels" in undecided:
        model = replace(model, channels=channels_of(samples))
    if "model.image_size" in undecided and masks:
        small = float(np.median([mask.mean() for mask in masks])) < SMALL_OBJECT
        model = replace(model, image_size=LARGER if small else model.image_size)
    if "model.warp.family" in undecided and masks:
        elliptic = agreement("affine", masks) >= ELLIPTIC
        model = replace(model, warp=replace(model.warp, family="affine" if elliptic else "tps"))
    if "train.val_fraction" in undecided:
        fraction = float(np.clip(MIN_VALIDATION / max(1, len(samples)), *VAL_FRACTIONS))
        train = replace(train, val_fraction=round(fraction, 3))
    count = max(1, int(len(samples) * (1 - train.val_fraction)))
    if "train.batch_size" in undecided:
        train = replace(train, batch_size=min(train.batch_size, count))
    if "train.epochs" in undecided:
        steps = float(np.clip(STEPS * math.sqrt(len(samples) / AT_IMAGES), *STEP_RANGE))
        train = replace(train, epochs=math.ceil(steps / max(1, count // train.batch_size)))
    if "train.validate_every" in undecided:
        train = replace(train, validate_every=math.ceil(train.epochs / VALIDATIONS))
    if "train.lr_warmup" in undecided:
        train = replace(train, lr_warmup=_warmup(train, count))
    return replace(recipe, model=model, train=train)


def choose_cddpm(recipe: CDDPMRecipe, undecided: set[str], samples: Sequence[Sample]) -> CDDPMRecipe:
    """The recipe with the number of epochs, if `undecided`, chosen from the number of images."""
    if "train.epochs" not in undecided:
        return recipe
    count = max(1, int(len(samples) * (1 - recipe.train.val_fraction)))
    epochs = math.ceil(CDDPM_STEPS / max(1, count // recipe.train.batch_size))
    every = math.ceil(epochs / CDDPM_VALIDATIONS)
    return replace(recipe, train=replace(recipe.train, epochs=epochs, validate_every=every))


def in_time(recipe: AnyRecipe, count: int, seconds: float, deadline: float | None) -> AnyRecipe:
    """The recipe, with fewer epochs if those of `count` images, at `seconds` a step, end after `deadline`."""
    planned = steps_of(recipe.train, count) * seconds
    available = math.inf if deadline is None else TIME_SHARE * (deadline - time.monotonic())
    if planned <= available:
        return recipe
    epochs = max(1, math.floor(recipe.train.epochs * max(0.0, available) / planned))
    every = min(recipe.train.validate_every, math.ceil(epochs / 4))
    train = replace(recipe.train, epochs=epochs, validate_every=every)
    return replace(recipe, train=replace(train, lr_warmup=max(train.lr_warmup, _warmup(train, count))))


def steps_of(train: FitConfig, count: int) -> int:
    """The number of optimiser steps of a training on `count` images."""
    return train.epochs * max(1, count // train.batch_size)


def _warmup(train: FitConfig, count: int) -> float:
    """The warm-up, a fraction of the training, that spares a trained encoder while its heads are new."""
    least, most = WARMUP_RANGE
    return min(most, max(least, round(WARMUP_STEPS / steps_of(train, count), 3)))


def describe_choices(model: ModelConfig, train: FitConfig, count: int, seconds: float) -> str:
    """What was chosen for a VAE and how long it takes, in one line for the terminal."""
    length = describe_length(train, count, seconds)
    return f"{model.warp.family} warp, {model.image_size} px, {length}, less if validation stops improving"


def describe_length(train: FitConfig, count: int, seconds: float) -> str:
    """The length of a training, in steps and minutes."""
    steps = steps_of(train, count)
    minutes = max(1, round(steps * seconds / TIME_SHARE / 60))
    return f"{steps:,} steps in {train.epochs} epochs: about {minutes} min"


def channels_of(samples: Sequence[Sample]) -> int:
    """1 if the first images are all grey (or RGB with equal channels), else 3."""
    for sample in samples[:MAX_COLOUR_CHECKS]:
        pixels = read_scan(sample.image).pixels
        if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
            return 3
    return 1


def agreement(family: Family, masks: Sequence[np.ndarray]) -> float:
    """The mean Dice between masks and the warps of this family that are fitted to them: about the best
    that a model of this family can do."""
    warp = Warp(WarpConfig(family=family))
    dices = []
    for mask in masks:
        parameters = warp.identity.double().numpy() + fit(warp, mask)
        sources = warp.sources(pixel_centres(mask.shape), parameters)
        dices.append(dice((np.hypot(*sources.T) <= RADIUS).reshape(mask.shape), mask))
    return float(np.mean(dices))


def _masks(samples: Sequence[Sample]) -> Iterator[np.ndarray]:
    """Masks (FIT_SIZE, FIT_SIZE), spread evenly over the samples; unusable ones are reported later."""
    for sample in samples[:: math.ceil(len(samples) / MAX_CHECKS)]:
        try:
            assert sample.mask is not None
            mask = to_square(read_mask(sample.mask), FIT_SIZE, 1)[0] > 0
        except InputError:
            continue
        if mask.any() and not mask.all():
            yield mask
