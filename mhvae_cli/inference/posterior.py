"""Samples of theta from its posterior: probability maps, and intervals of measurements."""

from collections.abc import Iterable, Sequence

import numpy as np

from ..hashing import seed_of
from .looking import Position


def calibrated_sd(sd: np.ndarray, temperature: float) -> np.ndarray:
    """The posterior's sd times `temperature`, combined with the prior's sd of 1, which it never exceeds."""
    warm = np.float32(temperature) * sd
    factors: np.ndarray = warm / np.sqrt(1 + warm * warm)
    return factors


def draw(position: Position, count: int, *, temperature: float, seed: int, key: str) -> np.ndarray:
    """`count` samples (count, P) float32 of theta's posterior, with its `calibrated_sd`.

    They depend only on `seed` and the image's `key`.
    """
    rng = np.random.default_rng(seed_of(f"{seed}/{key}"))
    noise = rng.standard_normal((count, len(position.theta)), np.float32)
    return position.theta + calibrated_sd(position.sd, temperature) * noise


def probability(masks: Iterable[np.ndarray]) -> np.ndarray:
    """The fraction of masks (h, w), at least one, that contain each pixel: float32 (h, w) in [0, 1]."""
    remaining = iter(masks)
    total, count = next(remaining).astype(np.float32), 1
    for mask in remaining:
        total += mask
        count += 1
    return total / count


def interval(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The 5th and the 95th percentile of samples; None if a fifth of them or more is missing.

    Percentiles at (n + 1) p (Weibull), so that intervals of few samples are not too narrow.
    """
    present = [value for value in values if value is not None]
    if len(present) <= 0.8 * len(values):
        return None, None
    low, high = np.quantile(present, (0.05, 0.95), method="weibull")
    return float(low), float(high)
