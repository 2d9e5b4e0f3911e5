"""Section 3.1's ConvNets: torchvision's names, sizes and outputs."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.resnets import reference_resnet, seeded, shaken
from torch import Tensor, nn

from mhvae_cli.config import DecoderConfig, EncoderConfig, ModelConfig
from mhvae_cli.vae.encoder import (
    BatchNorm2d,
    EfficientNetLite0,
    Encoder,
    HybridViT,
    ResNet,
    convnet,
    fold_batch_norms,
)
from mhvae_cli.vae.latents import Gaussian
from mhvae_cli.vae.pretrained import start_from


def encoder(arch: str, **given: object) -> Encoder:
    settings = EncoderConfig(arch=arch, width=0.125, reduce=4, hidden=8)
    config = {"image_size": 64, "z_dim": 3, "encoder": settings, "decoder": DecoderConfig(channels=8)}
    return Encoder(ModelConfig(**{**config, **given}), 6)


def posteriors(net: Encoder, image: Tensor) -> tuple[Gaussian, Gaussian]:
    flat, _ = net.features(image)
    return net.position(flat), net.style(flat)


# Names and sizes


@pytest.mark.parametrize(
    ("arch", "count"), [("resnet18", 11_176_512), ("resnet34", 21_284_672), ("resnet50", 23_508_032)]
)
def test_parameters_are_torchvisions_without_the_classifier(arch: str, count: int) -> None:
    with torch.device("meta"):
        net = ResNet(arch, 3, 1.0)
    assert sum(p.numel() for p in net.parameters()) == count


def test_names_and_shapes_are_torchvisions() -> None:
    with torch.device("meta"):
        small = {name: tuple(t.shape) for name, t in ResNet("resnet18", 3, 1.0).state_dict().items()}
        large = {name: tuple(t.shape) for name, t in ResNet("resnet50", 3, 1.0).state_dict().items()}
    assert small["conv1.weight"] == (64, 3, 7, 7)
    assert small["bn1.running_mean"] == (64,)
    assert small["bn1.num_batches_tracked"] == ()
    assert small["layer1.0.conv1.weight"] == (64, 64, 3, 3)
    assert small["layer2.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert small["layer2.0.downsample.1.running_var"] == (128,)
    assert small["layer4.1.bn2.bias"] == (512,)
    assert "layer1.0.downsample.0.weight" not in small and len(small) == 120
    assert large["layer1.0.conv1.weight"] == (64, 64, 1, 1)
    assert large["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert large["layer3.5.conv2.weight"] == (256, 256, 3, 3)
    assert large["layer4.2.bn3.running_var"] == (2048,)
    assert not any(name.startswith("fc") for name in large) and len(large) == 318


def test_the_hybrids_transformer_is_vit_b() -> None:
    with torch.device("meta"):
        net = convnet(EncoderConfig(arch="resnet50-vit-b16"), 3, 224)
    a_layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert sum(p.numel() for p in net.layers.layers.parameters()) == 12 * a_layer == 85_054_464
    assert net.position.shape == (1, 14 * 14, 768)
    assert net.layers.layers[0].self_attn.num_heads == 12


@pytest.mark.parametrize("arch", ["resnet34", "resnet50"])
def test_forward_is_that_of_a_resnet(arch: str) -> None:
    net = shaken(ResNet(arch, 3, 0.125))
    x = torch.randn(2, 3, 64, 64, generator=seeded(1))
    with torch.no_grad():
        found, truth = net(x)[0], reference_resnet(net.state_dict(), arch, x)
    torch.testing.assert_close(found, truth, rtol=1e-4, atol=1e-4 * truth.abs().max().item())


# Encoder


@pytest.mark.parametrize(
    ("arch", "size"),
    [(a, s) for a in ("resnet18", "resnet34", "resnet50", "efficientnet-lite0") for s in (64, 96)]
    + [("resnet50-vit-b16", 64)],
)
def test_every_encoder_gives_both_posteriors(arch: str, size: int) -> None:
    net = encoder(arch, image_size=size).eval()
    with torch.no_grad():
        theta, z = posteriors(net, torch.randn(2, 1, size, size, generator=seeded(2)))
        alone, maps = net.features(torch.zeros(1, 1, size, size))
    assert theta.mean.shape == theta.logvar.shape == (2, 6)
    assert z.mean.shape == z.logvar.shape == (2, 3)
    assert net.position(alone).mean.shape == (1, 6)
    channels = net.convnet.map_channels
    shapes = [(1, c, size // s, size // s) for c, s in zip(channels, (2, 4, 8), strict=True)]
    assert [tuple(each.shape) for each in maps] == shapes
    for tensor in (theta.mean, theta.logvar, z.mean, z.logvar):
        assert tensor.isfinite().all()


def test_the_spatial_map_is_kept() -> None:
    """Pooled features would be the same wherever the object is; these are not."""
    net = encoder("resnet18").eval()
    image = torch.zeros(2, 1, 64, 64)
    image[0, :, :16, :16] = image[1, :, 40:56, 40:56] = 1
    with torch.no_grad():
        maps, _ = net.features(image)
    assert maps.shape == (2, 4 * 2 * 2)
    assert (maps[0] - maps[1]).abs().max() > 0.1 * maps.abs().max()


def test_the_vit_knows_where_its_tokens_are() -> None:
    net = shaken(convnet(EncoderConfig(arch="resnet50-vit-b16", width=0.125), 1, 64))
    assert isinstance(net, HybridViT)
    with torch.no_grad():
        out, _ = net(torch.zeros(1, 1, 64, 64))
        assert out.shape == (1, net.out_channels, 4, 4)
        still, _ = net(torch.zeros(1, 1, 64, 64))
        net.position.zero_()
        blind, _ = net(torch.zeros(1, 1, 64, 64))
    torch.testing.assert_close(out, still)
    assert not torch.allclose(out, blind, rtol=1e-3)


def test_first_codes_are_near_nil_and_spread_little() -> None:
    """So that the first masks of a training are the reference's."""
    net = encoder("resnet18").eval()
    with torch.no_grad():
        theta, z = posteriors(net, torch.randn(4, 1, 64, 64, generator=seeded(3)))
    for q in (theta, z):
        assert q.mean.abs().max() < 1 and q.logvar.max() < -2


# Batch norms


def test_batch_norm_is_torchs_in_one_process() -> None:
    ours, theirs = shaken(BatchNorm2d(5)), shaken(nn.BatchNorm2d(5))
    x = torch.randn(4, 5, 6, 7, generator=seeded(4))
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        assert torch.equal(ours(x), theirs(x))
        for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b), name


def test_batch_norm_over_two_processes_is_that_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both processes' sums are formed here: one of them sees the first half, all_reduce adds the second's."""
    ours, theirs = shaken(BatchNorm2d(3)), shaken(nn.BatchNorm2d(3))
    whole = 2 + 3 * torch.randn(4, 3, 5, 5, generator=seeded(5))
    moments = [whole[2:].mean((0, 2, 3)), whole[2:].square().mean((0, 2, 3))]
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    from torch.distributed.nn import functional

    monkeypatch.setattr(functional, "all_reduce", lambda tensor: tensor + moments.pop(0))
    found = ours.train()(whole[:2])
    torch.testing.assert_close(found, theirs.train()(whole)[:2], rtol=1e-4, atol=1e-5)
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnet50-vit-b16", "efficientnet-lite0"])
def test_folding_batch_norms_changes_no_output(arch: str) -> None:
    net = shaken(convnet(EncoderConfig(arch=arch, width=0.125), 1, 64))
    x = torch.randn(2, 1, 64, 64, generator=seeded(6))
    with torch.no_grad():
        before, _ = net(x)
        fold_batch_norms(net)
        after, _ = net(x)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * before.abs().max().item())


STAGES = [(1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6)]
STAGES += [(3, 112, 5, 1, 6), (4, 192, 5, 2, 6), (1, 320, 3, 1, 6)]  # EfficientNet-B0's table 1, n c k s t


def lite0_blocks() -> list[tuple[int, int, int, int, int]]:
    """(inputs, outputs, kernel, stride, expansion) of the 16 blocks."""
    blocks, inputs = [], 32
    for count, outputs, kernel, stride, expand in STAGES:
        for i in range(count):
            blocks.append((inputs, outputs, kernel, stride if i == 0 else 1, expand))
            inputs = outputs
    return blocks


def lite0_weights() -> dict[str, Tensor]:
    """Random weights under the names of the common PyTorch port, real batch norms and all."""
    rng, state = seeded(12), {}

    def conv(name: str, norm: str, outputs: int, inputs: int, kernel: int) -> None:
        fan = inputs * kernel * kernel
        state[f"{name}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=rng) / math.sqrt(fan)
        for part in ("weight", "running_var"):
            state[f"{norm}.{part}"] = 0.5 + torch.rand(outputs, generator=rng)
        for part in ("bias", "running_mean"):
            state[f"{norm}.{part}"] = 0.2 * torch.randn(outputs, generator=rng)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(1)

    conv("_conv_stem", "_bn0", 32, 3, 3)
    for i, (inputs, outputs, kernel, _, expand) in enumerate(lite0_blocks()):
        at, hidden = f"_blocks.{i}", inputs * expand
        if expand > 1:
            conv(f"{at}._expand_conv", f"{at}._bn0", hidden, inputs, 1)
        conv(f"{at}._depthwise_conv", f"{at}._bn1", hidden, 1, kernel)
        conv(f"{at}._project_conv", f"{at}._bn2", outputs, hidden, 1)
    conv("_conv_head", "_bn1", 1280, 320, 1)
    return state


def reference_lite0(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The port's forward pass in eval mode with TensorFlow's padding; ReLU, as ours has, for ReLU6."""

    def step(name: str, norm: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        kernel, side = weight.shape[-1], x.shape[-1]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        x = F.pad(x, (total // 2, total - total // 2) * 2)
        parts = [state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(F.conv2d(x, weight, stride=stride, groups=groups), *parts, eps=1e-3)

    x = F.relu(step("_conv_stem", "_bn0", x, 2))
    for i, (inputs, outputs, _, stride, expand) in enumerate(lite0_blocks()):
        at = f"_blocks.{i}"
        y = F.relu(step(f"{at}._expand_conv", f"{at}._bn0", x)) if expand > 1 else x
        y = F.relu(step(f"{at}._depthwise_conv", f"{at}._bn1", y, stride, inputs * expand))
        y = step(f"{at}._project_conv", f"{at}._bn2", y)
        x = x + y if stride == 1 and inputs == outputs else y
    return x


def test_efficientnet_lite0_folds_its_batch_norms_exactly() -> None:
    state = lite0_weights()
    colour, grey = EfficientNetLite0(3).eval(), EfficientNetLite0(1).eval()
    start_from(colour, state)
    start_from(grey, state)
    x = torch.randn(1, 1, 64, 64, generator=seeded(13))
    with torch.no_grad():
        truth = reference_lite0(state, x.expand(1, 3, 64, 64))
        assert truth.shape == (1, 320, 2, 2) and truth.std() > 0.01
        for found, _ in (colour(x.expand(1, 3, 64, 64)), grey(x)):
            torch.testing.assert_close(found, truth, rtol=1e-3, atol=1e-4 * truth.abs().max().item())


def test_efficientnet_lite0_has_its_published_size() -> None:
    """4,652,008 parameters with batch norms and classifier; folding leaves a bias a channel."""
    with torch.device("meta"):
        net = EfficientNetLite0(3)
    shapes = {name: tensor.shape for name, tensor in lite0_weights().items()}
    norms = sum(s.numel() for n, s in shapes.items() if "_bn" in n and n.endswith((".weight", ".bias")))
    convs = sum(s.numel() for n, s in shapes.items() if "conv" in n)
    assert convs + norms + 1280 * 1000 + 1000 == 4_652_008
    assert sum(p.numel() for p in net.parameters()) == convs - 1280 * 320 + norms // 2 - 1280
