"""New latent codes: the same of any number, from the density, cut by the edge as training objects are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mhvae_cli.diffusion.density import CUT_SIDE, Density, cut_share
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.inference.pipeline import Pipeline
from mhvae_cli.inference.sampling import found_again, sample_code
from mhvae_cli.vae.decoder import resized

SIZE = (61, 90)


@pytest.fixture(scope="module")
def pipeline(tiny_refined: Path) -> Pipeline:
    return Pipeline.load(tiny_refined, device="cpu", dtype="float32")


def test_samples_do_not_depend_on_their_number(pipeline: Pipeline) -> None:
    few, many = list(pipeline.sample(1, steps=2)), list(pipeline.sample(2, steps=2))
    assert len(few) == 1 and np.array_equal(few[0].pixels, many[0].pixels)
    assert many[0].pixels.shape == (32, 32) and not np.array_equal(many[0].code.z, many[1].code.z)
    sized = next(pipeline.sample(1, size=SIZE, steps=2, seed=1))
    assert sized.pixels.shape == SIZE and not np.array_equal(sized.code.z, many[0].code.z)
    codes = [
        sample_code(pipeline.networks, Density.prior(4, 40), i, seed=0, size=SIZE).code for i in range(400)
    ]
    drawn = np.array([[*code.z, *code.theta] for code in codes])
    assert np.abs(drawn.mean(0)).max() < 0.2 and np.abs(drawn.std(0) - 1).max() < 0.15


def test_objects_are_cut_by_the_edge_no_more_than_training_objects(pipeline: Pipeline) -> None:
    networks, free = pipeline.networks, Density.prior(4, 40)

    def cuts(density: Density) -> np.ndarray:
        codes = [sample_code(networks, density, i, seed=0, size=SIZE).code for i in range(60)]
        return np.array([cut_share(networks.mask(code.theta, (CUT_SIDE, CUT_SIDE))) for code in codes])

    usual = cuts(free)
    most = float(np.quantile(usual, 0.8))
    assert 0 < most < usual.max() and cuts(replace(free, cut=most)).max() <= most


def test_objects_stand_out_of_their_images_no_less_than_training_objects(pipeline: Pipeline) -> None:
    networks, free = pipeline.networks, Density.prior(4, 40)

    def found(density: Density) -> np.ndarray:
        codes = [sample_code(networks, density, i, seed=0, size=SIZE).code for i in range(40)]
        images = networks.decode(codes).clip(-1, 1)
        _, theta = networks.encode(resized(torch.from_numpy(images), networks.config.image_size).numpy())
        asked = [networks.mask_of(code, (CUT_SIDE, CUT_SIDE)) for code in codes]
        return np.array(
            [dice(a, networks.mask(b, (CUT_SIDE, CUT_SIDE))) for a, b in zip(asked, theta, strict=True)]
        )

    usual = found(free)
    least = float(np.median(usual))
    assert usual.min() < least and found(replace(free, found=least)).min() >= least - 1e-6
    [again] = found_again(
        networks.model, networks.latents([sample_code(networks, free, 0, seed=0, size=SIZE).code])
    )
    assert again == pytest.approx(usual[0], abs=1e-6)
