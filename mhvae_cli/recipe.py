"""A training of the VAE put together: folders in, a model folder out. `train-vae` and `cross-validate` call it."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .config import Recipe, to_dict
from .datasets import MaskedImages, Sample, discover, folds_of, split
from .errors import InputError, UsageError
from .evaluation import Pair, Row, score
from .imaging import encode_png, read_scan, stored, write_atomic
from .metrics import Profile
from .pipeline import Pipeline
from .training import STATE, Outcome, Run, check_out, fit
from .vae_training import About, VAETask, prepare_model

UNLICENSED = "not stated: all rights reserved"
PEEK = 32
"""Images looked at to tell grey from colour."""


@dataclass(frozen=True)
class Work:
    """How a training runs, beside what it trains: see the options of `train-vae`."""

    device: torch.device
    dtype: torch.dtype
    resume: bool = False
    max_time: float | None = None
    workers: int = 2
    offline: bool = False
    command: str = ""


def gather(folders: Sequence[Path]) -> list[Sample]:
    """The samples of one folder, or of several, whose ids and subjects then begin with the folder's name."""
    if len(folders) == 1:
        return discover(folders[0])
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        raise UsageError(f"two data folders of one name: {', '.join(map(str, folders))}")
    return [
        replace(sample, id=f"{name}/{sample.id}", subject=f"{name}/{sample.subject}")
        for name, folder in zip(names, folders, strict=True)
        for sample in discover(folder)
    ]


def hold_out(samples: Sequence[Sample], fold: int | None) -> list[Sample]:
    """The samples outside `fold` of index.csv. UsageError if there is no such fold."""
    if fold is None:
        return list(samples)
    if not any(s.fold == fold for s in samples):
        raise UsageError(f"no fold {fold} in index.csv", hint="index.csv needs a column fold")
    return [s for s in samples if s.fold != fold]


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
    work: Work,
    out: Path,
    *,
    name: str | None = None,
    splits: str = "",
    reference: np.ndarray | None = None,
    say: Callable[[dict[str, Any]], None],
) -> Outcome:
    """Train on `samples`, choosing on a validation part of their subjects; `out` ends as a model folder.

    Raises InputError (data), UsageError or OutputError (`out`), ModelError (pretrained), Diverged.
    """
    if len(samples) < 2:
        raise InputError(f"{len(samples)} images are too few to train on")
    train, val = split(samples, fraction=recipe.train.val_fraction, seed=recipe.train.seed)
    ids = "\n".join(sorted(s.id for s in samples))
    identity = {
        **{key: to_dict(value) for key, value in (("model", recipe.model), ("train", recipe.train))},
        "pretrained": recipe.pretrained,
        "data": hashlib.sha256(ids.encode()).hexdigest()[:16],
    }
    run = Run(out, recipe.train, identity, work.device, work.dtype, work.resume, work.max_time, work.workers)
    check_out(run)
    size = {"image_size": recipe.model.image_size, "channels": recipe.model.channels, "workers": work.workers}
    say({"phase": f"reading {len(samples)} images"})
    images, held = MaskedImages(train, **size), MaskedImages(val, **size)
    model = prepare_model(
        recipe.model,
        images,
        seed=recipe.train.seed,
        pretrained=None if work.resume else recipe.pretrained,
        reference=reference,
        offline=work.offline,
    )
    about = About(
        name or out.resolve().name,
        {"license": UNLICENSED, **recipe.card},
        {
            "command": work.command,
            "splits": f"{splits}trained on {_count(train)}, chosen on {_count(val)}",
            "pretrained": recipe.pretrained or "none",
            **to_dict(recipe.train),
        },
    )
    parts = f"{_count(train)} to train on, {_count(val)} to choose on"
    say({"phase": f"{parts}; {sum(p.numel() for p in model.parameters()) / 1e6:.1f} M parameters"})
    return fit(VAETask(model, recipe.train, images, held, about, out=out), run, say=say)


def _count(samples: Sequence[Sample]) -> str:
    return f"{len(samples)} images of {len({s.subject for s in samples})} subjects"


def cross_validate(
    folder: Path,
    recipe: Recipe,
    work: Work,
    out: Path,
    *,
    count: int,
    only: Sequence[int] | None,
    profile: Profile,
    say: Callable[[dict[str, Any]], None],
) -> Iterator[tuple[int, list[Row] | Outcome]]:
    """Train without each fold, segment it, and yield its number and scores; an Outcome last if stopped.

    Fold K's run is `out`/foldK, its masks, at their native size, `out`/foldK-masks. What is done is not done
    again, what was cut is resumed. Table 1, but each model is chosen on a part of its training folds.
    """
    folds = folds_of(discover(folder), count, recipe.train.seed)
    wrong = [k for k in only or () if k >= count]
    if wrong:
        raise UsageError(f"no fold {wrong[0]} among {count}", hint="folds count from 0")
    for k in sorted(only or range(count)):
        rest = [sample for other in folds[:k] + folds[k + 1 :] for sample in other]
        run, masks = out / f"fold{k}", out / f"fold{k}-masks"
        if any(not _mask_path(masks, sample).exists() for sample in folds[k]):
            say({"phase": f"fold {k}"})
            cut = replace(work, resume=(run / STATE).exists())
            outcome = train_vae(rest, recipe, cut, run, splits=f"fold {k} of {count} held out; ", say=say)
            if not outcome.finished:
                yield k, outcome
                return
            _segment(run, folds[k], masks, work)
        pairs = [Pair(s.id, s.mask, _mask_path(masks, s)) for s in folds[k]]
        yield k, [score(pair, profile=profile) for pair in pairs]


def _segment(model: Path, samples: Sequence[Sample], out: Path, work: Work) -> None:
    pipeline = Pipeline.load(model, device=str(work.device), dtype=str(work.dtype).removeprefix("torch."))
    for sample in samples:
        scan = read_scan(sample.image)
        mask = stored(pipeline.segment(scan).mask, scan.orientation)
        write_atomic(_mask_path(out, sample), encode_png(mask))


def _mask_path(folder: Path, sample: Sample) -> Path:
    return folder / f"{sample.id}.png"
