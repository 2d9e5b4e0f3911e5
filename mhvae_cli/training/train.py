"""Set up a training, for train-vae, train-cddpm and cross-validate: folders in, a model folder out."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.folder import digest, load_state, read_config
from ..config import CDDPMRecipe, FitConfig, Recipe, to_dict
from ..diffusion.refiner import Refiner
from ..errors import InputError, UsageError
from ..hashing import sha256_of
from ..images.read import read_scan
from ..inference.loading import load_model, load_refiner
from ..inference.pipeline import Pipeline
from .calibration import calibrate, write_statistics
from .cddpm_task import CDDPMTask
from .datasets import FINER, OVERSIZE, Images, MaskedImages, Sample, discover, split
from .loop import Outcome, Say, fit
from .state import TrainingRun, check_out
from .vae_task import ModelInfo, VAETask, prepare_model

UNLICENSED = "not stated: all rights reserved"
PEEK = 32
"""The number of images that are checked for colour."""


@dataclass(frozen=True)
class TrainingOptions:
    """How a training runs, beside what it trains: see the options of `train-vae`. `deadline` is a time of
    `time.monotonic`."""

    device: torch.device
    dtype: torch.dtype
    resume: bool = False
    deadline: float | None = None
    workers: int = 2
    offline: bool = False
    command: str = ""


def gather(folders: Sequence[Path], *, masks: bool = True) -> list[Sample]:
    """The samples of one folder, or of several, whose ids and subjects then begin with the folder's name."""
    if len(folders) == 1:
        return discover(folders[0], masks=masks)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"two data folders of one name: {', '.join(map(str, folders))}")
    return [
        replace(sample, id=f"{name}/{sample.id}", subject=f"{name}/{sample.subject}")
        for name, folder in zip(names, folders, strict=True)
        for sample in discover(folder, masks=masks)
    ]


def hold_out(samples: Sequence[Sample], fold: int | None) -> list[Sample]:
    """The samples outside `fold` of index.csv. UsageError if there is no such fold."""
    if fold is None:
        return list(samples)
    if not any(s.fold == fold for s in samples):
        raise UsageError(f"no fold {fold} in index.csv", hint="index.csv needs a column fold")
    return [s for s in samples if s.fold != fold]


def with_channels(recipe: Recipe, given: set[str], samples: Sequence[Sample]) -> Recipe:
    """The recipe with as many channels as the samples have, unless `given` says that they were set."""
    if "channels" in given:
        return recipe
    return replace(recipe, model=replace(recipe.model, channels=channels_of(samples)))


def channels_of(samples: Sequence[Sample]) -> int:
    """1 if the first images are all grey (or RGB with equal channels), else 3."""
    for sample in samples[:PEEK]:
        pixels = read_scan(sample.image).pixels
        if pixels.ndim == 3 and (pixels != pixels[..., :1]).any():
            return 3
    return 1


def train_vae(
    samples: Sequence[Sample],
    recipe: Recipe,
    work: TrainingOptions,
    out: Path,
    *,
    name: str | None = None,
    splits: str = "",
    reference: np.ndarray | None = None,
    say: Say,
) -> Outcome:
    """Train on `samples`, choosing on a validation part of their subjects; `out` ends as a model folder.

    Raises InputError (data), UsageError or OutputError (`out`), ModelError (pretrained), Diverged.
    """
    run, train, val = plan_run(samples, recipe, work, out, reference)
    check_out(run)
    size = {"image_size": recipe.model.image_size, "channels": recipe.model.channels}
    oversize = FINER if recipe.train.augment.crop > 0 else OVERSIZE
    say({"phase": f"reading {len(samples)} images"})
    images, held = (
        MaskedImages(part, **size, oversize=oversize, workers=max(1, work.workers)) for part in (train, val)
    )
    model = prepare_model(
        recipe.model,
        images,
        seed=recipe.train.seed,
        part=recipe.train.part,
        pretrained=None if work.resume else recipe.pretrained,
        reference=reference,
        offline=work.offline,
    )
    about = ModelInfo(
        name or out.resolve().name,
        {"license": UNLICENSED, "data": _data(samples), **recipe.card},
        {
            "command": work.command,
            "splits": f"{splits}trained on {_count(train)}, chosen on {_count(val)}",
            "pretrained": _origin(recipe.pretrained),
            **to_dict(recipe.train),
        },
    )
    parts = f"{_count(train)} to train on, {_count(val)} to choose on"
    say({"phase": f"{parts}; {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"})
    outcome = fit(VAETask(model, recipe.train, images, held, about, out=out), run, say=say)
    if outcome.finished and os.environ.get("RANK", "0") == "0":
        _calibrate(out, train, val, work)
    return outcome


def _calibrate(model: Path, train: Sequence[Sample], val: Sequence[Sample], work: TrainingOptions) -> None:
    trust = calibrate(load_trained(model, work).networks, train, val)
    if trust is not None:
        write_statistics(model, trust, images=len(val))


def train_cddpm(
    model: Path,
    samples: Sequence[Sample],
    recipe: CDDPMRecipe,
    work: TrainingOptions,
    out: Path,
    *,
    name: str | None = None,
    splits: str = "",
    say: Say,
) -> Outcome:
    """Train a cDDPM for the VAE of the folder `model`, which stays as it is; `out` ends as a model folder.

    A cDDPM of the same configuration that is in `model` already is trained on, its scale and density kept.
    Raises InputError (data), UsageError or OutputError (`out`), ModelError (`model`), Diverged.
    """
    vae, _ = load_model(model)
    content, state = read_config(model), load_state(model)
    config = vae.config
    old = content.get("cddpm", {}).get("model", {}) | {"strength": recipe.diffusion.strength}
    known = old == to_dict(recipe.diffusion)
    if known:
        refiner = load_refiner(model)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.train.seed)
            refiner = Refiner(recipe.diffusion, channels=config.channels, codes=config.z_dim + vae.theta_dim)
    train, val = _parts(samples, recipe.train)
    identity = {
        "diffusion": to_dict(recipe.diffusion),
        "train": to_dict(recipe.train),
        "model": digest(model),
        "data": _ids(samples),
        "validation": _ids(val),
    }
    run = TrainingRun(
        out, recipe.train, identity, work.device, work.dtype, work.resume, work.deadline, work.workers
    )
    check_out(run)
    say({"phase": f"reading {len(samples)} images"})
    size = {"image_size": config.image_size, "channels": config.channels}
    images, held = (Images(part, **size, workers=max(1, work.workers)) for part in (train, val))
    about = {
        "model": to_dict(recipe.diffusion),
        "size": np.median(images.sizes, axis=0).astype(int).tolist(),
        "training": {
            "command": work.command,
            "data": _data(samples),
            "splits": f"{splits}trained on {_count(train)}, chosen on {_count(val)}",
            **to_dict(recipe.train),
        },
    }
    card = {**content["card"], **recipe.card}
    content = {**content, "name": name or out.resolve().name, "card": card, "cddpm": about}
    task = CDDPMTask(
        vae,
        refiner.to(memory_format=torch.channels_last),  # type: ignore[call-overload]  # torch forgot it
        recipe.train,
        images,
        held,
        content=content,
        vae_state=state,
        device=work.device,
        out=out,
    )
    if not work.resume and not known:
        task.measure()
    parts = f"{_count(train)} to train on, {_count(val)} to choose on"
    begun = "from the model's cDDPM on" if known else "from scratch"
    weight = f"{sum(p.numel() for p in refiner.parameters()) / 1e6:.1f} M parameters"
    say({"phase": f"{parts}; {weight}, {begun}"})
    return fit(task, run, say=say)


def plan_run(
    samples: Sequence[Sample], recipe: Recipe, work: TrainingOptions, out: Path, reference: np.ndarray | None
) -> tuple[TrainingRun, list[Sample], list[Sample]]:
    """The run, the samples to train on, and those to choose on."""
    train, val = _parts(samples, recipe.train)
    identity = {
        "model": to_dict(recipe.model),
        "train": to_dict(recipe.train),
        "pretrained": recipe.pretrained,
        "reference": None if reference is None else _digest(f"{reference.shape}{reference.tobytes().hex()}"),
        "data": _ids(samples),
        "validation": _ids(val),
    }
    run = TrainingRun(
        out, recipe.train, identity, work.device, work.dtype, work.resume, work.deadline, work.workers
    )
    return run, train, val


def _parts(samples: Sequence[Sample], config: FitConfig) -> tuple[list[Sample], list[Sample]]:
    """The samples to train on, and those to choose on."""
    if len({s.subject for s in samples}) < 2:
        raise InputError(
            f"{_count(samples)} are too few to train on", hint="some are kept to choose the model on"
        )
    train, val = split(samples, fraction=config.val_fraction, seed=config.seed)
    if not train:
        raise UsageError(f"train.val_fraction = {config.val_fraction} leaves nothing to train on")
    return train, val


def _ids(samples: Sequence[Sample]) -> str:
    return _digest("\n".join(sorted(s.id for s in samples)))


def _digest(text: str) -> str:
    return sha256_of(text.encode())[:16]


def _data(samples: Sequence[Sample]) -> str:
    folders = sorted({sample.image.resolve().parents[1].name for sample in samples})
    return f"{_count(samples)} from {', '.join(folders)}"


def _origin(pretrained: str | None) -> str:
    """What the model card says of it: a path's last name only."""
    if pretrained is None:
        return "none"
    path = Path(pretrained).expanduser()
    return path.resolve().name if path.exists() else pretrained


def _count(samples: Sequence[Sample]) -> str:
    return f"{len(samples)} images of {len({s.subject for s in samples})} subjects"


def load_trained(model: Path, work: TrainingOptions) -> Pipeline:
    return Pipeline.load(model, device=str(work.device), dtype=str(work.dtype).removeprefix("torch."))
