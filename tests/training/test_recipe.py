"""Recipes are a preset under a file under flags, and a faulty one is one line."""

import json
from pathlib import Path

import pytest

from mhvae_cli.checkpoints.folder import read_config
from mhvae_cli.checkpoints.registry import resolve
from mhvae_cli.config import (
    CDDPMRecipe,
    DiffusionConfig,
    ModelConfig,
    TrainConfig,
    UNetConfig,
    from_dict,
)
from mhvae_cli.errors import UsageError
from mhvae_cli.training.recipe import PRESETS, load_cddpm_recipe, load_recipe


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_valid(name: str) -> None:
    from_dict(ModelConfig, PRESETS[name].get("model", {}))
    from_dict(TrainConfig, PRESETS[name].get("train", {}))


def test_the_paper_preset_is_the_papers_model() -> None:
    model = from_dict(ModelConfig, PRESETS["paper"].get("model", {}))
    assert (model.encoder.arch, model.encoder.width, model.image_size) == ("resnet50", 1.0, 256)
    assert (model.warp.family, model.warp.points) == ("tps", "circular")
    assert not model.single_head and model.reference == 0


def test_a_recipe_is_a_preset_under_a_file_under_flags(tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps({"model": {"image_size": 64, "z_dim": 8}, "train": {"lr": 0.25}}))
    recipe, keys = load_recipe("small", file, {"model": {"z_dim": 16}})
    assert (recipe.model.image_size, recipe.model.z_dim, recipe.train.lr) == (64, 16, 0.25)
    assert recipe.model.encoder.hidden == PRESETS["small"]["model"]["encoder"]["hidden"]
    assert keys == {"model.channels"}


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
        ("model.tones", -1),
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


def test_a_cddpms_recipe_is_a_file_under_flags(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.json"
    values = {"diffusion": {"sees": "x", "unet": {"channels": 16}}, "train": {"lr": 0.25, "crop": 32}}
    file.write_text(json.dumps(values))
    options = {"train": {"crop": 0}, "diffusion": {"process": "diffusevae"}}
    recipe, undecided = load_cddpm_recipe(file, options, model=tiny_model)
    assert recipe.diffusion.unet == UNetConfig(channels=16) and recipe.diffusion.sees == "x"
    assert recipe.diffusion.process == "diffusevae" and not undecided
    assert (recipe.train.lr, recipe.train.crop) == (0.25, 0) and recipe.card == {}
    assert load_cddpm_recipe(None, {}, model=tiny_model, start="scratch") == (
        CDDPMRecipe(diffusion=DiffusionConfig(spectral=True)),
        set(),
    )


def test_a_cddpms_configuration_is_that_of_its_start(tiny_model: Path, tiny_refined: Path) -> None:
    """As fine in relation to the VAE as it was: the bundled one draws on a square of its own."""
    own, undecided = load_cddpm_recipe(None, {"train": {"lr": 1e-3}}, model=tiny_refined)
    assert own.diffusion.unet == UNetConfig(channels=8, levels=2, blocks=1) and undecided == {"train.epochs"}
    assert (own.train.lr, own.train.crop, own.train.level) == (1e-3, 0, 0.0)
    assert load_cddpm_recipe(None, {"train": {"epochs": 2}}, model=tiny_refined)[1] == set()
    bundled = read_config(resolve("fetal-head"))
    found, _ = load_cddpm_recipe(None, {}, model=tiny_model)  # grey, without a cDDPM
    assert found.diffusion.unet == from_dict(UNetConfig, bundled["cddpm"]["model"]["unet"])
    fineness = bundled["cddpm"]["model"].get("image_size", 0) / bundled["model"]["image_size"]
    assert found.diffusion.image_size == round(32 * fineness)


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
def test_a_cddpms_value_out_of_range_is_named(
    tiny_model: Path, key: str, value: float | str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_cddpm_recipe(None, nested(key, value), model=tiny_model)
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
    assert load_recipe("small", None, {"train": {"part": "style"}, "start": "fetal-head"})


def test_a_boundary_head_alone_needs_a_model_and_its_place_in_it() -> None:
    alone = {"train": {"part": "boundary"}}
    with pytest.raises(UsageError, match="needs a trained model"):
        load_recipe("auto", None, alone)
    with pytest.raises(UsageError, match=r"needs model\.boundary = true"):
        load_recipe("small", None, {**alone, "model": {"boundary": False}, "start": "fetal-head"})
    recipe, _ = load_recipe("auto", None, {**alone, "start": "fetal-head", "model": {"boundary": True}})
    assert recipe.model.boundary


def test_an_encoder_without_bundled_weights_starts_from_scratch() -> None:
    resnet = {"model": {"encoder": {"arch": "resnet18"}}}
    assert load_recipe("auto", None, resnet)[0].start == "scratch"
    assert load_recipe("auto", None, {})[0].start == "imagenet"
    assert load_recipe("auto", None, {**resnet, "start": "imagenet"})[0].start == "imagenet"  # refused later
