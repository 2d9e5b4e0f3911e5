"""Values beyond which no network can be built or trained are named."""

from dataclasses import replace

import pytest

from mhvae_cli.config import (
    AugmentConfig,
    DecoderConfig,
    DiffusionConfig,
    EncoderConfig,
    ModelConfig,
    TrainConfig,
    UNetConfig,
)
from mhvae_cli.errors import UsageError
from mhvae_cli.limits import check_diffusion, check_model, check_training

NAN = float("nan")


def test_the_defaults_are_within_the_limits() -> None:
    check_model(ModelConfig())
    check_diffusion(DiffusionConfig())
    check_training(TrainConfig())


@pytest.mark.parametrize(
    ("name", "given", "needed"),
    [
        ("image_size", {"image_size": 4097}, "32 to 4096"),
        ("edge", {"edge": NAN}, "1e-06 to 10"),
        ("fill", {"fill": 1.01}, "0 to 1"),
        ("tones", {"tones": -1}, "0 to 256"),
        ("tones", {"tones": 8, "single_head": True}, "without a position code"),
        ("boundary", {"boundary": True, "single_head": True}, "without a position code"),
        ("boundary", {"boundary": True, "reference": 64}, "the reference is the disc"),
        ("encoder.width", {"encoder": EncoderConfig(width=0.0)}, "0.01 to 8"),
        ("decoder.channels", {"decoder": DecoderConfig(channels=10**9)}, "1 to 4096"),
        (
            "image_size",
            {"image_size": 100, "encoder": EncoderConfig(arch="resnet50-vit-b16")},
            "multiple of 16",
        ),
    ],
)
def test_a_model_beyond_its_limits_is_refused(name: str, given: dict, needed: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_model(replace(ModelConfig(), **given))
    assert f"model.{name}" in str(caught.value) and needed in str(caught.value)


def test_a_cddpm_beyond_its_limits_is_refused() -> None:
    with pytest.raises(UsageError, match="strength"):
        check_diffusion(DiffusionConfig(strength=0.0))
    with pytest.raises(UsageError, match="channels: even"):
        check_diffusion(DiffusionConfig(unet=UNetConfig(channels=63)))


def test_a_training_beyond_its_limits_is_refused() -> None:
    with pytest.raises(UsageError, match="crop: at most 1"):
        check_training(TrainConfig(augment=AugmentConfig(crop=1.5)))
    with pytest.raises(UsageError, match="lr: above 0"):
        check_training(TrainConfig(lr=NAN))
