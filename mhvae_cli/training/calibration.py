"""Calibration on validation images: statistics for quality control (`inference.qc`), the error model
(`inference.certainty`), and how much detail the tones may have."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from ..checkpoints.folder import read_config, rewrite_model
from ..checkpoints.model_card import model_card
from ..evaluation.biometry import Figures, measure, measure_head
from ..evaluation.metrics import dice
from ..images.read import read_mask, read_scan
from ..inference.certainty import MEASURES, ErrorModel
from ..inference.loading import load_model
from ..inference.looking import Position, View, evidence_of, locate, view_of
from ..inference.networks import Networks
from ..inference.qc import DISTANCES, SIGNALS, EncoderOutputs, QCStatistics
from ..vae.fitting import fit, shrink_tones
from ..vae.tta import aligned
from ..vae.warp import pixel_centres
from .datasets import Images, Sample
from .error_model import OWN, Outcome, fit_errors

MIN_VAL_IMAGES = 20
"""Minimum number of validation images: fewer do not show what is unusual."""
MAX_TRAIN_IMAGES = 600
"""Maximum number of training images used for the mean and scale of distances."""
QUANTILE_COUNT = 33
TAIL, EXCEEDANCE = 0.2, 0.005
"""A fraction EXCEEDANCE of images exceeds a limit, extrapolated from the fraction TAIL with the highest."""
SHRINK = {"tones": 0.05, "features": 0.1}
"""How far correlations are shrunk where a distance is whitened."""
CROP = 256
"""Side of a crop in which a warp is fitted to a true mask."""


@dataclass(frozen=True)
class Calibration:
    """What validation images say of a model. `errors` is None if too few have an object that was found."""

    statistics: QCStatistics
    errors: ErrorModel | None


def calibrate(networks: Networks, train: Sequence[Sample], val: Sequence[Sample]) -> Calibration | None:
    """Measure a model's statistics: means and scales of distances on `train`, everything else on `val`.

    Returns None for fewer than MIN_VAL_IMAGES validation images, and for a single-headed VAE. Raises
    InputError for a file that cannot be read.
    """
    if len(val) < MIN_VAL_IMAGES or len(train) < 2 or networks.model.warp is None:
        return None
    chosen = train[:: math.ceil(len(train) / MAX_TRAIN_IMAGES)]
    train_outputs = [each for _, found in _examined(networks, chosen, recon=False) for each in found]
    val_outputs: list[EncoderOutputs] = []
    positions: list[Position] = []
    for views, found in _examined(networks, val, recon=True):
        val_outputs += found
        positions += locate(networks, views, first=found)
    features = {
        name: np.stack([getattr(each, name) for each in train_outputs]).astype(np.float64)
        for name in DISTANCES
    }
    statistics = QCStatistics(
        {name: values.mean(0) for name, values in features.items()},
        {
            name: _whitening(values, SHRINK[name]) if name in SHRINK else _inverse_sd(values)
            for name, values in features.items()
        },
        {},
        {},
    )
    probabilities = np.linspace(0, 1, QUANTILE_COUNT)
    for _ in range(2):  # the second time with the signal that needs the quantiles of others
        signals = [statistics.signals(each) for each in val_outputs]
        columns = {name: np.array([each[name] for each in signals]) for name in SIGNALS if name in signals[0]}
        statistics = replace(
            statistics,
            quantiles={name: np.quantile(values, probabilities) for name, values in columns.items()},
            limits={
                name: normal_limit(values) if name == "combined" else limit(values)
                for name, values in columns.items()
            },
        )
    outcomes = [_outcome(networks, *each) for each in zip(positions, val, strict=True)]
    own = OWN + networks.config.boundary
    return Calibration(statistics, fit_errors(outcomes, least=MIN_VAL_IMAGES, own=own))


@torch.inference_mode()
def settle_tones(folder: Path, val: Images) -> None:
    """Shrink the tones of the model in `folder` to what holds for validation images (`shrink_tones`).

    It stays as it is without tones, and for fewer than MIN_VAL_IMAGES images.
    """
    model, _ = load_model(folder)
    if model.image_head.tones is None or model.warp is None or len(val) < MIN_VAL_IMAGES:
        return
    zs, layers = [], []
    for start in range(0, len(val), 16):
        image = val.plain(range(start, min(start + 16, len(val))))
        seen = model.eval().examine(image)
        layers.append(model.layers(image, seen.q_theta.mean))
        zs.append(model.encoder.style_of_layers(layers[-1]).mean)
    shrink_tones(model, torch.cat(zs), torch.cat(layers))
    rewrite_model(folder, states={"vae": model.state_dict()})


def write_calibration(folder: Path, found: Calibration, *, images: int) -> None:
    """Write what was measured on `images` images into a model folder's config.json, and its model card."""
    errors = None if found.errors is None else found.errors.to_dict()
    trust = {"images": images, **found.statistics.to_dict(), "errors": errors}
    content = {**read_config(folder), "trust": trust}
    rewrite_model(folder, config=content, card=model_card(content))


def limit(values: np.ndarray) -> float:
    """The value that a fraction EXCEEDANCE of such values exceeds, with an exponential fitted to their tail.

    A few hundred images have too few values beyond it for an empirical quantile.
    """
    start = np.quantile(values, 1 - TAIL)
    excess = values[values > start] - start
    return float(start + (excess.mean() if len(excess) else 0.0) * math.log(TAIL / EXCEEDANCE))


def normal_limit(values: np.ndarray) -> float:
    """The same for values whose distribution is nearly normal, as that of a mean of logarithms."""
    return float(values.mean() + NormalDist().inv_cdf(1 - EXCEEDANCE) * values.std())


def _examined(
    networks: Networks, samples: Sequence[Sample], *, recon: bool
) -> Iterator[tuple[list[View], list[EncoderOutputs]]]:
    """The images of each batch of samples, and the encoder's outputs for them."""
    for start in range(0, len(samples), 16):
        views = [view_of(networks, read_scan(sample.image)) for sample in samples[start : start + 16]]
        yield views, networks.examine(np.stack([view.square for view in views]), recon=recon)


def _inverse_sd(values: np.ndarray) -> np.ndarray:
    """The inverse standard deviation (D,) of values (N, D), bounded for entries that hardly vary."""
    sd = values.std(0)
    inverse: np.ndarray = 1 / np.maximum(sd, max(0.05 * float(np.median(sd)), 1e-6))
    return inverse


def _whitening(values: np.ndarray, shrink: float) -> np.ndarray:
    """The matrix (D, D) that whitens values (N, D), with correlations shrunk by the fraction `shrink`."""
    covariance = np.atleast_2d(np.cov(values.T))
    variances = np.diag(np.diag(covariance).clip(1e-12))
    return np.tril(np.linalg.inv(np.linalg.cholesky((1 - shrink) * covariance + shrink * variances)))


def _outcome(networks: Networks, position: Position, sample: Sample) -> Outcome:
    """A validation image's result against its true mask.

    The true area is that of the mask's pixels; true lengths are those of the warp fitted to the mask, whose
    outline is as smooth as the one found.
    """
    assert sample.mask is not None
    mask = read_mask(sample.mask)
    size = (mask.shape[0], mask.shape[1])
    rings = networks.contour(position.theta, size, position.pose)
    evidence = evidence_of(networks, position, rings, size)
    found = _measures(networks, rings, size)
    true: Figures = dict.fromkeys(MEASURES)
    theta = np.full(len(position.theta), np.nan)
    if networks.model.segmentation_head.reference is None and mask.any():
        true = _measures(networks, networks.contour(_fitted(networks, mask, None), size), size)
        theta = _fitted(networks, mask, position) - position.theta
    true["area"] = float(mask.sum())
    errors = {name: _log_ratio(found[name], true[name]) for name in MEASURES}
    overlap = dice(networks.mask(position.theta, size, position.pose), mask)
    return Outcome(evidence, errors, overlap, theta)


def _measures(networks: Networks, rings: Sequence[np.ndarray], size: tuple[int, int]) -> Figures:
    """The values of MEASURES of an upright outline in an image of `size`."""
    found = measure(rings)
    head = measure_head(rings, size, pen=networks.config.pen)
    low, high = found["bbox_y0"], found["bbox_y1"]
    height = None if low is None or high is None else high - low
    values = (found["area_px"], found["perimeter_px"], height, *(head[f"{name}_px"] for name in MEASURES[3:]))
    return dict(zip(MEASURES, values, strict=True))


def _log_ratio(found: float | None, true: float | None) -> float:
    return math.log(found / true) if found and true else math.nan


@torch.inference_mode()
def _fitted(networks: Networks, mask: np.ndarray, position: Position | None) -> np.ndarray:
    """The theta (P,) float32 of a true mask (H, W), in the frame of a position, aligned with it."""
    warp = networks.model.warp
    assert warp is not None
    if position is not None and position.pose is not None:
        points = (pixel_centres((CROP, CROP)) - position.pose[:, 2]) / np.diag(position.pose)
        columns, rows = (((points + 1) / 2 * mask.shape[::-1]).astype(int).clip(0).T).tolist()
        mask = mask[np.minimum(rows, mask.shape[0] - 1), np.minimum(columns, mask.shape[1] - 1)]
        mask = mask.reshape(CROP, CROP)
        if not mask.any():
            return np.full(warp.theta_dim, np.nan, np.float32)
    identity = warp.identity.double().cpu().numpy()
    parameters = torch.from_numpy(identity + fit(warp, mask))[None].to(warp.identity)
    theta = warp.theta_of(parameters)
    if position is not None:
        theta = aligned(warp, theta, torch.from_numpy(position.theta)[None].to(theta))
    found: np.ndarray = theta[0].cpu().numpy()
    return found
