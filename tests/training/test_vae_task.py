"""The VAE's objective is the sum that the configuration asks for, of the parts that are trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mhvae_cli.config import AugmentConfig, LossConfig, TrainConfig, WarpConfig
from mhvae_cli.errors import ModelError
from mhvae_cli.inference.loading import load_model
from mhvae_cli.training.datasets import Batch, MaskedImages, discover
from mhvae_cli.training.vae_task import Objective, prepare_model
from mhvae_cli.vae.latents import Latents
from mhvae_cli.vae.losses import log_cosh
from mhvae_cli.vae.model import MultiHeadedVAE, build

PARTS = {
    "position": ("encoder.convnet.", "encoder.reduce.", "encoder.theta."),
    "style": ("encoder.z.", "image_head."),
    "boundary": ("boundary_head.",),
}


@pytest.fixture
def model(tiny_model: Path) -> MultiHeadedVAE:
    return load_model(tiny_model)[0]


@pytest.fixture(scope="module")
def data(phantom_folder: Path) -> MaskedImages:
    return MaskedImages(discover(phantom_folder), image_size=32, channels=1, workers=1)


@pytest.fixture
def batch(data: MaskedImages, model: MultiHeadedVAE) -> Batch:
    dims = (model.theta_dim, model.config.z_dim)
    return data.batch(list(range(8)), AugmentConfig(), seed=0, epoch=0, dims=dims)


def objective(model: MultiHeadedVAE, **train: Any) -> Objective:
    return Objective(model, TrainConfig(**train)).train()


@pytest.mark.parametrize("part", ["all", "position", "style"])
def test_only_the_part_that_is_trained_has_gradients(model: MultiHeadedVAE, batch: Batch, part: Any) -> None:
    trained = objective(model, part=part)
    trained(batch, 0.5)["loss"].backward()
    names = {name for name, value in model.named_parameters() if value.grad is not None}
    assert names == {name for name, value in model.named_parameters() if value.requires_grad}
    assert names == {n for n, _ in model.named_parameters() if part == "all" or n.startswith(PARTS[part])}
    assert trained.training == model.training == (part != "style")  # what is frozen stays in evaluation


@pytest.mark.parametrize("part", ["all", "position", "style", "boundary"])
def test_the_boundary_head_alone_learns_from_its_loss(model: MultiHeadedVAE, batch: Batch, part: Any) -> None:
    model = build(replace(model.config, boundary=True))
    trained = objective(model, part=part)
    found = trained(batch, 0.5)
    assert ("boundary" in found) == (part != "style")
    if part == "style":
        return
    found["boundary"].backward()
    names = {name for name, value in model.named_parameters() if value.grad is not None}
    # The last layer starts at 0, so the others have gradients, which are 0.
    assert names == {name for name, _ in model.named_parameters() if name.startswith("boundary_head.")}
    assert trained.training == (part != "boundary")


def test_the_style_is_learnt_where_the_boundary_head_puts_the_object(
    model: MultiHeadedVAE, batch: Batch
) -> None:
    """As in use: elsewhere, the image head would draw a rim beside the one that is asked for."""
    model = build(replace(model.config, boundary=True))
    torch.nn.init.normal_(model.boundary_head.leave.weight, std=3.0)
    batch = replace(batch, eps_theta=torch.zeros_like(batch.eps_theta), eps_z=torch.zeros_like(batch.eps_z))
    found = float(objective(model, part="style")(batch, 0.5)["recon"].detach())
    with torch.no_grad():
        theta, z = (q.mean for q in model.posteriors(batch.image))
        own = model.encoder.position(model.encoder.features(batch.image)[0]).mean
        wanted, other = (log_cosh(model.decode(Latents(z, at)), batch.image).mean() for at in (theta, own))
    assert found == pytest.approx(float(wanted), rel=1e-5) and abs(wanted - other) > 1e-3 * wanted


def test_the_loss_is_the_weighted_sum_of_its_parts(model: MultiHeadedVAE, batch: Batch) -> None:
    loss = LossConfig(contour=3.0, coarse=0.7, consistency=0.4, kl_warmup=0.5)
    found = objective(model, loss=loss)(batch, 0.25)  # half of the warm-up
    said = {name: float(value.detach()) for name, value in found.items()}
    want = loss.recon * said["recon"] + 0.5 * (loss.kl_z * said["kl_z"] + loss.kl_theta * said["kl_theta"])
    want += loss.dice * (1 - said["dice"]) + 3.0 * said["contour"]
    want += 0.7 * said["coarse"] + 0.4 * said["consistency"]
    assert said["loss"] == pytest.approx(want, rel=1e-5)
    plain = objective(model, loss=replace(loss, contour=0.0, coarse=0.0, consistency=0.0))(batch, 0.25)
    assert plain.keys() == {"loss", "recon", "kl_z", "dice", "kl_theta"}


def test_a_fresh_model_knows_the_warps_of_the_masks(model: MultiHeadedVAE, data: MaskedImages) -> None:
    fresh = prepare_model(model.config, data, seed=3)[0]
    again = prepare_model(model.config, data, seed=3)[0]
    for name, value in fresh.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    mean = fresh.mask(torch.zeros(1, fresh.theta_dim), (64, 64))[0] > 0.5
    share = (data.masks > 127).float().mean()
    assert float(mean.float().mean()) == pytest.approx(float(share), rel=0.3)
    assert not torch.equal(fresh.warp.loc, torch.zeros_like(fresh.warp.loc))


def test_a_whole_model_is_taken_over_or_does_not_fit(
    model: MultiHeadedVAE, data: MaskedImages, tiny_model: Path
) -> None:
    taken = prepare_model(model.config, data, seed=3, start=str(tiny_model))[0]
    for name, value in model.state_dict().items():
        assert torch.equal(taken.state_dict()[name], value), name
    other = replace(model.config, z_dim=5)
    anew, told = prepare_model(other, data, seed=3, start=str(tiny_model))
    assert told == "starting from tiny, its style and image heads anew"
    assert torch.equal(anew.encoder.theta[2].weight, model.encoder.theta[2].weight)
    affine = replace(model.config, warp=WarpConfig(family="affine"))
    with pytest.raises(ModelError, match=r"encoder\.theta\..* differs"):
        prepare_model(affine, data, seed=3, start=str(tiny_model), part="style")
    style = prepare_model(other, data, seed=3, start=str(tiny_model), part="style")[0]
    assert torch.equal(style.encoder.theta[2].weight, model.encoder.theta[2].weight)
