"""Train on all folds but one and test on that one, in turn (table 1)."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ..config import Recipe
from ..errors import UsageError
from ..evaluation.metrics import Profile
from ..evaluation.scoring import Pair, Row, score
from ..filesystem import write_atomic
from ..images.encode import encode_png
from ..images.read import read_scan
from ..images.scan import stored
from .datasets import Sample, discover, folds_of
from .loop import Outcome, Say
from .state import STATE, check_out
from .train import TrainingOptions, load_trained, plan_run, train_vae


def cross_validate(
    folder: Path,
    recipe: Recipe,
    work: TrainingOptions,
    out: Path,
    *,
    count: int,
    only: Sequence[int] | None,
    profile: Profile,
    say: Say,
) -> Iterator[tuple[int, list[Row] | Outcome]]:
    """Train without each fold, segment it, and yield its number and scores; an Outcome last if stopped.

    Fold K's run is `out`/foldK, its masks, at their native size, `out`/foldK-masks. What is done is not done
    again, what was cut is resumed; runs of another recipe or other data are refused before any work
    (OutputError). Table 1, but each model is chosen on a part of its training folds.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("cross-validate runs in one process", hint="share the folds out with --only")
    folds = folds_of(discover(folder), count, recipe.train.seed)
    wrong = [k for k in only or () if not 0 <= k < count]
    if wrong:
        raise UsageError(f"no fold {wrong[0]} among {count}", hint="folds count from 0")
    chosen = sorted(set(only or range(count)))
    works = {k: replace(work, resume=(out / f"fold{k}" / STATE).exists()) for k in chosen}
    rests = {k: [sample for part in folds[:k] + folds[k + 1 :] for sample in part] for k in chosen}
    for k in chosen:
        check_out(plan_run(rests[k], recipe, works[k], out / f"fold{k}", None)[0])
    begun = False
    for k in chosen:
        masks = out / f"fold{k}-masks"
        if not works[k].resume or any(not _mask_path(masks, sample).exists() for sample in folds[k]):
            if begun and work.deadline is not None and time.monotonic() >= work.deadline:
                yield k, Outcome(False, 0)
                return
            begun = True
            say({"phase": f"fold {k}"})
            held = f"fold {k} of {count} held out; "
            outcome = train_vae(rests[k], recipe, works[k], out / f"fold{k}", splits=held, say=say)
            if not outcome.finished:
                yield k, outcome
                return
            _segment(out / f"fold{k}", folds[k], masks, work)
        pairs = []
        for s in folds[k]:
            assert s.mask is not None
            pairs.append(Pair(s.id, s.mask, _mask_path(masks, s)))
        yield k, [score(pair, profile=profile) for pair in pairs]


def _segment(model: Path, samples: Sequence[Sample], out: Path, work: TrainingOptions) -> None:
    pipeline = load_trained(model, work)
    for sample in samples:
        scan = read_scan(sample.image)
        mask = stored(pipeline.segment(scan).mask, scan.orientation)
        write_atomic(_mask_path(out, sample), encode_png(mask))


def _mask_path(folder: Path, sample: Sample) -> Path:
    return folder / f"{sample.id}.png"
