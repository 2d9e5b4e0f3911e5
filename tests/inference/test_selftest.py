"""What the self-test compares a device with is right."""

from pathlib import Path

import pytest
import torch

from mhvae_cli import Pipeline
from mhvae_cli.config import TEXTURE
from mhvae_cli.inference import selftest
from mhvae_cli.inference.texturing import texture_maps
from mhvae_cli.vae.latents import Latents


def test_the_truth_is_that_of_float64(tmp_path: Path) -> None:
    """The stored numbers again: in float64, on one thread, by torch's plain kernels."""
    selftest.write_model(tmp_path / "small")
    networks = Pipeline.load(tmp_path / "small", device="cpu", dtype="float32").networks
    refiner, model = networks.refiner.double(), networks.model.double()
    pose, threads = torch.from_numpy(selftest.POSE)[None], torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        image = torch.from_numpy(selftest.phantom(64, 1))[None].double()
        theta, z = (posterior.mean.double() for posterior in model.posteriors(image))
        x_hat = model.decode(Latents(z, theta, pose)).double()
        level = model.level_map(theta, (64, 64), pose).double()
        tail = torch.from_numpy(selftest.noise(TEXTURE, 6))[None].float().double()
        texture = texture_maps(model, refiner.network, Latents(torch.cat([z, tail], 1), theta, pose), 64)
        found = {
            "encode": torch.cat([z, theta], 1),
            "warp": model.warp.grid(theta, (64, 64), pose),
            "decode": x_hat,
            "refine": refiner.refine(
                x_hat, ["self-test"], steps=selftest.STEPS, level=level, texture=texture
            ),
        }
    torch.set_num_threads(threads)
    for name, truth in selftest.TRUTH.items():
        assert selftest.project(found[name][0].numpy()) == pytest.approx(truth, abs=2e-6), name


def test_its_numbers_are_integers_made() -> None:
    """SplitMix64's own first outputs for seed 0 (Vigna's splitmix64.c), as this module scales them."""
    first = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    drawn = selftest.noise(4, 0)
    assert drawn[1:].tolist() == [(value >> 11) / 2**52 - 1 for value in first]
    assert abs(selftest.noise(10_000, 9).mean()) < 0.03
