"""The statistics of `trust`, measured on images that a model was not trained on."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.folder import load_state, read_config, save_model
from ..images.read import read_mask, read_scan
from ..inference.networks import Networks
from ..inference.posterior import draw, interval
from ..inference.qc import DISTANCES, SIGNALS, EncoderOutputs, QCStatistics
from .datasets import Sample

PARTS = ("vae", "cddpm")
LEAST = 20
"""Fewer validation images cannot show what is unusual."""
KNOWN = 600
"""Most training images used for the means and spreads of distances."""
STEPS = 33
TAIL, BEYOND = 0.2, 0.005
"""A signal's limit is beyond all but a part BEYOND of images: extrapolated from the largest TAIL."""
DRAWS = 64
HOTTEST = 256.0
AREA_GRID = 96


def calibrate(networks: Networks, train: Sequence[Sample], held: Sequence[Sample]) -> QCStatistics | None:
    """The statistics of a model: means and spreads from `train`, all else from `held`, the unseen images.

    None for fewer than LEAST held images, and for a single-headed VAE. InputError for what cannot be read.
    """
    if len(held) < LEAST or len(train) < 2 or networks.model.warp is None:
        return None
    known = list(_examined(networks, train[:: math.ceil(len(train) / KNOWN)], recon=False))
    seen = list(_examined(networks, held, recon=True))
    parts = {name: np.stack([getattr(each, name) for each in known]).astype(np.float64) for name in DISTANCES}
    bare = QCStatistics(
        _temperature(networks, seen, held),
        {name: part.mean(0) for name, part in parts.items()},
        {name: _whitening(part) if name == "tones" else _factors(part) for name, part in parts.items()},
        {},
        {},
    )
    found = [bare.signals(each) for each in seen]
    values = {name: np.array([each[name] for each in found]) for name in SIGNALS}
    at = np.linspace(0, 1, STEPS)
    tables = {name: np.quantile(value, at) for name, value in values.items()}
    return replace(bare, quantiles=tables, limits={name: limit(value) for name, value in values.items()})


def write_statistics(folder: Path, trust: QCStatistics, *, images: int) -> None:
    """Write the statistics of `images` images into a model folder's config.json; all else is unchanged."""
    content = {**read_config(folder), "trust": {"images": images, **trust.to_dict()}}
    states = {part: load_state(folder, part) for part in PARTS if (folder / f"{part}.safetensors").exists()}
    save_model(folder, config=content, states=states, card=(folder / "README.md").read_text())


def limit(values: np.ndarray) -> float:
    """What a part BEYOND of such values would exceed, if their largest TAIL continues as an exponential.

    The few values there are beyond it say too little themselves.
    """
    start = np.quantile(values, 1 - TAIL)
    excess = values[values > start] - start
    return float(start + (excess.mean() if len(excess) else 0.0) * math.log(TAIL / BEYOND))


def _examined(networks: Networks, samples: Sequence[Sample], *, recon: bool) -> Iterator[EncoderOutputs]:
    for start in range(0, len(samples), 16):
        part = samples[start : start + 16]
        images = [networks.prepare(read_scan(sample.image)) for sample in part]
        yield from networks.examine(np.stack(images), recon=recon)


def _factors(values: np.ndarray) -> np.ndarray:
    """One over the sd (D,) of values (N, D); entries that hardly vary are given a small sd."""
    sd = values.std(0)
    factors: np.ndarray = 1 / np.maximum(sd, max(0.05 * float(np.median(sd)), 1e-6))
    return factors


def _whitening(values: np.ndarray) -> np.ndarray:
    """(D, D) that makes values (N, D) uncorrelated, of sd 1; correlations are shrunk by 5 %."""
    covariance = np.atleast_2d(np.cov(values.T))
    own = np.diag(np.diag(covariance).clip(1e-12))
    return np.tril(np.linalg.inv(np.linalg.cholesky(0.95 * covariance + 0.05 * own)))


def _temperature(networks: Networks, seen: Sequence[EncoderOutputs], held: Sequence[Sample]) -> float:
    """The factor on the posterior's sd with which nine of ten 90 % intervals cover the true area."""
    least = []
    for evidence, sample in zip(seen, held, strict=True):
        assert sample.mask is not None
        truth = float(read_mask(sample.mask).mean())
        low, high = 1 / HOTTEST, HOTTEST
        for _ in range(10):
            middle = math.sqrt(low * high)
            drawn = draw(evidence, DRAWS, temperature=middle, seed=0, key=sample.id)
            below, above = interval(_areas(networks, drawn).tolist())
            assert below is not None and above is not None
            low, high = (low, middle) if below <= truth <= above else (middle, high)
        least.append(high)
    return float(np.quantile(least, 0.9, method="weibull"))


@torch.inference_mode()
def _areas(networks: Networks, thetas: np.ndarray) -> np.ndarray:
    """The fraction of the image (N,) covered by the object of each theta (N, P)."""
    warp, head = networks.model.warp, networks.model.segmentation_head
    assert warp is not None
    source = warp(torch.from_numpy(thetas).to(networks.device), (AREA_GRID, AREA_GRID))
    areas: np.ndarray = (head.level(source.cpu()) >= 0).double().mean((1, 2)).numpy()
    return areas
