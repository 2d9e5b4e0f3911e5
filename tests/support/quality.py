"""What an encoder finds, the statistics it is judged by, and pictures that it has never seen."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mhvae_cli.inference.qc import (
    SIGNALS,
    EncoderOutputs,
    QCStatistics,
    tones,
)
from mhvae_cli.vae.warp import pixel_centres

STRIPES = np.tile([-0.5, 0.5], (1, 64, 32)).astype(np.float32)


def evidence(**changed: Any) -> EncoderOutputs:
    values = {
        "theta": np.full(6, 0.5, np.float32),
        "sd": np.full(6, 0.1, np.float32),
        "features": np.zeros(2, np.float32),
        "square": STRIPES,
        "recon": 0.1,
    }
    return EncoderOutputs(**(values | changed))


def trust() -> QCStatistics:
    return QCStatistics(
        {"tones": tones(STRIPES), "layout": np.zeros(64), "features": np.zeros(2)},
        {"tones": np.eye(4), "layout": np.ones(64), "features": np.full(2, 0.5)},
        {name: np.linspace(0, 2, 33) for name in SIGNALS},
        dict.fromkeys(SIGNALS, 2.0),
    )


def grid(warp: Callable[[np.ndarray], np.ndarray], side: int = 64) -> np.ndarray:
    return warp(pixel_centres((side, side))).T.reshape(2, side, side)


def odd_pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (64, 80), np.uint8)
    return [np.zeros((64, 80), np.uint8), noise, np.full((64, 80), 200, np.uint8)]
