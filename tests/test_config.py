"""Configurations: strict JSON both ways, and presets that are what they say."""

import json
import typing
from pathlib import Path

import pytest

from mhvae_cli.config import (
    Arch,
    CDDPMConfig,
    CDDPMRecipe,
    DiffusionConfig,
    EncoderConfig,
    ModelConfig,
    TrainConfig,
    UNetConfig,
    from_dict,
    merge,
    to_dict,
)
from mhvae_cli.errors import UsageError
from mhvae_cli.training.recipe import PRESETS, load_cddpm_recipe, load_recipe


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


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_valid(name: str) -> None:
    from_dict(ModelConfig, PRESETS[name].get("model", {}))
    from_dict(TrainConfig, PRESETS[name].get("train", {}))


def test_the_paper_preset_is_the_papers_model() -> None:
    model = from_dict(ModelConfig, PRESETS["paper"].get("model", {}))
    assert (model.encoder.arch, model.encoder.width, model.image_size) == ("resnet50", 1.0, 256)
    assert (model.warp.family, model.warp.points) == ("tps", "circular")
    assert not model.single_head and model.reference == 0


def test_the_encoders_of_the_paper_can_be_chosen() -> None:
    assert {"resnet18", "resnet34", "resnet50", "resnet50-vit-b16"} <= set(typing.get_args(Arch))


def test_a_recipe_is_a_preset_under_a_file_under_flags(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"model": {"image_size": 64, "z_dim": 8}, "train": {"lr": 0.25}}))
    recipe, keys = load_recipe("small", file, {"model": {"z_dim": 16}})
    assert (recipe.model.image_size, recipe.model.z_dim, recipe.train.lr) == (64, 16, 0.25)
    assert recipe.model.encoder.hidden == PRESETS["small"]["model"]["encoder"]["hidden"]
    assert keys == {"image_size", "z_dim"}


@pytest.mark.parametrize("text", ["{", "[1]", '{"modle": {}}', '{"train": {"epochs": "ten"}}', "\xff"])
def test_a_faulty_recipe_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError) as caught:
        load_recipe("paper", file, {})
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="no such file"):
        load_recipe("paper", tmp_path / "absent.json", {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.image_size", 16),
        ("model.channels", 2),
        ("model.z_dim", 0),
        ("model.edge", 0.0),
        ("model.encoder.width", -1.0),
        ("model.encoder.thumbnail", -1),
        ("train.epochs", 0),
        ("train.batch_size", 0),
        ("train.lr", float("nan")),
        ("train.ema", 1.0),
        ("train.val_fraction", 1.0),
        ("train.loss.consistency", -1.0),
        ("train.part", "mask"),
    ],
)
def test_a_value_out_of_range_is_named(key: str, value: float | str) -> None:
    with pytest.raises(UsageError, match=key.removesuffix(".consistency")):
        load_recipe("paper", None, nested(key, value))


def nested(key: str, value: float | str) -> dict:
    """A dotted key as objects in objects."""
    *parents, last = key.split(".")
    values: dict = {last: value}
    for name in reversed(parents):
        values = {name: values}
    return values


def test_a_cddpms_recipe_is_a_file_under_flags(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    values = {"diffusion": {"sees": "x", "unet": {"channels": 16}}, "train": {"lr": 0.25, "crop": 32}}
    file.write_text(json.dumps(values))
    recipe = load_cddpm_recipe(file, {"train": {"crop": 0}, "diffusion": {"process": "diffusevae"}})
    assert recipe.diffusion.unet == UNetConfig(channels=16) and recipe.diffusion.sees == "x"
    assert recipe.diffusion.process == "diffusevae"
    assert (recipe.train.lr, recipe.train.crop) == (0.25, 0) and recipe.card == {}
    assert load_cddpm_recipe(None, {}) == CDDPMRecipe()


def test_a_cddpm_is_told_x_hat_unless_asked_otherwise() -> None:
    diffusion = CDDPMRecipe().diffusion
    assert (diffusion.process, diffusion.sees, diffusion.normalise) == ("mhvae", "residual+recon", True)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("diffusion.process", "ddpm", "diffusion.process"),
        ("diffusion.sees", "recon", "diffusion.sees"),
        ("diffusion.normalise", 1, "diffusion.normalise"),
        ("diffusion.unet.channels", 6, "unet.channels"),
        ("diffusion.unet.channels", 9, "unet.channels"),
        ("diffusion.unet.levels", 7, "unet.levels"),
        ("diffusion.unet.blocks", 0, "unet.blocks"),
        ("diffusion.unet.patch", 0, "unet.patch"),
        ("train.crop", 15, "train.crop"),
        ("train.crop", -1, "train.crop"),
        ("train.crops", 0, "train.crops"),
        ("train.lr", 0.0, "train.lr"),
        ("train.part", "style", "train.part"),
        ("train.augment.crop", 0.5, r"train\.augment\.crop"),
        ("model.z_dim", 4, "'model'"),
    ],
)
def test_a_cddpms_value_out_of_range_is_named(key: str, value: float | str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_cddpm_recipe(None, nested(key, value))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("arch", "size"), [("resnet50-vit-b16", 100), ("efficientnet-lite0", 80)])
def test_a_side_the_encoder_cannot_halve_is_refused(arch: str, size: int) -> None:
    model = {"image_size": size, "encoder": {"arch": arch}}
    with pytest.raises(UsageError, match=r"model\.image_size: a multiple of"):
        load_recipe("paper", None, {"model": model})
    load_recipe("paper", None, {"model": {**model, "image_size": 96}})
    load_recipe("paper", None, {"model": {"image_size": size, "encoder": {"arch": "resnet18"}}})


def test_a_position_part_alone_needs_a_position_code() -> None:
    assert load_recipe("small", None, {"train": {"part": "position"}})
    with pytest.raises(UsageError, match="no position code"):
        load_recipe("small", None, {"train": {"part": "position"}, "model": {"single_head": True}})


def test_more_crops_than_images_are_refused() -> None:
    with pytest.raises(UsageError, match=r"augment\.crop: at most 1"):
        load_recipe("small", None, {"train": {"augment": {"crop": 1.5}}})


def test_a_style_part_alone_needs_a_model_to_stand_on() -> None:
    with pytest.raises(UsageError, match="needs a trained model"):
        load_recipe("small", None, {"train": {"part": "style"}})
    assert load_recipe("small", None, {"train": {"part": "style"}, "pretrained": "fetal-head"})
