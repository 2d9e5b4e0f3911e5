"""Configurations: strict JSON both ways."""

import json
import typing

import pytest

from mhvae_cli.config import (
    Arch,
    CDDPMConfig,
    CDDPMRecipe,
    DiffusionConfig,
    EncoderConfig,
    ModelConfig,
    TrainConfig,
    from_dict,
    merge,
    to_dict,
)
from mhvae_cli.errors import UsageError


@pytest.mark.parametrize("kind", [ModelConfig, TrainConfig, DiffusionConfig, CDDPMConfig, CDDPMRecipe])
def test_json_round_trip(kind: type) -> None:
    config = kind()
    text = json.dumps(to_dict(config))
    assert from_dict(kind, json.loads(text)) == config


def test_what_is_set_survives_the_round_trip() -> None:
    config = ModelConfig(image_size=64, single_head=True, encoder=EncoderConfig(arch="resnet34", width=0.5))
    again = from_dict(ModelConfig, json.loads(json.dumps(to_dict(config))))
    assert again == config
    assert again.encoder.arch == "resnet34" and again.encoder.width == 0.5 and again.single_head


def test_absent_keys_keep_their_defaults() -> None:
    config = from_dict(ModelConfig, {"encoder": {"width": 0.25}})
    assert config == ModelConfig(encoder=EncoderConfig(width=0.25))


@pytest.mark.parametrize(
    ("values", "said", "hint"),
    [
        ({"imagesize": 64}, "'imagesize'", "'image_size'"),
        ({"encoder": {"widht": 1.0}}, "'encoder.widht'", "'encoder.width'"),
        ({"quux": 1}, "'quux'", "image_size"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(values: dict, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown key") as caught:
        from_dict(ModelConfig, values)
    assert said in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"image_size": "64"}, "image_size"),
        ({"image_size": 64.0}, "image_size"),
        ({"image_size": True}, "image_size"),
        ({"image_size": None}, "image_size"),
        ({"single_head": 1}, "single_head"),
        ({"edge": "soft"}, "edge"),
        ({"edge": True}, "edge"),
        ({"encoder": {"width": [1.0]}}, "encoder.width"),
        ({"encoder": 3}, "encoder"),
        ({"warp": {"family": "rigid"}}, "warp.family"),
        ({"warp": {"points": 20}}, "warp.points"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(values: dict, key: str) -> None:
    with pytest.raises(UsageError) as caught:
        from_dict(ModelConfig, values)
    assert str(caught.value).startswith((f"{key} =", f"{key}:"))
    assert "\n" not in str(caught.value)


def test_a_choice_is_refused_with_the_choices() -> None:
    with pytest.raises(UsageError, match="affine, tps"):
        from_dict(ModelConfig, {"warp": {"family": "rigid"}})


def test_a_whole_number_may_stand_for_a_float() -> None:
    width = from_dict(ModelConfig, {"encoder": {"width": 1}}).encoder.width
    assert width == 1.0 and type(width) is float


def test_where_leads_the_name_of_the_key() -> None:
    with pytest.raises(UsageError, match=r"model\.encoder\.arch"):
        from_dict(ModelConfig, {"encoder": {"arch": "vgg"}}, where="model.")


def test_merge_lays_one_upon_the_other_key_by_key() -> None:
    base = {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [1, 2]}
    over = {"b": {"d": {"g": 4}}, "f": [3], "h": 5}
    assert merge(base, over) == {"a": 1, "b": {"c": 2, "d": {"e": 3, "g": 4}}, "f": [3], "h": 5}
    assert base == {"a": 1, "b": {"c": 2, "d": {"e": 3}}, "f": [1, 2]}
    assert merge({"a": {"b": 1}}, {"a": 2}) == {"a": 2}


def test_the_encoders_of_the_paper_can_be_chosen() -> None:
    assert {"resnet18", "resnet34", "resnet50", "resnet50-vit-b16"} <= set(typing.get_args(Arch))


def test_a_cddpm_is_told_x_hat_unless_asked_otherwise() -> None:
    diffusion = CDDPMRecipe().diffusion
    assert (diffusion.process, diffusion.sees, diffusion.normalise) == ("mhvae", "residual+recon", True)
