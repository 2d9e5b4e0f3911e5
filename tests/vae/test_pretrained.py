"""Encoders start from weights of other libraries, and refuse those that do not fit."""

import pytest
import torch
from support.resnets import reference_resnet, seeded, shaken

from mhvae_cli.checkpoints.registry import load_pretrained
from mhvae_cli.config import EncoderConfig
from mhvae_cli.errors import ModelError
from mhvae_cli.vae.encoder import (
    EfficientNetLite0,
    ResNet,
    convnet,
)
from mhvae_cli.vae.pretrained import start_from


def test_a_resnet_starts_from_torchvisions_weights() -> None:
    given = shaken(ResNet("resnet18", 3, 0.125), seed=7).state_dict()
    given["fc.weight"], given["fc.bias"] = torch.zeros(1000, 64), torch.zeros(1000)
    net = ResNet("resnet18", 3, 0.125).eval()
    start_from(net, given)
    x = torch.randn(1, 3, 64, 64, generator=seeded(8))
    with torch.no_grad():
        torch.testing.assert_close(net(x)[0], reference_resnet(given, "resnet18", x), rtol=1e-4, atol=1e-4)


def test_grey_weights_answer_as_colour_ones_do_to_grey() -> None:
    colour = shaken(ResNet("resnet18", 3, 0.125), seed=9)
    grey = ResNet("resnet18", 1, 0.125).eval()
    start_from(grey, colour.state_dict())
    x = torch.randn(1, 1, 64, 64, generator=seeded(10))
    with torch.no_grad():
        torch.testing.assert_close(grey(x), colour(x.expand(1, 3, 64, 64)), rtol=1e-4, atol=1e-4)
    assert grey.conv1.weight.requires_grad


def test_colour_weights_answer_to_grey_as_the_grey_ones_do() -> None:
    grey = shaken(ResNet("resnet18", 1, 0.125), seed=9).eval()
    colour = ResNet("resnet18", 3, 0.125).eval()
    start_from(colour, grey.state_dict())
    x = torch.randn(1, 1, 64, 64, generator=seeded(10))
    with torch.no_grad():
        torch.testing.assert_close(colour(x.expand(1, 3, 64, 64)), grey(x), rtol=1e-4, atol=1e-4)


def test_the_bundled_encoder_starts_a_grey_one_and_one_in_colour() -> None:
    weights = load_pretrained("imagenet")
    grey, colour = EfficientNetLite0(1).eval(), EfficientNetLite0(3).eval()
    for net in (grey, colour):
        start_from(net, weights)
    x = torch.full((1, 1, 96, 96), -1.0)
    x[..., 48:] = 1.0
    with torch.no_grad():
        found, _ = grey(x)
        torch.testing.assert_close(found, colour(x.expand(1, 3, 96, 96))[0], rtol=1e-2, atol=0.05)
    assert torch.isfinite(found).all() and found.std() > 0.1


def test_the_hybrids_resnet_starts_from_a_resnet50() -> None:
    given = shaken(ResNet("resnet50", 3, 0.125), seed=11).state_dict()
    net = convnet(EncoderConfig(arch="resnet50-vit-b16", width=0.125), 1, 64)
    start_from(net, given)
    torch.testing.assert_close(net.resnet.conv1.weight, given["conv1.weight"].sum(1, keepdim=True))
    assert torch.equal(net.resnet.layer3[5].bn3.running_var, given["layer3.5.bn3.running_var"])


def test_weights_that_do_not_fit_are_refused() -> None:
    given = ResNet("resnet18", 3, 0.25).state_dict()
    with pytest.raises(ModelError, match=r"conv1\.weight is \(16, 3, 7, 7\), not \(8, 3, 7, 7\)"):
        start_from(ResNet("resnet18", 3, 0.125), given)
    with pytest.raises(ModelError, match=r"layer1\.0\.bn2\.bias is absent") as caught:
        start_from(ResNet("resnet18", 3, 0.25), {k: v for k, v in given.items() if k != "layer1.0.bn2.bias"})
    assert caught.value.hint
    with pytest.raises(ModelError, match="absent"):
        start_from(EfficientNetLite0(3), given)
    with pytest.raises(ModelError):
        start_from(ResNet("resnet50", 3, 0.25), given)
