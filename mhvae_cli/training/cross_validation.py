"""k-fold cross-validation: train on all folds but one, test on that fold (table 1)."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
from .loop import Callback, Outcome
from .state import STATE, check_output_folder
from .train import TrainingOptions, load_trained, plan_vae, train_vae


@dataclass(frozen=True)
class _Fold:
    """A fold: its training and test samples, and where its model and its predicted masks are written."""

    number: int
    train: list[Sample]
    test: list[Sample]
    options: TrainingOptions
    model: Path
    masks: Path

    def is_done(self) -> bool:
        """Whether the model is trained and all predicted masks are written."""
        return self.options.resume and all(self.mask_path(sample).exists() for sample in self.test)

    def mask_path(self, sample: Sample) -> Path:
        return self.masks / f"{sample.id}.png"


def cross_validate(
    folder: Path,
    recipe: Recipe,
    options: TrainingOptions,
    out: Path,
    *,
    count: int,
    only: Sequence[int] | None,
    profile: Profile,
    callback: Callback,
) -> Iterator[tuple[int, list[Row] | Outcome]]:
    """For each fold train on the others, segment its images, and yield its number and scores.

    The run of fold K is in `out`/foldK, its masks, at their original size, in `out`/foldK-masks. Completed
    folds are kept and interrupted runs resumed. If training stops, the last item is an Outcome. As in table
    1, except that the best epoch is chosen on a part of the training folds. Raises UsageError for invalid
    folds, and OutputError, before any training, if the settings or data of a run have changed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError(
            "cross-validate runs in a single process", hint="distribute the folds over processes with --only"
        )
    folds = _select_folds(folder, recipe, options, out, count, only)
    for fold in folds:
        check_output_folder(plan_vae(fold.train, recipe, fold.options, fold.model).run)
    started = False
    for fold in folds:
        if not fold.is_done():
            if started and options.deadline is not None and time.monotonic() >= options.deadline:
                yield fold.number, Outcome(False, 0)
                return
            started = True
            callback({"phase": f"fold {fold.number}"})
            splits = f"fold {fold.number} of {count} held out; "
            outcome = train_vae(
                fold.train, recipe, fold.options, fold.model, splits=splits, callback=callback
            )
            if not outcome.finished:
                yield fold.number, outcome
                return
            _segment(fold)
        yield fold.number, _score(fold, profile)


def _select_folds(
    folder: Path,
    recipe: Recipe,
    options: TrainingOptions,
    out: Path,
    count: int,
    only: Sequence[int] | None,
) -> list[_Fold]:
    """The folds to run, in order; a fold with a training state is resumed."""
    folds = folds_of(discover(folder), count, recipe.train.seed)
    if invalid := [k for k in only or () if not 0 <= k < count]:
        raise UsageError(f"no fold {invalid[0]} of {count}", hint="folds are numbered from 0")
    selected = []
    for k in sorted(set(only or range(count))):
        train = [sample for other in folds[:k] + folds[k + 1 :] for sample in other]
        own = replace(options, resume=(out / f"fold{k}" / STATE).exists())
        selected.append(_Fold(k, train, folds[k], own, out / f"fold{k}", out / f"fold{k}-masks"))
    return selected


def _segment(fold: _Fold) -> None:
    """Write the predicted masks of a fold, in the orientation of the stored images."""
    pipeline = load_trained(fold.model, fold.options)
    for sample in fold.test:
        scan = read_scan(sample.image)
        mask = stored(pipeline.segment(scan).mask, scan.orientation)
        write_atomic(fold.mask_path(sample), encode_png(mask))


def _score(fold: _Fold, profile: Profile) -> list[Row]:
    pairs = []
    for sample in fold.test:
        assert sample.mask is not None
        pairs.append(Pair(sample.id, sample.mask, fold.mask_path(sample)))
    return [score(pair, profile=profile) for pair in pairs]
