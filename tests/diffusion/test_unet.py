"""Section 4.2's network: any size, the same in any crop, told the noise level, nil before it has learnt."""

import pytest
import torch
from torch import Tensor, nn

from mhvae_cli.config import UNetConfig
from mhvae_cli.diffusion.unet import ChannelNorm, UNet

REACH = 44
"""More pixels than `woken()` sees to any side (convolutions by hand: 20 cells of 2 pixels)."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def woken(inputs: int = 1, outputs: int = 1, **given: int) -> UNet:
    """A small net none of whose weights is nil, as after some training."""
    net = UNet(inputs, outputs, UNetConfig(**{"channels": 8, "levels": 2, "blocks": 1, **given}))
    rng = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data.normal_(0, fan**-0.5, generator=rng)
    return net.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (32, 32), (33, 70), (47, 16)])
@pytest.mark.parametrize(("levels", "blocks", "patch"), [(3, 2, 2), (1, 1, 1), (2, 1, 4)])
def test_a_picture_of_any_size_comes_out_as_large(
    size: tuple[int, int], levels: int, blocks: int, patch: int
) -> None:
    net = woken(2, 3, levels=levels, blocks=blocks, patch=patch)
    out = net(noise(2, 2, *size), torch.tensor([0.3, -2.0]))
    assert out.shape == (2, 3, *size) and out.isfinite().all() and out.std() > 0.01


@pytest.mark.parametrize("corner", [(8, 12), (4, 0), (0, 16)])
def test_a_crop_is_answered_as_the_whole_picture_is(corner: tuple[int, int]) -> None:
    """Away from the crop's own border; a norm over the whole picture would not have it so."""
    net, level = woken(), torch.tensor([0.7])
    image = noise(1, 1, 132, 136)
    image[..., 100:, :] *= 9  # statistics that a crop does not share
    y, x = corner
    whole = net(image, level)[..., y : y + 104, x : x + 112]
    crop = net(image[..., y : y + 104, x : x + 112], level)
    inner = (..., slice(REACH, -REACH), slice(REACH, -REACH))
    torch.testing.assert_close(crop[inner], whole[inner], atol=1e-5, rtol=1e-4)
    assert whole[inner].std() > 0.01 and (crop - whole).abs().max() > 1e-2


def test_an_even_picture_is_answered_evenly_inside() -> None:
    """Up- and downsampling leave no pattern but that of a patch."""
    out = woken()(torch.full((1, 1, 120, 120), 0.4), torch.tensor([0.0]))[0, 0, REACH:-REACH, REACH:-REACH]
    step = 4
    torch.testing.assert_close(out[step:], out[:-step], atol=1e-5, rtol=0)
    torch.testing.assert_close(out[:, step:], out[:, :-step], atol=1e-5, rtol=0)


def test_it_is_nil_before_it_has_learnt() -> None:
    net = UNet(2, 1, UNetConfig(channels=8, levels=2, blocks=1))
    assert torch.equal(net(noise(2, 2, 20, 20), torch.zeros(2)), torch.zeros(2, 1, 20, 20))


def test_the_noise_level_acts_once_something_is_learnt() -> None:
    net, image = woken(), noise(1, 1, 24, 24)
    levels = torch.tensor([-5.0, -4.9, 0.0, 0.1, 4.0])
    outs = net(image.expand(5, -1, -1, -1), levels)
    for i in range(5):
        for j in range(i):
            assert (outs[i] - outs[j]).abs().max() > 1e-3, (levels[i], levels[j])
    torch.testing.assert_close(net(image, levels[2:3])[0], outs[2], atol=1e-5, rtol=1e-4)


def test_each_level_has_a_code_of_its_own() -> None:
    """None of -6 to 6 is taken for another far from it."""
    levels = torch.linspace(-6, 6, 241)
    seen: list[Tensor] = []
    net = woken(channels=16)
    net.embed[0].register_forward_pre_hook(lambda _layer, given: seen.append(given[0]))
    net(torch.zeros(241, 1, 4, 4), levels)
    assert seen[0].shape == (241, 16)
    apart = torch.cdist(seen[0], seen[0])
    far = (levels[:, None] - levels).abs() > 0.25
    assert apart[far].min() > 0.3 and apart.diagonal(1).min() > 0.03


def test_every_weight_has_a_gradient_from_the_first_step() -> None:
    """Processes that train together need one for each."""
    net = UNet(2, 1, UNetConfig(channels=8, levels=3, blocks=2))
    net(noise(2, 2, 16, 16), torch.zeros(2)).square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    (net(noise(2, 2, 16, 16), torch.zeros(2)) - 1).square().sum().backward()
    assert net.leave[-1].weight.grad.abs().max() > 0


def test_the_norm_is_each_pixels_own() -> None:
    norm = ChannelNorm(6)
    nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(2))
    nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(3))
    x = 2 + 3 * noise(2, 6, 4, 5)
    by_hand = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    by_hand = by_hand * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), by_hand)


def test_levels_grow_wider_by_half_of_the_first() -> None:
    net = UNet(1, 1, UNetConfig(channels=8, levels=3, blocks=2))
    assert [stage[1].conv1.weight.shape[0] for stage in net.down] == [8, 12, 16]
    assert all(len(stage) == 3 for stage in (*net.down, *net.up))
