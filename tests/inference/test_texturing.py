"""The texture code as a part of the style code: measured, moved along with the object, kept in files."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from support.training_runs import write_json

from mhvae_cli import Pipeline
from mhvae_cli.config import TEXTURE
from mhvae_cli.diffusion.texture import SIDE
from mhvae_cli.inference.texturing import texture_maps, with_texture
from mhvae_cli.training.phantoms import phantom, write_phantoms
from mhvae_cli.vae.editing import transform_code

CONFIG = {
    "diffusion": {
        "sees": "residual+recon+mask+known+place+texture",
        "spectral": True,
        "unet": {"channels": 8, "levels": 2, "blocks": 1},
    },
    "train": {"epochs": 1, "batch_size": 4, "crop": 16, "crops": 1, "val_fraction": 0.1},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "heads"
    write_phantoms(folder, "fetal-head", 40, size=(48, 64))
    shutil.rmtree(folder / "masks")
    return folder


@pytest.fixture(scope="module")
def model(
    mhvae: Callable[..., Any], data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny model with a cDDPM that sees the texture, trained for an epoch by the command."""
    home = tmp_path_factory.mktemp("textured")
    config = write_json(home / "config.json", CONFIG)
    how = ("--config", config, "--from", "scratch", "--device", "cpu", "--dtype", "float32")
    ended = mhvae("train-cddpm", "--model", tiny_model, "--data", data, "--out", home / "run", *how)
    assert ended.code == 0, ended.stderr
    return home / "run"


@pytest.fixture(scope="module")
def scans(data: Path) -> list[Path]:
    return sorted((data / "images").iterdir())


@pytest.fixture(scope="module")
def pipeline(model: Path) -> Pipeline:
    return Pipeline.load(model, device="cpu", dtype="float32")


def test_style_codes_are_longer_and_drawn_as_such(pipeline: Pipeline, scans: list[Path]) -> None:
    networks = pipeline.networks
    assert networks.style_dim == networks.config.z_dim + TEXTURE == networks.density.z_dim
    codes = np.stack([pipeline.source(scan).code.z for scan in scans])
    assert codes.shape == (len(scans), networks.style_dim)
    found = codes[:, -TEXTURE:]
    assert 0.5 < np.sqrt(np.square(found).mean()) < 2  # of unit variance where it was fitted
    drawn = np.stack([networks.density.draw(np.random.default_rng(i))[0] for i in range(200)])[:, -TEXTURE:]
    assert 0.5 < drawn.std() < 2


def test_a_rougher_image_is_drawn_rougher() -> None:
    """A lesion, and the same without its detail, by a trained model."""
    lesions = Pipeline.load("skin-lesion", device="cpu", dtype="float32")
    image = phantom("skin-lesion", 1, (200, 260))[0]
    rough = image + np.random.default_rng(0).normal(0, 15, image.shape)
    images = [gaussian_filter(image, (4, 4, 0)), rough.clip(0, 255).astype(np.uint8)]
    made = [lesions.reconstruct(each, steps=4).pixels.astype(float) for each in images]
    detail = [(pixels - gaussian_filter(pixels, (4, 4, 0))).std() for pixels in made]
    assert detail[1] > 1.4 * detail[0]


def test_texture_moves_along_with_the_object(pipeline: Pipeline, scans: list[Path]) -> None:
    """Detail of the object alone: where the mask goes, it goes."""
    networks = pipeline.networks
    network, vae = networks.refiner.network, networks.model
    assert network.texture is not None
    code = pipeline.source(scans[0]).code
    latents = networks.latents([replace(code, z=code.z[:-TEXTURE])])
    inside = torch.from_numpy(networks.mask(code.theta, (64, 64), code.pose))
    noisy = 0.3 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0)) * inside
    flat = torch.zeros(1, 1, 64, 64)
    layers = vae.layers(
        torch.where(inside, 0.0, -8.0)[None, None].expand(1, 2, -1, -1), latents.theta, side=SIDE
    )
    kept = network.texture.mean.clone(), network.texture.basis.clone()
    try:
        # One component: the object's energy.
        network.texture.basis.zero_()
        network.texture.basis[0] = layers.flatten(1) - layers.mean()
        network.texture.mean.fill_(float(layers.mean()))
        longer = with_texture(vae, network, noisy, flat, latents)
        made = replace(code, z=longer.z[0].numpy())
        moved = transform_code(made, about=(0, 0), shift=(14.0, -9.0))
        maps, masks = [], []
        for each in (made, moved):
            found = texture_maps(vae, network, networks.latents([each]), 64)
            assert found is not None
            maps.append(found[0, 0].numpy())
            masks.append(networks.mask(each.theta, (64, 64), each.pose))
        gaps = [[m[mask].mean() - m[~mask].mean() for mask in masks] for m in maps]
        assert gaps[0][0] > 1.5 and gaps[1][1] > 1.5
        assert gaps[0][1] < gaps[0][0] - 0.5 and gaps[1][0] < gaps[1][1] - 0.5
    finally:
        network.texture.mean.copy_(kept[0])
        network.texture.basis.copy_(kept[1])


def test_the_verbs_that_make_images(
    mhvae: Callable[..., Any], model: Path, scans: list[Path], tmp_path: Path
) -> None:
    how = ("--model", model, "--steps", 2, "--device", "cpu", "--dtype", "float32")
    a, b = scans[:2]
    for verb in (
        ("reconstruct", a, "--save-latents"),
        ("swap-style", a, b, "--detail", "invent"),
        ("interpolate", a, b, "--detail", "invent"),
        ("warp", a, "--rotate", 20),
        ("sample", "-n", 1),
        ("sample", "-n", 1, "--codes", "prior"),
    ):
        out = tmp_path / f"{verb[0]}{len(verb)}"
        ended = mhvae(*verb, *how, "--out", f"{out}/")
        assert ended.code == 0, (verb, ended.stderr)
    [latents] = (tmp_path / "reconstruct3").rglob("*.safetensors")
    again = mhvae("reconstruct", latents, *how, "--out", f"{tmp_path / 'again'}/")
    assert again.code == 0, again.stderr
    pictures = [next((tmp_path / name).glob("*.png")).read_bytes() for name in ("reconstruct3", "again")]
    first, second = (np.asarray(Image.open(BytesIO(data))) for data in pictures)
    assert np.array_equal(first, second)


def test_a_code_of_another_texture_is_refused(
    mhvae: Callable[..., Any], model: Path, tiny_refined: Path, scans: list[Path], tmp_path: Path
) -> None:
    """Both models have the same VAE."""
    how = ("--steps", 2, "--device", "cpu", "--dtype", "float32")
    made = tmp_path / "made"
    assert (
        mhvae("reconstruct", scans[0], "--model", model, *how, "--save-latents", "--out", f"{made}/").code
        == 0
    )
    [latents] = made.rglob("*.safetensors")
    ended = mhvae("reconstruct", latents, "--model", tiny_refined, *how, "--out", f"{tmp_path / 'other'}/")
    assert ended.code != 0 and "latent code of another model" in ended.stderr
