"""Fit an `ErrorModel` (`inference.certainty`) to the results of validation images.

Cross-conformal prediction (Vovk 2015): each image's error is compared with the size predicted for it by a fit
to the other folds, and the quantile of these ratios widens the fit to all images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..inference.certainty import Certainty, ErrorFit, ErrorModel, Evidence

COVERAGE = 0.9
FOLDS = 10
FEATURE_PENALTIES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
DICE_PENALTIES = (0.3, 1.0, *FEATURE_PENALTIES)
"""Ridge penalties to choose from, by leave-one-out error. The encoder's features share one more."""
FLOORS = (0.1, 0.25, 1.0)
"""Floors of an error's size to choose from, as multiples of the median: near 0, logarithms are noise."""
OWN = 4
"""The number of inputs that are not features; that of a boundary head is one more."""
EXPLAINED = 0.99
"""The share of the variance of theta's errors that is kept."""
BLOCKS = 12
"""Largest number of entries of the table of the expected Dice."""


@dataclass(frozen=True)
class Outcome:
    """A validation image: the `evidence` of its result, the `errors` of its measures (NaN: not measured), its
    `dice`, and the error of theta (P,), NaN if not known."""

    evidence: Evidence
    errors: dict[str, float]
    dice: float
    theta: np.ndarray


def fit_errors(outcomes: Sequence[Outcome], *, least: int, own: int = OWN) -> ErrorModel | None:
    """The error model of validation images; measures with fewer than `least` errors are left out.

    None if the area is one of them. The first `own` inputs are not features.
    """
    inputs = np.stack([each.evidence.inputs for each in outcomes])
    known = np.isfinite(inputs)
    count = known.sum(0).clip(1)
    centre = np.where(known, inputs, 0.0).sum(0) / count
    spread = np.sqrt((np.where(known, inputs - centre, 0.0) ** 2).sum(0) / count)
    scale = np.maximum(spread, 1e-6 + 1e-3 * np.abs(centre))
    empty = np.zeros((0, 0))
    model = ErrorModel(centre, scale, {}, np.zeros(inputs.shape[1] + 1), np.zeros((2, 1)), empty)
    x = model.standardise(inputs)
    gaps = np.nan_to_num([each.evidence.gap for each in outcomes])
    measures = {}
    for name in outcomes[0].errors:
        errors = np.array([each.errors[name] for each in outcomes])
        there = np.isfinite(errors)
        if there.sum() >= least:
            measures[name] = fit_measure(x[there], gaps[there], errors[there], own)
    if "area" not in measures:
        return None
    weights, table = fit_dice(x, np.array([each.dice for each in outcomes]), own)
    model = ErrorModel(centre, scale, measures, weights, table, np.zeros((len(outcomes[0].theta), 0)))
    sizes = [model.assess(each.evidence) for each in outcomes]
    factor = fit_factor(np.stack([each.theta for each in outcomes]), sizes)
    return ErrorModel(centre, scale, measures, weights, table, factor)


def fit_measure(x: np.ndarray, gaps: np.ndarray, errors: np.ndarray, own: int = OWN) -> ErrorFit:
    """The fit to errors (N,) of standardised inputs (N, 1 + D) and gaps (N,) with the narrowest intervals.

    Those of the candidates are compared at the coverage that each is calibrated to, out of fold.
    """
    folds = np.random.default_rng(0).permutation(len(errors)) % FOLDS
    best: tuple[float, ErrorFit] | None = None
    for follow in (False, True):
        for floor in FLOORS:
            sizes, ratios = np.zeros((2, len(errors)))
            for fold in range(FOLDS):
                rest, out = folds != fold, folds == fold
                mean, weights = _fit(x[rest], gaps[rest], errors[rest], own, follow=follow, floor=floor)
                sizes[out] = np.exp(x[out] @ weights)
                ratios[out] = np.abs(errors[out] - mean[0] - mean[1] * gaps[out]) / sizes[out]
            widen = conformal_quantile(ratios)
            width = float(np.mean(np.sinh(np.minimum(sizes * widen, 5))))
            if best is None or width < best[0]:
                mean, weights = _fit(x, gaps, errors, own, follow=follow, floor=floor)
                weights[0] += np.log(max(widen, 1e-9))
                best = width, ErrorFit(mean, weights)
    assert best is not None
    return best[1]


def conformal_quantile(ratios: np.ndarray, coverage: float = COVERAGE) -> float:
    """The value that at least a fraction `coverage` of exchangeable new ratios does not exceed.

    The ceil((n + 1) coverage)-th smallest; the largest if there are too few.
    """
    rank = int(np.ceil((len(ratios) + 1) * coverage))
    return float(np.sort(ratios)[min(rank, len(ratios)) - 1])


def fit_dice(x: np.ndarray, dice: np.ndarray, own: int = OWN) -> tuple[np.ndarray, np.ndarray]:
    """Weights (1 + D,) of a score for the Dice (N,), and the table of the Dice to expect by score, (2, K).

    The table is an isotonic regression on scores predicted out of fold.
    """
    bounded = dice.clip(0.02, 0.995)
    goal = np.log(bounded / (1 - bounded))
    folds = np.random.default_rng(0).permutation(len(dice)) % FOLDS
    scores = np.zeros(len(dice))
    for fold in range(FOLDS):
        out = folds == fold
        scores[out] = x[out] @ ridge(x[~out], goal[~out], DICE_PENALTIES, own)
    return ridge(x, goal, DICE_PENALTIES, own), isotonic(scores, dice)


def isotonic(scores: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rising values by rising scores, (2, K): of at most BLOCKS groups, pooled where their means fall.

    The mean score of each group is strictly rising.
    """
    order = np.argsort(scores, kind="stable")
    parts = [part for part in np.array_split(order, BLOCKS) if len(part)]
    blocks: list[tuple[float, float, int]] = []
    for part in parts:
        block = (float(scores[part].mean()), float(values[part].mean()), len(part))
        while blocks and (blocks[-1][1] >= block[1] or blocks[-1][0] >= block[0]):
            score, value, count = blocks.pop()
            total = count + block[2]
            block = (
                (score * count + block[0] * block[2]) / total,
                (value * count + block[1] * block[2]) / total,
                total,
            )
        blocks.append(block)
    return np.array([[score for score, _, _ in blocks], [value for _, value, _ in blocks]])


def fit_factor(errors: np.ndarray, certainties: Sequence[Certainty]) -> np.ndarray:
    """A root (P, Q) of the covariance of theta's errors (N, P), each divided by the predicted width."""
    widths = np.array([each.spans["area"][1] for each in certainties])
    ready = np.isfinite(errors).all(1)
    scaled = errors[ready] / widths[ready, None]
    if not len(scaled):
        return np.zeros((errors.shape[1], 0))
    # Few images miss by far: beyond their usual size, errors would widen everyone's draws.
    norms = np.linalg.norm(scaled, axis=1)
    scaled *= np.minimum(1, 3 * np.median(norms) / norms.clip(1e-12))[:, None]
    values, vectors = np.linalg.eigh(scaled.T @ scaled / len(scaled))
    shares = np.cumsum(values[::-1]) / max(values.sum(), 1e-12)
    kept = int(np.searchsorted(shares, EXPLAINED)) + 1
    factor: np.ndarray = (vectors[:, ::-1] * np.sqrt(values[::-1].clip(0)))[:, :kept]
    return factor


def ridge(x: np.ndarray, y: np.ndarray, penalties: Sequence[float], own: int = OWN) -> np.ndarray:
    """Ridge regression (1 + D,) of y (N,) on x (N, 1 + D), with the penalty of least leave-one-out error.

    The constant is free; the features' penalty is multiplied by their number.
    """
    size = x.shape[1]
    relative = np.full(size, float(max(1, size - 1 - own)))
    relative[: 1 + own], relative[0] = 1.0, 1e-9
    best: tuple[float, np.ndarray] | None = None
    for penalty in penalties:
        inverse = np.linalg.solve(x.T @ x + np.diag(penalty * relative), x.T)
        leverage = np.einsum("ij,ji->i", x, inverse)
        weights = inverse @ y
        missed = float(np.mean(((y - x @ weights) / (1 - leverage).clip(1e-6)) ** 2))
        if best is None or missed < best[0]:
            best = missed, weights
    assert best is not None
    return best[1]


def _fit(
    x: np.ndarray, gaps: np.ndarray, errors: np.ndarray, own: int, *, follow: bool, floor: float
) -> tuple[np.ndarray, np.ndarray]:
    """The errors' mean (2,), which may `follow` the gaps, and the weights of the logarithm of their size."""
    terms = np.stack([np.ones_like(gaps), gaps * follow], axis=1)
    shrink = np.diag([5.0, 10 * float(gaps.var()) + 1e-9])
    mean = np.linalg.solve(terms.T @ terms + shrink, terms.T @ errors)
    rest = np.abs(errors - terms @ mean)
    weights = ridge(x, np.log(rest + floor * np.median(rest) + 1e-9), FEATURE_PENALTIES, own)
    return mean, weights
