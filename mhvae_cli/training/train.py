"""Assemble and run a training: data folders in, a model folder out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ..checkpoints.folder import digest, load_state, read_config, rewrite_model
from ..config import CDDPMRecipe, FitConfig, Recipe, to_dict
from ..errors import InputError, UsageError
from ..hashing import sha256_of
from ..inference.audit import COMPONENT, make_index
from ..inference.loading import load_model
from ..inference.pipeline import Pipeline
from ..resources import is_rank_zero
from .automatic import describe_choices, describe_length, in_time
from .calibration import calibrate, settle_tones, write_calibration
from .cddpm_task import CDDPMTask
from .datasets import OVERSIZE, OVERSIZE_CROPPED, Images, MaskedImages, Sample, discover, split
from .loop import Callback, Outcome, fit, seconds_per_step
from .report import report, report_cddpm
from .state import TrainingRun, check_output_folder, stored_length
from .vae_task import ModelInfo, VAETask, prepare_model
from .warm_start import attribution_of, start_refiner

DEFAULT_LICENSE = "not stated: all rights reserved"


@dataclass(frozen=True)
class TrainingOptions:
    """How a training runs, apart from its recipe.

    `deadline` is the time of `time.monotonic` at which to stop; with `timed`, the number of epochs is reduced
    so that the training is complete by then. `command` is recorded in the model card.
    """

    device: torch.device
    dtype: torch.dtype
    resume: bool = False
    deadline: float | None = None
    timed: bool = False
    workers: int = 2
    offline: bool = False
    command: str = ""


@dataclass(frozen=True)
class TrainingPlan:
    """A run, and its training and validation samples."""

    run: TrainingRun
    train: list[Sample]
    val: list[Sample]

    def splits(self, prefix: str) -> str:
        """The splits as described in the model card."""
        return f"{prefix}trained on {_describe(self.train)}, validated on {_describe(self.val)}"

    def summary(self, model: torch.nn.Module) -> str:
        """The splits and the number of parameters, for the terminal."""
        count = sum(p.numel() for p in model.parameters()) / 1e6
        splits = f"training on {_describe(self.train)}, validating on {_describe(self.val)}"
        return f"{splits}; {count:.1f} M parameters"


AnyImages = TypeVar("AnyImages", bound=Images)


def gather(folders: Sequence[Path], *, masks: bool = True) -> list[Sample]:
    """The samples of data folders; with several, ids and subjects are prefixed with the folder's name.

    Raises InputError as `datasets.discover`, and UsageError for two folders of the same name.
    """
    if len(folders) == 1:
        return discover(folders[0], masks=masks)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"two data folders have the same name: {', '.join(map(str, folders))}")
    return [
        replace(sample, id=f"{name}/{sample.id}", subject=f"{name}/{sample.subject}")
        for name, folder in zip(names, folders, strict=True)
        for sample in discover(folder, masks=masks)
    ]


def hold_out(samples: Sequence[Sample], fold: int | None) -> list[Sample]:
    """The samples outside a fold of index.csv. Raises UsageError if the fold does not exist."""
    if fold is None:
        return list(samples)
    if not any(s.fold == fold for s in samples):
        raise UsageError(f"no fold {fold} in index.csv", hint="index.csv defines folds in a column fold")
    return [s for s in samples if s.fold != fold]


def train_vae(
    samples: Sequence[Sample],
    recipe: Recipe,
    options: TrainingOptions,
    out: Path,
    *,
    name: str | None = None,
    splits: str = "",
    reference: np.ndarray | None = None,
    callback: Callback,
) -> Outcome:
    """Train a VAE on `samples`, some of whose subjects are used for validation, and write it to `out`.

    `splits` precedes the description of the splits in the model card. Raises InputError (data), UsageError or
    OutputError (`out`), ModelError (the weights that it starts from) and Diverged.
    """
    if options.timed and options.resume:
        recipe = replace(recipe, train=replace(recipe.train, **stored_length(out)))
    plan = plan_vae(samples, recipe, options, out, reference=reference)
    check_output_folder(plan.run)
    size = {"image_size": recipe.model.image_size, "channels": recipe.model.channels}
    oversize = OVERSIZE_CROPPED if recipe.train.augment.crop > 0 else OVERSIZE
    train, val = _read_images(MaskedImages, plan, size, callback, oversize=oversize)
    if full := train.full_masks + val.full_masks:
        more = f" (and {len(full) - 1} more)" if len(full) > 1 else ""
        callback({"warning": f"{full[0]}{more}: the mask covers the whole image"})
    model, origin = prepare_model(
        recipe.model,
        train,
        seed=recipe.train.seed,
        augment=recipe.train.augment,
        part=recipe.train.part,
        start=recipe.start,
        resume=options.resume,
        reference=reference,
        offline=options.offline,
    )
    callback({"phase": f"{plan.summary(model)}, {origin}"})
    card = {"license": DEFAULT_LICENSE, "data": _describe_data(samples)}
    card |= attribution_of(recipe.start, offline=options.offline) | recipe.card
    training = {"command": options.command, "splits": plan.splits(splits), "start": origin}
    task = VAETask(
        model, recipe.train, train, val, ModelInfo(name or out.resolve().name, card, training), out=out
    )
    if options.timed and not options.resume:
        seconds = seconds_per_step(task, plan.run)
        recipe = in_time(recipe, len(train), seconds, options.deadline)
        plan = plan_vae(samples, recipe, options, out, reference=reference)
        task.config = recipe.train
        callback({"phase": describe_choices(recipe.model, recipe.train, len(train), seconds)})
    outcome = fit(task, plan.run, callback=callback)
    if outcome.finished and is_rank_zero():
        if recipe.train.part != "boundary":
            settle_tones(out, val)
        pipeline = load_trained(out, options)
        found = calibrate(pipeline.networks, plan.train, plan.val)
        if found is not None:
            write_calibration(out, found, images=len(plan.val))
        report(pipeline, out, plan.val, trained_on=len(plan.train), callback=callback)
    return outcome


def train_cddpm(
    model: Path,
    samples: Sequence[Sample],
    recipe: CDDPMRecipe,
    options: TrainingOptions,
    out: Path,
    *,
    name: str | None = None,
    splits: str = "",
    start: str | None = None,
    callback: Callback,
) -> Outcome:
    """Train a cDDPM for the VAE in the model folder `model`, and write both to the model folder `out`.

    Its weights start as `warm_start.start_refiner` says of `start`; `splits` as in `train_vae`. Raises
    InputError (data), UsageError or OutputError (`out`), ModelError (`model` or `start`) and Diverged.
    """
    vae, _ = load_model(model)
    content, vae_state = read_config(model), load_state(model)
    refiner, origin, measured = start_refiner(model, vae, recipe, start=start, offline=options.offline)
    if options.timed and options.resume:
        recipe = replace(recipe, train=replace(recipe.train, **stored_length(out)))
    identity = {"diffusion": to_dict(recipe.diffusion), "model": digest(model)}
    plan = _plan(samples, recipe.train, identity, options, out)
    check_output_folder(plan.run)
    side = recipe.diffusion.image_size or vae.config.image_size
    size = {"image_size": side, "channels": vae.config.channels}
    train, val = _read_images(Images, plan, size, callback)
    training = {
        "command": options.command,
        "data": _describe_data(samples),
        "splits": plan.splits(splits),
        "start": origin,
    }
    cddpm = {
        "model": to_dict(recipe.diffusion),
        "size": np.median(train.sizes, axis=0).astype(int).tolist(),
        "training": training,
    }
    card = {**content["card"], **recipe.card}
    task = CDDPMTask(
        vae,
        refiner.to(memory_format=torch.channels_last),  # type: ignore[call-overload]  # missing in the stubs
        recipe.train,
        train,
        val,
        content={**content, "name": name or out.resolve().name, "card": card, "cddpm": cddpm},
        vae_state=vae_state,
        device=options.device,
        dtype=options.dtype,
        out=out,
    )
    if not measured:
        callback({"phase": "measuring the training images"})
        task.find_frames()
        if not options.resume:
            task.measure()
    callback({"phase": f"{plan.summary(refiner)}, {origin}"})
    if options.timed and not options.resume:
        seconds = seconds_per_step(task, plan.run)
        task.config = in_time(recipe, len(train), seconds, options.deadline).train
        plan = _plan(samples, task.config, identity, options, out)
        callback({"phase": describe_length(task.config, len(train), seconds)})
    outcome = fit(task, plan.run, callback=callback)
    if outcome.finished and is_rank_zero():
        report_cddpm(out, callback)
        if vae.warp is not None:
            networks = load_trained(out, options).networks
            paths = ([sample.image for sample in part] for part in (plan.train, plan.val))
            rewrite_model(out, states={COMPONENT: make_index(networks, *paths)})
    return outcome


def plan_vae(
    samples: Sequence[Sample],
    recipe: Recipe,
    options: TrainingOptions,
    out: Path,
    *,
    reference: np.ndarray | None = None,
) -> TrainingPlan:
    """The run of `train_vae`, and its training and validation samples. Raises InputError and UsageError."""
    identity = {
        "model": to_dict(recipe.model),
        "start": recipe.start,
        "reference": None if reference is None else _digest(f"{reference.shape}{reference.tobytes().hex()}"),
    }
    return _plan(samples, recipe.train, identity, options, out)


def load_trained(model: Path, options: TrainingOptions) -> Pipeline:
    """A pipeline with the device and dtype of the training."""
    return Pipeline.load(model, device=str(options.device), dtype=str(options.dtype).removeprefix("torch."))


def _plan(
    samples: Sequence[Sample],
    config: FitConfig,
    identity: Mapping[str, Any],
    options: TrainingOptions,
    out: Path,
) -> TrainingPlan:
    """Split the samples; complete the run's identity with its training configuration and its data."""
    if len({s.subject for s in samples}) < 2:
        hint = "training needs two or more: some are used for validation"
        raise InputError(f"too few subjects: {_describe(samples)}", hint=hint)
    train, val = split(samples, fraction=config.val_fraction, seed=config.seed)
    identity = {**identity, "train": to_dict(config), "data": _ids(samples), "validation": _ids(val)}
    run = TrainingRun(
        out,
        config,
        identity,
        options.device,
        options.dtype,
        resume=options.resume,
        deadline=options.deadline,
        workers=options.workers,
    )
    return TrainingPlan(run, train, val)


def _read_images(
    kind: type[AnyImages],
    plan: TrainingPlan,
    size: Mapping[str, int],
    callback: Callback,
    *,
    oversize: float = OVERSIZE,
) -> tuple[AnyImages, AnyImages]:
    """The training and the validation images."""
    callback({"phase": f"reading {len(plan.train) + len(plan.val)} images"})
    workers = max(1, plan.run.workers)
    train, val = (kind(part, **size, oversize=oversize, workers=workers) for part in (plan.train, plan.val))
    return train, val


def _ids(samples: Sequence[Sample]) -> str:
    return _digest("\n".join(sorted(s.id for s in samples)))


def _digest(text: str) -> str:
    return sha256_of(text.encode())[:16]


def _describe(samples: Sequence[Sample]) -> str:
    images, subjects = len(samples), len({s.subject for s in samples})
    return f"{images} image{'s' * (images != 1)} of {subjects} subject{'s' * (subjects != 1)}"


def _describe_data(samples: Sequence[Sample]) -> str:
    folders = sorted({sample.image.resolve().parents[1].name for sample in samples})
    return f"{_describe(samples)} from {', '.join(folders)}"
