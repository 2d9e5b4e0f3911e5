"""What a training starts from; what only a new cDDPM sees changes nothing at first."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mhvae_cli.checkpoints.folder import read_config
from mhvae_cli.config import CDDPMRecipe, DiffusionConfig, UNetConfig, from_dict
from mhvae_cli.errors import ModelError, UsageError
from mhvae_cli.inference.loading import load_model, load_refiner
from mhvae_cli.training.recipe import load_cddpm_recipe
from mhvae_cli.training.warm_start import attribution_of, describe_start, start_refiner, start_vae
from mhvae_cli.vae.model import build


@pytest.fixture
def own(tiny_refined: Path) -> CDDPMRecipe:
    """A recipe of the configuration that the tiny refined model's cDDPM has."""
    return CDDPMRecipe(diffusion=from_dict(DiffusionConfig, read_config(tiny_refined)["cddpm"]["model"]))


def started(model: Path, recipe: CDDPMRecipe, start: str | None = None) -> Any:
    return start_refiner(model, load_model(model)[0], recipe, start=start, offline=True)


def test_a_network_that_sees_more_begins_with_what_it_was_taught(
    tiny_refined: Path, own: CDDPMRecipe
) -> None:
    more = replace(own, diffusion=replace(own.diffusion, sees="residual+recon+mask+known+place"))
    refiner, origin, measured = started(tiny_refined, more)
    assert origin == f"starting from the cDDPM of {read_config(tiny_refined)['name']}" and not measured
    trained = load_refiner(tiny_refined)
    u, x_hat, level = torch.randn(3, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    refiner.network.scale.copy_(trained.network.scale)
    with torch.inference_mode():
        before = trained.network.score(u, 0.5, x_hat)
        torch.testing.assert_close(
            refiner.network.score(u, 0.5, x_hat, refiner.network.hints(x_hat, level)), before
        )
    assert before.abs().max() > 0


def test_a_network_whose_answer_means_something_else_answers_anew(tiny_model: Path) -> None:
    same, _ = load_cddpm_recipe(None, {}, model=tiny_model)  # that of the bundled one that is grey too
    other = replace(same, diffusion=replace(same.diffusion, spectral=not same.diffusion.spectral))
    kept, anew = (started(tiny_model, recipe, "fetal-head")[0].network.unet for recipe in (same, other))
    assert kept.leave[-1].weight.abs().max() > 0 and anew.leave[-1].weight.abs().max() == 0
    torch.testing.assert_close(anew.enter.weight, kept.enter.weight)


def test_where_a_training_starts(tiny_model: Path, tiny_refined: Path, own: CDDPMRecipe) -> None:
    assert started(tiny_refined, own)[1:] == ("starting from the model's cDDPM", True)
    assert started(tiny_refined, own, "scratch")[1:] == ("from scratch", False)
    assert started(tiny_model, own)[1:] == ("from scratch", False)  # no bundled one is so small
    assert "tiny-refined" in started(tiny_model, own, str(tiny_refined))[1]
    default, _ = load_cddpm_recipe(None, {}, model=tiny_model)  # that of the bundled one that is grey too
    assert started(tiny_model, default)[1] == "starting from the cDDPM of fetal-head"


def test_what_does_not_fit_is_refused(tiny_model: Path, tiny_refined: Path, own: CDDPMRecipe) -> None:
    wide = replace(own, diffusion=replace(own.diffusion, unet=UNetConfig(channels=24)))
    for start, recipe in ((tiny_refined, wide), (tiny_model, own), ("skin-lesion", CDDPMRecipe())):
        with pytest.raises(ModelError, match="no cDDPM of this configuration with 1 channels"):
            started(tiny_model, recipe, str(start))
    vae = load_model(tiny_model)[0]
    vae.warp = None
    masked = replace(own, diffusion=replace(own.diffusion, sees="residual+recon+mask"))
    with pytest.raises(UsageError, match="no mask"):
        start_refiner(tiny_model, vae, masked, start=None)


def test_a_vae_of_other_colours_answers_to_grey_as_before(tiny_model: Path) -> None:
    grey, _ = load_model(tiny_model)
    colour = build(replace(grey.config, channels=3))
    assert start_vae(colour, str(tiny_model), part="all") == {"position", "style", "boundary", "reference"}
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        found = colour.eval().locate(image.expand(-1, 3, -1, -1)).mean
        torch.testing.assert_close(found, grey.float().eval().locate(image).mean, rtol=1e-3, atol=1e-4)
    told = describe_start(str(tiny_model), {"position", "style", "boundary", "reference"}, colour)
    assert told == "starting from tiny, its image head anew"


def test_a_larger_image_keeps_the_encoder_and_begins_the_heads_anew(tiny_model: Path) -> None:
    small, _ = load_model(tiny_model)
    large = build(replace(small.config, image_size=64), seed=5)
    untouched = large.encoder.theta[0].weight.clone()
    assert "position" not in start_vae(large, str(tiny_model), part="all")
    assert torch.equal(large.encoder.convnet.conv1.weight, small.encoder.convnet.conv1.weight)
    assert torch.equal(large.encoder.theta[0].weight, untouched)
    assert start_vae(build(small.config), "scratch", part="all") == set()


def test_a_start_is_attributed_with_its_licence(tiny_model: Path) -> None:
    assert attribution_of("scratch") == {}
    assert "EfficientNet-Lite0 (Apache-2.0)" in attribution_of("imagenet")["attribution"]
    assert "weights of tiny, licence apache-2.0" in attribution_of(str(tiny_model))["attribution"]
    assert "licence CC BY-NC-SA 4.0" in attribution_of("skin-lesion")["attribution"]
