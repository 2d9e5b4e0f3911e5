"""Quality control: is an image like the validation images, and is its result to be doubted?

A model's config.json may contain "trust": statistics of a validation set (made in training by `calibration`),
which `QCStatistics` holds. Each signal is one number per image, larger if the image is less typical, and
beyond its limit if the image is foreign, unlike the validation images:

tones     distance of brightness, contrast, sharpness and colours (`tones`); needs no network
layout    distance of the coarse distribution of brightness and colours (`layout`); needs no network
features  distance of the encoder's features, their mean over the image
combined  the three distances together: an image that is a little unusual in each of them
theta     length of the position code, whose entries have sd 1 among the training masks
recon     mean absolute difference of the image and the VAE's reconstruction

A distance is the root mean square of the values after subtracting the mean of the training images and
dividing by their sd (tones and features: by the root of their covariance). The distances are nearly
uncorrelated among validation images, so `combined` is the mean of their logarithms, each in units of its
spread (from the median to the 84th percentile) above its median.

Whether the object was found well in an image of the right kind is another question: `certainty` answers it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from ..errors import ModelError
from ..polygons import signed_area

DISTANCES = ("tones", "layout", "features")
SIGNALS = (*DISTANCES, "combined", "theta", "recon")
COLUMNS = (
    *("qc", "qc_why", "foreign", "doubtful", "dice_expected"),
    *(f"{name}_pct" for name in SIGNALS),
    *("jacobian_min", "components", "holes"),
)
Numbers = float | list["Numbers"]
"""Nested lists of numbers, as in JSON."""
LEAST_DICE = 0.7
"""The Dice of a generated image's mask and the object found in it, below which the image is flagged.

Agreement is usually called good above 0.7 (Zijdenbos et al. 1994, doi 10.1109/42.363096); on held-out images
the means over each verb are 0.87 to 0.99.
"""
LEAST_EXPECTED = 0.8
"""The Dice to expect of a mask below which its result is doubtful."""
LEAST_CONTRAST = 8e-3
"""Smallest contrast that is distinguished; the range is 2."""
LAYOUT = 8
"""Side of the grid of `layout`."""


@dataclass(frozen=True)
class EncoderOutputs:
    """The results of one pass of the encoder on an image.

    `theta` (P,) and `sd` (P,) are the mean and the standard deviation of its posterior, `features` (R,) the
    summary of its features (`model.Examination`), `square` the image (C, S, S), float32; `z` (Z,) the mean of
    the style's posterior and `recon` the reconstruction error, None if they were not asked for. `tones` and
    `layout`, which need no network, are computed when first used: in the thread that writes, while the
    network continues.
    """

    theta: np.ndarray
    sd: np.ndarray
    features: np.ndarray
    square: np.ndarray
    z: np.ndarray | None = None
    recon: float | None = None

    @cached_property
    def tones(self) -> np.ndarray:
        """`tones` of the image: (T,) float64."""
        return tones(self.square)

    @cached_property
    def layout(self) -> np.ndarray:
        """`layout` of the image: (C * 64,) float64."""
        return layout(self.square)


@dataclass(frozen=True)
class QCResult:
    """`why` lists the problems: signals beyond their limits, "empty", "pieces", "holes", "folds", "doubtful".

    `percentiles`: the percentage of validation images whose signal is lower. `jacobian`: the
    `smallest_jacobian`; `components` and `holes`: counts of the outline's rings; `dice`: the Dice to expect,
    None if it is not known.
    """

    why: tuple[str, ...]
    percentiles: Mapping[str, float]
    jacobian: float | None
    components: int
    holes: int
    dice: float | None = None

    @property
    def qc(self) -> Literal["ok", "warn"]:
        """ "warn" if there is any problem."""
        return "warn" if self.why else "ok"

    @property
    def foreign(self) -> bool:
        """Whether the image is unlike the validation images: a signal is beyond its limit."""
        return not set(self.why).isdisjoint(SIGNALS)

    @property
    def doubtful(self) -> bool | None:
        """Whether the Dice to expect is below LEAST_EXPECTED; None if it is not known."""
        return None if self.dice is None else "doubtful" in self.why

    def fields(self) -> dict[str, str | float | int | None]:
        """The values of COLUMNS, rounded."""
        values = [self.percentiles.get(name) for name in SIGNALS]
        shares = [None if value is None else round(value, 1) for value in values]
        least = None if self.jacobian is None else round(self.jacobian, 3)
        flags = [None if flag is None else "yes" if flag else "no" for flag in (self.foreign, self.doubtful)]
        expected = None if self.dice is None else round(self.dice, 3)
        verdict = (self.qc, ";".join(self.why), *flags, expected)
        row = (*verdict, *shares, least, self.components, self.holes)
        return dict(zip(COLUMNS, row, strict=True))


@dataclass(frozen=True)
class QCStatistics:
    """The statistics of a model's validation set.

    Keyed by DISTANCES: `means` (D,) and `scales`, (D,) factors or a (D, D) whitening matrix.
    Keyed by SIGNALS: `quantiles`, ascending values at equal steps of probability, and `limits`. Both lack
    "combined" in models of earlier versions.
    """

    means: Mapping[str, np.ndarray]
    scales: Mapping[str, np.ndarray]
    quantiles: Mapping[str, np.ndarray]
    limits: Mapping[str, float]

    def signals(self, outputs: EncoderOutputs) -> dict[str, float]:
        """The values of SIGNALS; without recon if the image was not decoded, without combined as long as the
        quantiles of the distances are not known."""
        parts = (outputs.tones, outputs.layout, outputs.features)
        named = {name: self._distance(name, part) for name, part in zip(DISTANCES, parts, strict=True)}
        if self.quantiles:
            named["combined"] = float(np.mean([self._excess(*each) for each in named.items()]))
        named["theta"] = _rms(outputs.theta)
        if outputs.recon is not None:
            named["recon"] = outputs.recon
        return named

    def judge(
        self,
        outputs: EncoderOutputs,
        rings: Sequence[np.ndarray],
        jacobian: float | None,
        dice: float | None = None,
    ) -> QCResult:
        """Check a result: its signals, its outline `rings` (`Networks.contour`), `Networks.jacobian`, and the
        Dice to expect (`certainty`)."""
        values = self.signals(outputs)
        known = [name for name in SIGNALS if name in values and name in self.limits]
        why = [name for name in known if values[name] > self.limits[name]]
        turns = [signed_area(ring) > 0 for ring in rings]
        components, holes = sum(turns), len(turns) - sum(turns)
        folded = jacobian is not None and jacobian <= 0
        problems = {"empty": not components, "pieces": components > 1, "holes": holes > 0, "folds": folded}
        problems["doubtful"] = dice is not None and dice < LEAST_EXPECTED
        why += [name for name, found in problems.items() if found]
        shares = {name: _percentile(values[name], self.quantiles[name]) for name in known}
        return QCResult(tuple(why), shares, jacobian, components, holes, dice)

    def to_dict(self) -> dict[str, object]:
        """As stored in config.json, with five significant digits."""
        distances = {
            name: {"mean": plain(self.means[name]), "scale": plain(self.scales[name])} for name in DISTANCES
        }
        return {
            "distances": distances,
            "quantiles": {name: plain(values) for name, values in self.quantiles.items()},
            "limits": {name: plain(np.float64(value)) for name, value in self.limits.items()},
        }

    def _distance(self, name: str, value: np.ndarray) -> float:
        apart, scale = value - self.means[name], self.scales[name]
        return _rms(scale @ apart if scale.ndim == 2 else scale * apart)

    def _excess(self, name: str, distance: float) -> float:
        """How many spreads the logarithm of a distance lies above the median."""
        quantiles, floor = self.quantiles[name], np.finfo(np.float64).tiny
        steps = np.linspace(0, 1, len(quantiles))
        middle, high = np.log(np.maximum(np.interp((0.5, 0.84), steps, quantiles), floor))
        return float((np.log(max(distance, floor)) - middle) / max(high - middle, 1e-6))


def judge_generated(dice: float, training_distance: float | None = None) -> dict[str, str]:
    """The columns qc and qc_why of a generated image, whose object agrees with its mask by `dice`.

    `training_distance` is that of `audit.Audit.distance`, if known.
    """
    why = ["dice"] * (dice < LEAST_DICE)
    why += ["training_distance"] * (training_distance is not None and training_distance < 1)
    return {"qc": "warn" if why else "ok", "qc_why": ";".join(why)}


def parse_statistics(content: Mapping[str, Any], sizes: Mapping[str, int], *, where: str) -> QCStatistics:
    """Parse "trust" of a config.json, for a model whose DISTANCES have these `sizes`; else ModelError."""
    try:
        distances = {name: content["distances"][name] for name in DISTANCES}
        signals = [name for name in SIGNALS if name != "combined" or name in content["limits"]]
        trust = QCStatistics(
            {name: np.array(distances[name]["mean"], np.float64) for name in DISTANCES},
            {name: np.array(distances[name]["scale"], np.float64) for name in DISTANCES},
            {name: np.array(content["quantiles"][name], np.float64) for name in signals},
            {name: float(content["limits"][name]) for name in signals},
        )
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(f'{where}: its "trust" is damaged') from error
    fits = all(
        trust.means[name].shape == (size,) and trust.scales[name].shape in ((size,), (size, size))
        for name, size in sizes.items()
    )
    tables = [*trust.means.values(), *trust.scales.values(), *trust.quantiles.values()]
    rising = all(q.ndim == 1 and len(q) > 1 and (np.diff(q) >= 0).all() for q in trust.quantiles.values())
    numbers = np.array([*trust.limits.values()])
    if not (fits and rising and all(np.isfinite(table).all() for table in (*tables, numbers))):
        raise ModelError(f'{where}: its "trust" does not match the model')
    return trust


def tones(square: np.ndarray) -> np.ndarray:
    """Brightness and contrast per channel, sharpness at two scales, and differences of three channels.

    `square` is a network's input (C, S, S) in [-1, 1]; (4,) float64 for C = 1, (11,) for C = 3. All but the
    brightness are logarithms.
    """
    planes = square.reshape(len(square), -1)
    grey = square.mean(0)
    side = len(grey) // 4 * 4
    coarse = grey[:side, :side].reshape(side // 4, 4, side // 4, 4).mean((1, 3))
    levels = [*planes.std(1), _roughness(grey), _roughness(coarse)]
    if len(square) == 3:
        red, green, blue = planes
        width = planes.max(0) - planes.min(0)
        levels += [np.abs(red - green).mean(), np.abs(green - blue).mean(), width.std()]
    return np.concatenate([planes.mean(1), np.log(np.array(levels) + LEAST_CONTRAST)]).astype(np.float64)


def layout(square: np.ndarray) -> np.ndarray:
    """The cosine transform (DCT-II, orthonormal) of a network's input (C, S, S) reduced to LAYOUT x LAYOUT.

    Of brightness and, for three channels, red less green and green less blue: (C * LAYOUT^2,) float64. Its
    coefficients are nearly uncorrelated among natural images.
    """
    planes = square
    if len(square) == 3:
        red, green, blue = square
        planes = np.stack([square.mean(0), red - green, green - blue])
    step = square.shape[-1] // LAYOUT
    kept = planes[:, : step * LAYOUT, : step * LAYOUT].reshape(len(planes), LAYOUT, step, LAYOUT, step)
    waves = np.arange(LAYOUT)
    basis = np.cos(np.pi * waves[:, None] * (2 * waves + 1) / (2 * LAYOUT)) * np.sqrt(2 / LAYOUT)
    basis[0] /= np.sqrt(2)
    means = kept.mean(2, dtype=np.float64).mean(3)  # four times as fast as both axes at once
    found: np.ndarray = (basis @ means @ basis.T).ravel()
    return found


def smallest_jacobian(source: np.ndarray, inside: np.ndarray) -> float | None:
    """The smallest determinant of a warp's Jacobian in the object over the mean one: 1 for an affine warp.

    `source` (2, h, w) are the warp's source points of a grid of pixel centres, `inside` bool (h, w) marks
    those in the object. 0 or less means a fold. None if no grid cell is in the object.
    """
    across, down = source[:, :-1, 1:] - source[:, :-1, :-1], source[:, 1:, :-1] - source[:, :-1, :-1]
    found = (across[0] * down[1] - across[1] * down[0])[inside[:-1, :-1]]
    mean = float(found.mean()) if found.size else 0.0
    return float((found / mean).min()) if mean else None


def _roughness(plane: np.ndarray) -> float:
    return float(np.abs(np.diff(plane, axis=0)).mean() + np.abs(np.diff(plane, axis=1)).mean())


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values, dtype=np.float64).mean()))


def _percentile(value: float, quantiles: np.ndarray) -> float:
    return float(np.interp(value, quantiles, np.linspace(0, 100, len(quantiles))))


def plain(values: np.ndarray | np.float64) -> Numbers:
    """Nested lists of numbers with five significant digits."""
    if isinstance(values, np.float64) or values.ndim == 0:
        return float(f"{values:.5g}")
    return [plain(value) for value in values]
