"""Random moves and tones of training images keep to what they promise."""

import numpy as np
import pytest
import torch

from mhvae_cli.config import AugmentConfig
from mhvae_cli.training.augmentation import similarity, tone

MOVES = AugmentConfig(rotate=180, scale=0.2, shift=0.1, tone=0, noise=0)


@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.6])
def test_the_two_maps_are_inverse_and_shape_preserving(aspect: float) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (20, 2))
    for _ in range(10):
        pull, push = similarity(rng, MOVES, aspect)
        moved = points @ push[:, :2].T + push[:, 2]
        np.testing.assert_allclose(moved @ pull[:, :2].T + pull[:, 2], points, atol=1e-12)
        before = np.linalg.norm((points[:, None] - points) * [aspect, 1], axis=-1)
        after = np.linalg.norm((moved[:, None] - moved) * [aspect, 1], axis=-1)
        ratio = after[before > 0] / before[before > 0]
        assert np.ptp(ratio) < 1e-9 and np.exp(-0.2) <= ratio[0] <= np.exp(0.2)


def test_tone_keeps_the_range_and_the_shape() -> None:
    image = torch.linspace(-1, 1, 3 * 16 * 16).view(3, 16, 16)
    for seed in range(10):
        toned = tone(image, np.random.default_rng(seed), AugmentConfig(tone=0.5, noise=0.2))
        assert toned.shape == image.shape and toned.dtype == torch.float32
        assert toned.min() >= -1 and toned.max() <= 1 and not torch.equal(toned, image)


def test_no_tone_is_no_change_and_noise_has_its_strength() -> None:
    image = torch.linspace(-0.9, 0.9, 32 * 32).view(1, 32, 32)
    still = tone(image, np.random.default_rng(0), AugmentConfig(tone=0, noise=0))
    torch.testing.assert_close(still, image, atol=1e-6, rtol=0)
    spreads = [
        float((tone(image, np.random.default_rng(s), AugmentConfig(tone=0, noise=0.02)) - image).std())
        for s in range(20)
    ]
    assert min(spreads) >= 0 and 0.012 < max(spreads) < 0.022


def test_without_noise_tone_keeps_the_order_of_greys() -> None:
    image = torch.linspace(-1, 1, 64).view(1, 8, 8)
    for seed in range(5):
        toned = tone(image, np.random.default_rng(seed), AugmentConfig(tone=0.2, noise=0)).flatten()
        assert (toned.diff() >= 0).all() and np.ptp(toned.numpy()) > 1
