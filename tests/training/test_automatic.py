"""What train-vae chooses from the data: from masks and numbers of images, never against what was told."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mhvae_cli.config import CDDPMRecipe, Recipe
from mhvae_cli.training.automatic import (
    agreement,
    channels_of,
    choose,
    choose_cddpm,
    describe_choices,
    in_time,
    steps_of,
)
from mhvae_cli.training.datasets import Sample, discover
from mhvae_cli.training.phantoms import write_phantoms
from mhvae_cli.training.recipe import CHOSEN, load_recipe

UNDECIDED = CHOSEN | {"model.channels"}
RECIPE = load_recipe("auto", None, {})[0]


def disc(side: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return np.hypot(rows - side / 2 + 3, columns - side / 2) <= radius


def data(folder: Path, masks: list[np.ndarray]) -> list[Sample]:
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        for number, mask in enumerate(masks):
            Image.fromarray(mask.astype(np.uint8) * 255).save(folder / kind / f"{number}.png")
    return discover(folder)


def square(side: int, *, of: int = 64) -> np.ndarray:
    mask = np.zeros((of, of), bool)
    mask[4 : 4 + side, 8 : 8 + side] = True
    return mask


def test_ellipses_get_an_affine_warp_and_squares_a_spline(tmp_path: Path) -> None:
    ellipses = data(tmp_path / "discs", [disc(64, 20), disc(64, 12)])
    squares = data(tmp_path / "squares", [square(30), square(40)])
    assert choose(RECIPE, UNDECIDED, ellipses).model.warp.family == "affine"
    assert choose(RECIPE, UNDECIDED, squares).model.warp.family == "tps"
    assert choose(RECIPE, UNDECIDED - {"model.warp.family"}, ellipses).model.warp.family == "tps"
    assert agreement("affine", [disc(96, 20)]) > 0.98 > 0.95 > agreement("affine", [square(40, of=96)])


def test_small_objects_are_seen_at_a_higher_resolution(tmp_path: Path) -> None:
    small, large = (data(tmp_path / str(side), [square(side)] * 2) for side in (8, 40))
    sizes = [choose(RECIPE, UNDECIDED, samples).model.image_size for samples in (small, large)]
    assert sizes == [192, 160]
    assert choose(RECIPE, {"train.epochs"}, small).model == RECIPE.model


def test_colour_is_that_of_the_images(phantom_folder: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "skin", "skin-lesion", 2, size=(40, 40))
    grey, colour = discover(phantom_folder), discover(tmp_path / "skin")
    assert (channels_of(grey), channels_of(colour), channels_of(grey + colour)) == (1, 3, 3)
    assert choose(Recipe(), {"model.channels"}, colour).model.channels == 3
    assert choose(Recipe(), set(), colour) == Recipe()


@pytest.mark.parametrize(("count", "least", "most"), [(20, 600, 700), (300, 1280, 1330), (3000, 2950, 3200)])
def test_the_length_is_in_steps_whatever_an_epoch_is(
    count: int, least: int, most: int, tmp_path: Path
) -> None:
    samples = data(tmp_path, [disc(64, 20)]) * count
    train = choose(RECIPE, {key for key in UNDECIDED if key.startswith("train.")}, samples).train
    used = round(count * (1 - train.val_fraction))
    assert least <= steps_of(train, used) <= most
    assert 20 <= train.epochs / train.validate_every <= 40 or train.validate_every == 1
    assert train.lr_warmup * steps_of(train, used) >= 45  # steps in which the encoder is spared
    assert 4 <= count - used <= max(20, count // 10)


def test_a_training_is_shortened_to_be_complete_in_time() -> None:
    recipe = replace(RECIPE, train=replace(RECIPE.train, epochs=100, validate_every=3))
    assert in_time(recipe, 160, 0.5, None) == recipe == in_time(recipe, 160, 0.5, time.monotonic() + 1000)
    short = in_time(recipe, 160, 0.5, time.monotonic() + 100)
    assert 60 < steps_of(short.train, 160) * 0.5 < 100
    assert in_time(recipe, 160, 9.0, time.monotonic() - 5).train.epochs == 1
    told = describe_choices(recipe.model, recipe.train, 160, 0.5)
    assert "tps warp, 160 px, 1,000 steps in 100 epochs: about 10 min" in told


def test_the_length_of_a_cddpms_training_is_one_of_steps(phantom_folder: Path) -> None:
    samples = discover(phantom_folder) * 4
    recipe = CDDPMRecipe()
    chosen = choose_cddpm(recipe, {"train.epochs"}, samples)
    count = int(len(samples) * 0.9)
    assert 1000 <= steps_of(chosen.train, count) < 1000 + count // recipe.train.batch_size
    assert choose_cddpm(recipe, set(), samples) == recipe
