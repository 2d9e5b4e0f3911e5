"""This package's models, trained by its own loop on the rivals' images, size, augmentation and budget.

Only what finds the object is trained, as `mhvae train-vae` does by default, whose settings these are but for
what table 1 asks for. Its loop needs the number of epochs, which sets the schedule: with a budget in
minutes they are planned as `train-vae --max-time` plans them, and again after each part of the training, from
the time that it took so far. The training ends with the time at the latest.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mhvae_cli.checkpoints.tensors import read_metadata
from mhvae_cli.config import SCRATCH, Recipe, TrainConfig, to_dict
from mhvae_cli.training.automatic import choose, in_time
from mhvae_cli.training.loop import fit, seconds_per_step
from mhvae_cli.training.recipe import load_recipe
from mhvae_cli.training.state import TrainingRun, stored_length
from mhvae_cli.training.vae_task import ModelInfo, VAETask, prepare_model

from .training import SAVE_EVERY, STATE, VALIDATIONS, Budget, Data, Stopped, Tell, Trained, finish

ENDLESS = 1_000_000
"""Epochs that no training reaches, of which a budget leaves some."""
END = 0.98
"""The fraction of the time after which the last epoch should end."""


@dataclass(frozen=True)
class Ours:
    """A model of this package: `encoder` and `warp` as in its configuration; without `warp` that which
    `train-vae` chooses from the masks. `start` is "scratch" or "imagenet"."""

    title: str
    encoder: str
    warp: Mapping[str, str] | None
    start: str = SCRATCH


AFFINE = {"family": "affine"}
CIRCULAR, UNIFORM = ({"family": "tps", "points": points} for points in ("circular", "uniform"))
OURS = {
    "ours-affine": Ours("MHVAE affine", "resnet50", AFFINE),
    "ours-tps": Ours("MHVAE TPS circular", "resnet50", CIRCULAR),
    "ours-uniform": Ours("MHVAE TPS uniform", "resnet50", UNIFORM),
    "ours-hybrid": Ours("MHVAE TPS circular", "resnet50-vit-b16", CIRCULAR),
    "ours-lite": Ours("MHVAE, train-vae's own choice", "efficientnet-lite0", None),
    "ours-shipped": Ours("MHVAE, as shipped", "efficientnet-lite0", None, "imagenet"),
    "ours-shipped-affine": Ours("MHVAE affine, as shipped", "efficientnet-lite0", AFFINE, "imagenet"),
    "ours-shipped-tps": Ours("MHVAE TPS circular, as shipped", "efficientnet-lite0", CIRCULAR, "imagenet"),
    "ours-shipped-uniform": Ours("MHVAE TPS uniform, as shipped", "efficientnet-lite0", UNIFORM, "imagenet"),
}
"""`ours-shipped...` start from the bundled ImageNet weights, as the bundled models do; the rivals and the
others, of which `ours-lite` is the same network, start from random ones."""


def recipe_of(ours: Ours, data: Data, size: int, channels: int) -> tuple[Recipe, set[str]]:
    """The recipe, but for its length, and the keys to be chosen from the data."""
    model: dict[str, Any] = {"image_size": size, "channels": channels, "tones": 0}
    model["encoder"] = {"arch": ours.encoder}
    if ours.warp is not None:
        model["warp"] = dict(ours.warp)
    train = {"batch_size": data.batch_size, "seed": data.seed, "patience": 0}
    recipe, undecided = load_recipe("auto", None, {"start": ours.start, "model": model, "train": train})
    train_config = replace(recipe.train, augment=data.augment, epochs=ENDLESS)
    return replace(recipe, train=train_config), undecided & {"model.warp.family"}


def train(
    ours: Ours,
    data: Data,
    budget: Budget,
    out: Path,
    *,
    size: int,
    channels: int,
    device: torch.device,
    dtype: torch.dtype,
    tell: Tell,
) -> Trained:
    """Train, or go on with the training in `out`, which becomes a model folder. Raises Stopped, Diverged."""
    resume = (out / STATE).exists()
    recipe, undecided = recipe_of(ours, data, size, channels)
    recipe = choose(recipe, undecided, data.train.samples)
    if resume:
        recipe = replace(recipe, train=replace(recipe.train, **stored_length(out)))
    model, origin = prepare_model(
        recipe.model,
        data.train,
        seed=data.seed,
        augment=data.augment,
        part=recipe.train.part,
        start=recipe.start,
        resume=resume,
    )
    info = ModelInfo(out.parent.name, {"license": "not stated"}, {"start": origin})
    task = VAETask(model, recipe.train, data.train, data.val, info, out=out)
    run = TrainingRun(out, recipe.train, {}, device, dtype, workers=data.workers)
    if not resume:
        recipe = planned(recipe, task, run, budget, len(data.train))
        task.config = recipe.train
    run = replace(run, config=recipe.train)
    tell(f"{origin}; {recipe.model.warp.family} warp; planned epochs: {recipe.train.epochs}")

    def callback(event: dict[str, Any]) -> None:
        if "log" in event:
            row = event["log"]
            tell(f"epoch {row['epoch']}, {row['seconds'] / 60:.1f} min: score {row['score']:.4f}")

    counters = _counters(out, data) if resume else Trained()
    if resume:
        tell(f"goes on after {counters.steps} steps, {counters.seconds / 60:.1f} min")
    while True:
        left = SAVE_EVERY if budget.minutes is None else 60 * budget.minutes - counters.seconds
        if left <= 0 and (out / "config.json").exists():
            break
        # Without a validation so far there is no model yet: go on until there is.
        deadline = time.monotonic() + (min(left, SAVE_EVERY) if left > 0 else SAVE_EVERY)
        config = replanned(run.config, counters, budget, len(data.train))
        run = replace(run, config=config, identity={"train": to_dict(config)})
        outcome = fit(task, replace(run, resume=(out / STATE).exists(), deadline=deadline), callback=callback)
        counters = _counters(out, data)
        if outcome.signal is not None:
            raise Stopped(outcome.signal)
        if outcome.finished:
            break
    finish(out, counters)
    return counters


def planned(recipe: Recipe, task: VAETask, run: TrainingRun, budget: Budget, count: int) -> Recipe:
    """The recipe with as many epochs as the budget allows, and VALIDATIONS validations."""
    steps = max(1, count // recipe.train.batch_size)
    if budget.images is not None:
        epochs = max(1, round(budget.images / recipe.train.batch_size / steps))
        recipe = replace(recipe, train=replace(recipe.train, epochs=epochs))
        recipe = choose(recipe, {"train.lr_warmup"}, task.train.samples)
    else:
        assert budget.minutes is not None
        seconds = seconds_per_step(task, run)
        recipe = in_time(recipe, count, seconds, time.monotonic() + 60 * budget.minutes)
    every = max(1, recipe.train.epochs // VALIDATIONS)
    return replace(recipe, train=replace(recipe.train, validate_every=every))


def replanned(config: TrainConfig, took: Trained, budget: Budget, count: int) -> TrainConfig:
    """The training with as many epochs as will have fitted in a budget of minutes, at the speed so far."""
    if budget.minutes is None or not took.steps:
        return config
    steps = max(1, count // config.batch_size)
    total = END * 60 * budget.minutes / took.seconds * took.steps
    return replace(config, epochs=max(round(total / steps), took.steps // steps + 1))


def _counters(out: Path, data: Data) -> Trained:
    """What the training in `out` took so far."""
    place = json.loads(read_metadata(out / STATE)["place"])
    return Trained(place["step"], place["step"] * data.batch_size, place["seconds"])
