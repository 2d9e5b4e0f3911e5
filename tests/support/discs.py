"""Masks of discs, and folders that hold them."""

from pathlib import Path

import numpy as np

from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png

SHAPE = (30, 40)
DIAGONAL = 50.0
NOTHING = np.zeros(SHAPE, bool)


def disc(radius: float, *, x: float = 20, y: float = 15) -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.hypot(rows - y, columns - x) <= radius


def write(folder: Path, **masks: np.ndarray) -> Path:
    for name, mask in masks.items():
        write_atomic(folder / f"{name}.png", encode_png(mask))
    return folder


def write_truths(folder: Path) -> Path:
    """Three discs, and a mask of nothing."""
    return write(folder, a=disc(6), b=disc(8), c=disc(10), d=NOTHING)
