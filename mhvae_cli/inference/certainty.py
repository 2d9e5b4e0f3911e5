"""How certain a result is: 90 % intervals of its measurements, and the Dice to expect of its mask.

"trust" in a model's config.json contains an `ErrorModel`, fitted to validation images
(`training.error_model`). What it knows of a result is `Evidence`: how far the two looks at the image disagree
about the outline, how large the object is, and the encoder's features. From these a ridge regression predicts
the size of each measurement's error, widened by a conformal quantile so that 90 % of the validation images'
true values lie within, and another the Dice, calibrated by a monotone table.

Errors of measurements are logarithms of the measured value over the true one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ModelError
from .qc import Numbers, plain

MEASURES = ("area", "perimeter", "height", "hc", "bpd", "ofd")
"""`height` is the vertical extent in the upright image."""
CLIP = 3.0
"""Inputs are clipped to this many standard deviations."""
WIDEST = 3.0
"""The largest half width of an interval of a logarithm: a factor of 20."""


@dataclass(frozen=True)
class Evidence:
    """How far two looks disagree about the outline, and more.

    A gap is the logarithm of the distance from the reference's centre, over that of its rim, of a point of
    the outline found by the last look, as seen by the first. `gap` is their mean, NaN after a single look.
    `inputs` (4 + R,) are the logarithms of their root mean square and absolute mean, NaN after a single look,
    and of the object's share of the image; whether there was a single look; the encoder's features (R,).
    """

    gap: float
    inputs: np.ndarray


@dataclass(frozen=True)
class ErrorFit:
    """Of one measure: the error's mean is `mean[0] + mean[1] * gap`, and it is within exp(weights . [1, x])
    of it for 90 % of the images; `weights` is (1 + D,)."""

    mean: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class ErrorModel:
    """`centre` and `scale` (D,) standardise the inputs. `measures` are keyed by MEASURES; some may be
    missing. `dice` (1 + D,) weights give a score, and `table` (2, K) the Dice at rising scores, interpolated.
    `factor` (P, Q): a root of the covariance of theta's errors over the predicted width of the area's.
    """

    centre: np.ndarray
    scale: np.ndarray
    measures: Mapping[str, ErrorFit]
    dice: np.ndarray
    table: np.ndarray
    factor: np.ndarray

    def assess(self, evidence: Evidence) -> "Certainty":
        """What is certain of a result."""
        x = self.standardise(evidence.inputs)
        gap = 0.0 if np.isnan(evidence.gap) else evidence.gap
        spans = {
            name: (fit.mean[0] + fit.mean[1] * gap, min(float(np.exp(fit.weights @ x)), WIDEST))
            for name, fit in self.measures.items()
        }
        expected = float(np.interp(self.dice @ x, self.table[0], self.table[1]))
        return Certainty(expected, spans, self.factor * spans["area"][1])

    def standardise(self, inputs: np.ndarray) -> np.ndarray:
        """Inputs (D,) or (N, D) with a 1 before them; missing ones (NaN) count as average."""
        x = np.nan_to_num((inputs - self.centre) / self.scale, nan=0.0, posinf=CLIP, neginf=-CLIP)
        x = x.clip(-CLIP, CLIP)
        return np.concatenate([np.ones((*x.shape[:-1], 1)), x], axis=-1)

    def to_dict(self) -> dict[str, Numbers | dict[str, dict[str, Numbers]]]:
        """As stored in config.json."""
        arrays = {name: plain(getattr(self, name)) for name in ("centre", "scale", "dice", "table", "factor")}
        fits = {
            name: {"mean": plain(fit.mean), "weights": plain(fit.weights)}
            for name, fit in self.measures.items()
        }
        return {**arrays, "measures": fits}


@dataclass(frozen=True)
class Certainty:
    """Of one result: the Dice to expect, and of each measure the mean and half width of its logarithm's
    error. `factor` (P, Q) @ N(0, I) are draws of theta's error."""

    dice: float
    spans: Mapping[str, tuple[float, float]]
    factor: np.ndarray

    def interval(self, measure: str, value: float | None) -> tuple[float | None, float | None]:
        """The 90 % interval of a measured value, which it always contains; None if it is not known."""
        if value is None or measure not in self.spans:
            return None, None
        mean, half = self.spans[measure]
        low, high = value * np.exp(-mean - half), value * np.exp(-mean + half)
        return min(float(low), value), max(float(high), value)

    def ratio(self, cup: "Certainty", measure: str, value: float | None) -> tuple[float | None, float | None]:
        """The interval of a ratio of the cup's measure to this one's, if their errors are independent."""
        if value is None or measure not in self.spans or measure not in cup.spans:
            return None, None
        (mean, half), (over, more) = self.spans[measure], cup.spans[measure]
        joint = Certainty(0.0, {measure: (over - mean, float(np.hypot(half, more)))}, self.factor)
        return joint.interval(measure, value)


def parse_errors(content: Mapping[str, Any], features: int, theta_dim: int, *, where: str) -> ErrorModel:
    """The inverse of `ErrorModel.to_dict`, for a model of these sizes; else ModelError."""
    try:
        names = ("centre", "scale", "dice", "table", "factor")
        arrays = {name: np.array(content[name], np.float64) for name in names}
        measures = {
            name: ErrorFit(np.array(fit["mean"], np.float64), np.array(fit["weights"], np.float64))
            for name, fit in content["measures"].items()
            if name in MEASURES
        }
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise ModelError(f'{where}: its "trust" is damaged') from error
    size, table, factor = 4 + features, arrays["table"], arrays["factor"]
    shapes = [(arrays["centre"], (size,)), (arrays["scale"], (size,)), (arrays["dice"], (1 + size,))]
    shapes += [(fit.mean, (2,)) for fit in measures.values()]
    shapes += [(fit.weights, (1 + size,)) for fit in measures.values()]
    fits = all(array.shape == shape and np.isfinite(array).all() for array, shape in shapes)
    fits &= table.ndim == 2 and len(table) == 2 and table.shape[1] > 0 and bool(np.isfinite(table).all())
    fits &= factor.ndim == 2 and len(factor) == theta_dim and bool(np.isfinite(factor).all())
    if not (fits and "area" in measures and (np.diff(table) > 0).all() and (arrays["scale"] > 0).all()):
        raise ModelError(f'{where}: its "trust" does not match the model')
    return ErrorModel(**arrays, measures=measures)
