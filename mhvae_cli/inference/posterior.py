"""Samples of theta: outlines that the object could also have, and probability maps."""

from collections.abc import Iterable

import numpy as np

from ..hashing import seed_of
from .certainty import Certainty
from .looking import Position


def draw(position: Position, count: int, *, certainty: Certainty | None, seed: int, key: str) -> np.ndarray:
    """`count` samples (count, P) float32 of theta, with the errors to expect (`Certainty.factor`).

    Where these are not known, they have the sd of theta's posterior. They depend only on `seed` and the
    image's `key`.
    """
    rng = np.random.default_rng(seed_of(f"{seed}/{key}"))
    factor = np.diag(position.sd)
    if certainty is not None and certainty.factor.size:
        factor = certainty.factor
    noise = rng.standard_normal((count, factor.shape[1]), np.float32)
    drawn: np.ndarray = (position.theta + noise @ factor.T).astype(np.float32)
    return drawn


def probability(masks: Iterable[np.ndarray]) -> np.ndarray:
    """The fraction of masks (h, w), at least one, that contain each pixel: float32 (h, w) in [0, 1]."""
    remaining = iter(masks)
    total, count = next(remaining).astype(np.float32), 1
    for mask in remaining:
        total += mask
        count += 1
    return total / count
