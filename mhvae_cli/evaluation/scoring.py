"""Section 5.1: the tables. Folders of masks in pairs, one row per image, summaries, paired tests, folds.

Needs no torch. Distances are in pixels of the profile's image, and in mm if the spacing is known.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, input_error, os_error_text
from ..images.read import SUFFIXES, read_mask
from ..images.scan import Spacing
from ..images.spacing import stem_key
from .metrics import Profile, Scores, measure

RATIOS = ("dice", "iou", "thresholded_jaccard")
METRICS = (*RATIOS, "hausdorff", "hd95", "assd", "hausdorff_mm", "hd95_mm", "assd_mm")


@dataclass(frozen=True)
class Pair:
    """A true mask and its prediction, None if there is none. `id` is the truth's stem."""

    id: str
    truth: Path
    pred: Path | None


@dataclass(frozen=True)
class Pairing:
    """`pairs`, one per truth, sorted by name, and the predictions that have no truth."""

    pairs: tuple[Pair, ...]
    unmatched: tuple[Path, ...]


@dataclass(frozen=True)
class Row:
    """One image: its scores, or the `error` that prevented them. `missing`: it had no prediction."""

    id: str
    scores: Scores | None = None
    missing: bool = False
    error: str | None = None

    @property
    def values(self) -> dict[str, float]:
        """The scores by their names in METRICS: no `_mm` without a spacing, none for a failed row."""
        if self.scores is None:
            return {}
        found = {name: getattr(self.scores, name) for name in RATIOS}
        for distances, unit in ((self.scores.px, ""), (self.scores.mm, "_mm")):
            if distances is not None:
                found |= {name + unit: value for name, value in vars(distances).items()}
        return found


@dataclass(frozen=True)
class Counts:
    """Numbers of images by outcome. Missing predictions and empty masks are included in `scored`."""

    images: int
    scored: int
    failed: int
    missing_predictions: int
    empty_predictions: int
    empty_truths: int


@dataclass(frozen=True)
class Spread:
    """`n` values: mean, population standard deviation, median."""

    n: int
    mean: float
    sd: float
    median: float


@dataclass(frozen=True)
class Difference:
    """Paired over `n` images: both means, the mean of (pred - other), its 95 % interval, Wilcoxon's p."""

    n: int
    mean: float
    other: float
    difference: float
    low: float
    high: float
    p: float


def pair(preds: Path, truths: Path) -> Pairing:
    """Pair the masks of two folders by stem, ignoring case and suffix.

    InputError if a folder is missing or has no masks, if two masks of one folder share a stem, or if there
    are no pairs.
    """
    found, wanted = _masks(preds), _masks(truths)
    if not found.keys() & wanted.keys():
        raise InputError(
            f"{preds}: no mask shares a name with one in {truths}",
            hint=f"masks are paired by stem: {_first(found)} and {_first(wanted)} differ",
        )
    pairs = tuple(Pair(wanted[key].stem, wanted[key], found.get(key)) for key in sorted(wanted))
    return Pairing(pairs, tuple(found[key] for key in sorted(found.keys() - wanted.keys())))


def score(pair: Pair, *, profile: Profile = "native", spacing: Spacing | None = None) -> Row:
    """Measure one pair; `spacing` is that of the stored pixels.

    A missing prediction is scored as a missed object; a mask that cannot be used makes a failed row.
    """
    try:
        truth = read_mask(pair.truth)
        pred = None if pair.pred is None else read_mask(pair.pred)
        if pred is not None and pred.shape != truth.shape:
            (height, width), (true_height, true_width) = pred.shape, truth.shape
            sizes = f"{width} x {height} pixels, but the truth has {true_width} x {true_height}"
            raise InputError(f"{pair.pred}: {sizes}")
        return Row(pair.id, measure(pred, truth, profile=profile, spacing=spacing), missing=pred is None)
    except Exception as error:
        return Row(pair.id, error=str(input_error(error, str(pair.truth))))


def count(rows: Sequence[Row]) -> Counts:
    """Count the images of `rows` by outcome."""
    scored = [row for row in rows if row.scores is not None]
    return Counts(
        images=len(rows),
        scored=len(scored),
        failed=len(rows) - len(scored),
        missing_predictions=sum(row.missing for row in scored),
        empty_predictions=sum(row.scores.pred_empty for row in scored if row.scores),
        empty_truths=sum(row.scores.truth_empty for row in scored if row.scores),
    )


def summarise(rows: Sequence[Row]) -> dict[str, Spread]:
    """The spread over images of each metric that any row has; the `_mm` ones over the rows that have them."""
    return _spreads([row.values for row in rows])


def over_folds(folds: Sequence[Sequence[Row]]) -> dict[str, Spread]:
    """The tables' mean +- sd: the spread (population sd) of the means of each fold's rows."""
    return _spreads([{name: spread.mean for name, spread in summarise(rows).items()} for rows in folds])


def compare(
    rows: Sequence[Row], others: Sequence[Row], *, rng: np.random.Generator, resamples: int = 10_000
) -> dict[str, Difference]:
    """Compare `rows` with `others` on the images scored in both, by metric: {} if there are none.

    The interval is a percentile bootstrap over images, drawn from `rng`. p is that of the two-sided Wilcoxon
    signed-rank test without zero differences; 1 if all are zero.
    """
    theirs = {row.id: row.values for row in others}
    both = [(row.values, theirs.get(row.id, {})) for row in rows]
    compared = {}
    for name in METRICS:
        found = [(mine[name], other[name]) for mine, other in both if name in mine and name in other]
        if found:
            compared[name] = _difference(np.array(found), rng, resamples)
    return compared


def _masks(folder: Path) -> dict[str, Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: {os_error_text(error)}") from error
    masks: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        twin = masks.setdefault(stem_key(path.name), path)
        if twin is not path:
            raise InputError(
                f"{folder}: {twin.name} and {path.name} have the same name",
                hint="masks are paired by stem, ignoring case: keep one of the two",
            )
    if not masks:
        raise InputError(f"{folder}: no masks", hint=f"supported suffixes: {', '.join(sorted(SUFFIXES))}")
    return masks


def _first(masks: Mapping[str, Path]) -> str:
    return next(iter(masks.values())).name


def _spreads(rows: Iterable[Mapping[str, float]]) -> dict[str, Spread]:
    rows = list(rows)
    columns = {name: [row[name] for row in rows if name in row] for name in METRICS}
    return {
        name: Spread(len(values), float(np.mean(values)), float(np.std(values)), float(np.median(values)))
        for name, values in columns.items()
        if values
    }


def _difference(values: np.ndarray, rng: np.random.Generator, resamples: int) -> Difference:
    """`values` (n, 2): one metric of each image in both sets."""
    from scipy.stats import wilcoxon  # takes a second to import, and only comparisons need it

    change = values[:, 0] - values[:, 1]
    n = len(change)
    means = [change[rng.integers(n, size=n)].mean() for _ in range(resamples)]
    low, high = np.percentile(means, (2.5, 97.5))
    p = wilcoxon(change).pvalue if change.any() else 1.0
    mine, other = values.mean(axis=0)
    return Difference(n, float(mine), float(other), float(change.mean()), float(low), float(high), float(p))
