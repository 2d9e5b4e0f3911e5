"""Calibration: statistics for quality control (`inference.qc`), measured on validation images."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.folder import read_config, rewrite_model
from ..images.read import read_mask, read_scan
from ..inference.looking import Position, View, locate, view_of
from ..inference.networks import Networks
from ..inference.posterior import draw, interval
from ..inference.qc import DISTANCES, SIGNALS, EncoderOutputs, QCStatistics
from ..vae.warp import pixel_centres
from .datasets import Sample

MIN_VAL_IMAGES = 20
"""Minimum number of validation images: fewer do not show what is unusual."""
MAX_TRAIN_IMAGES = 600
"""Maximum number of training images used for the mean and scale of distances."""
QUANTILE_COUNT = 33
TAIL, EXCEEDANCE = 0.2, 0.005
"""A fraction EXCEEDANCE of images exceeds a limit, extrapolated from the fraction TAIL with the highest."""
POSTERIOR_SAMPLES = 64
MAX_TEMPERATURE = 256.0
AREA_GRID = 96


def calibrate(networks: Networks, train: Sequence[Sample], val: Sequence[Sample]) -> QCStatistics | None:
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
        _temperature(networks, positions, val),
        {name: values.mean(0) for name, values in features.items()},
        {
            name: _whitening(values) if name == "tones" else _inverse_sd(values)
            for name, values in features.items()
        },
        {},
        {},
    )
    signals = [statistics.signals(each) for each in val_outputs]
    columns = {name: np.array([each[name] for each in signals]) for name in SIGNALS}
    probabilities = np.linspace(0, 1, QUANTILE_COUNT)
    return replace(
        statistics,
        quantiles={name: np.quantile(values, probabilities) for name, values in columns.items()},
        limits={name: limit(values) for name, values in columns.items()},
    )


def write_statistics(folder: Path, statistics: QCStatistics, *, images: int) -> None:
    """Write statistics measured on `images` images into a model folder's config.json."""
    content = {**read_config(folder), "trust": {"images": images, **statistics.to_dict()}}
    rewrite_model(folder, config=content)


def limit(values: np.ndarray) -> float:
    """The value that a fraction EXCEEDANCE of such values exceeds, with an exponential fitted to their tail.

    A few hundred images have too few values beyond it for an empirical quantile.
    """
    start = np.quantile(values, 1 - TAIL)
    excess = values[values > start] - start
    return float(start + (excess.mean() if len(excess) else 0.0) * math.log(TAIL / EXCEEDANCE))


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


def _whitening(values: np.ndarray) -> np.ndarray:
    """The matrix (D, D) that whitens values (N, D), with correlations shrunk by 5 %."""
    covariance = np.atleast_2d(np.cov(values.T))
    variances = np.diag(np.diag(covariance).clip(1e-12))
    return np.tril(np.linalg.inv(np.linalg.cholesky(0.95 * covariance + 0.05 * variances)))


def _temperature(networks: Networks, positions: Sequence[Position], val: Sequence[Sample]) -> float:
    """The factor on the posterior's sd at which 90 % of the 90 % intervals contain the true area."""
    temperatures = []
    for position, sample in zip(positions, val, strict=True):
        assert sample.mask is not None
        area = float(read_mask(sample.mask).mean())
        low, high = 1 / MAX_TEMPERATURE, MAX_TEMPERATURE
        for _ in range(10):  # bisection for the smallest temperature whose interval contains the area
            middle = math.sqrt(low * high)
            thetas = draw(position, POSTERIOR_SAMPLES, temperature=middle, seed=0, key=sample.id)
            lower, upper = interval(_areas(networks, replace(position, theta=thetas)).tolist())
            assert lower is not None and upper is not None
            low, high = (low, middle) if lower <= area <= upper else (middle, high)
        temperatures.append(high)
    return float(np.quantile(temperatures, 0.9, method="weibull"))


@torch.inference_mode()
def _areas(networks: Networks, positions: Position) -> np.ndarray:
    """The area (N,) of the mask of each theta (N, P) at one pose, as a fraction of the image."""
    warp, head = networks.model.warp, networks.model.segmentation_head
    assert warp is not None
    points, pose = pixel_centres((AREA_GRID, AREA_GRID)), positions.pose
    if pose is not None:
        points = points @ pose[:, :2].T + pose[:, 2]
    parameters = warp.parameters_of(torch.from_numpy(positions.theta).to(networks.device)).cpu()
    source = parameters @ torch.from_numpy(warp.basis(points).T).to(parameters)
    areas: np.ndarray = (head.level(source[..., None]) >= 0).double().mean((1, 2)).numpy()
    return areas
