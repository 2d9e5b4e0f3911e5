"""Holes that training makes in images: where they lie, and that a network learns to see what is known."""

import math

import pytest
import torch
from torch import Tensor

from mhvae_cli.config import DiffusionConfig, UNetConfig
from mhvae_cli.diffusion.refiner import Refiner
from mhvae_cli.errors import UsageError
from mhvae_cli.training.holes import BLANK, CUT, RIM, known_weight

SIDE = 64


def disc(x: float, y: float, radius: float) -> Tensor:
    """The level function (1, 1, S, S) of a disc, in units of a reference of radius 0.5."""
    ticks = (2 * torch.arange(SIDE) + 1) / SIDE - 1
    distance = ((ticks[None, :] - x) ** 2 + (ticks[:, None] - y) ** 2).sqrt()
    return ((radius - distance) * 0.5 / radius)[None, None]


def numbers(blank: float = 0.9, cut: float = 0.9, angle: float = 0.0, offset: float = 0.0) -> Tensor:
    return torch.tensor([[blank, 0.5, cut, angle, offset, 0.0]])


def test_what_the_other_object_covered_and_this_one_does_not_is_unknown() -> None:
    here, there = disc(0, 0, 0.3), disc(0.3, 0, 0.4)
    known = known_weight(here, there, numbers())
    assert known.shape == (1, 1, SIDE, SIDE) and known.min() >= 0 and known.max() <= 1
    distances = [level * radius / 0.5 for level, radius in ((here, 0.3), (there, 0.4))]
    inside, outside = distances[0] > 0, distances[1] < -2.2 * RIM
    hole = (distances[0] < -2.2 * RIM) & (distances[1] > 0)
    assert hole.sum() > 100
    assert known[inside].min() > 0.999 and known[outside].min() > 0.999 and known[hole].max() < 0.001


def test_an_edge_cuts_the_object_alone() -> None:
    here = disc(0, 0, 0.5)
    known = known_weight(here, here, numbers(cut=CUT / 2, angle=0.25, offset=0.1))  # beyond y = 0.1
    ticks = (2 * torch.arange(SIDE) + 1) / SIDE - 1
    below = (ticks > 0.1)[:, None].expand(SIDE, SIDE)
    object_ = (here > 0)[0, 0]
    assert known[0, 0][object_ & below].max() < 0.001 and known[0, 0][object_ & ~below].min() > 0.999
    assert known[0, 0][~object_ & (here[0, 0] < -0.2)].min() > 0.999
    assert known_weight(here, here, numbers(cut=CUT)).min() >= 0.74  # the rims alone, where both are partial


def test_of_some_images_nothing_is_known() -> None:
    draws = torch.rand(4000, 6, generator=torch.Generator().manual_seed(0))
    level = disc(0, 0, 0.3).expand(4000, 1, SIDE, SIDE)[:, :, ::8, ::8]
    known = known_weight(level, level, draws).amax((1, 2, 3))
    share = float((known == 0).float().mean())
    assert share == pytest.approx(BLANK, abs=4 * math.sqrt(BLANK * (1 - BLANK) / 4000))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_sees_what_its_configuration_says(channels: int) -> None:
    unet = UNetConfig(channels=8, levels=1, blocks=1)
    x_hat, level = torch.zeros(2, channels, 8, 8), torch.ones(2, 1, 8, 8)
    for sees, extra in (
        ("residual+recon", 0),
        ("residual+recon+mask", 1),
        ("residual+recon+mask+known", 2 + channels),
        ("residual+recon+mask+known+place", 10 + channels),
    ):
        network = Refiner(DiffusionConfig(sees=sees, unet=unet), channels=channels, codes=2).network  # type: ignore[arg-type]
        hints = network.hints(x_hat, level)
        assert (0 if hints is None else hints.shape[1]) == extra
        assert network.score(x_hat, 0.5, x_hat, hints).shape == x_hat.shape
        if extra:
            with pytest.raises(UsageError, match="needs the mask"):
                network.hints(x_hat)
