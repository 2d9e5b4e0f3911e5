"""The noise of an image depends on its key and the seed alone."""

import pytest
import torch
from torch import Tensor

from mhvae_cli.diffusion.noise import path_noise

SHAPE = (3, 8, 10)


def paths(keys: list[str], seed: int = 0, draws: int = 3) -> Tensor:
    noise = path_noise(keys, SHAPE, seed=seed)
    return torch.stack([noise() for _ in range(draws)], 1)


def test_an_image_has_the_same_noise_in_any_batch_and_order() -> None:
    together = paths(["a", "b", "c"])
    assert together.shape == (3, 3, *SHAPE) and together.dtype == torch.float32
    for i, key in enumerate("abc"):
        assert torch.equal(paths([key])[0], together[i])
    assert torch.equal(paths(["c", "a"]), together[[2, 0]])
    assert torch.equal(paths(["b", "b"]), together[[1, 1]])


def test_noise_differs_by_seed_key_and_draw() -> None:
    ways = [paths(["a"]), paths(["b"]), paths(["a"], seed=1), paths(["1/a"], seed=1), paths(["/a"], seed=11)]
    draws = torch.cat(ways).flatten(0, 1).flatten(1)
    correlations = torch.corrcoef(draws).fill_diagonal_(0).abs()
    assert len(draws) == 15 and correlations.max() < 0.35


def test_noise_is_standard_normal() -> None:
    draws = paths([f"image {i}" for i in range(100)], draws=10).flatten()
    assert abs(draws.mean().item()) < 0.008 and draws.std().item() == pytest.approx(1, abs=0.006)
    assert (draws**4).mean().item() == pytest.approx(3, abs=0.06)


def test_noise_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    paths(["a"])
    assert torch.equal(torch.get_rng_state(), state)
