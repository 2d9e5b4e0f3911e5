"""A model's figures on validation images are those of its masks, counted by hand."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mhvae_cli.checkpoints.model_card import MIN_FOLLOWS
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.inference.loading import load_model
from mhvae_cli.training import validation
from mhvae_cli.training.datasets import Batch, MaskedImages, discover
from mhvae_cli.training.validation import (
    TABLE_SIZE,
    contact_sheet,
    follows,
    predict_theta,
    reconstruct,
    score_masks,
    validate,
)
from mhvae_cli.vae.fitting import fit
from mhvae_cli.vae.model import MultiHeadedVAE


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> MultiHeadedVAE:
    return load_model(tiny_model)[0].float()


@pytest.fixture(scope="module")
def val(phantom_folder: Path) -> MaskedImages:
    return MaskedImages(discover(phantom_folder), image_size=32, channels=1, workers=1)


def test_agreement_is_dice_and_hausdorff_in_256ths(model: MultiHeadedVAE) -> None:
    theta = torch.zeros(3, model.theta_dim)
    own = (model.mask(theta[:1], (64, 64))[0] > 0.5).detach().numpy()
    assert own.any() and not own.all()
    beside = np.roll(own, 1, axis=1)
    dices, distances = score_masks(model, theta, np.stack([own, beside, np.zeros_like(own)]))
    assert dices == [1, pytest.approx(dice(own, beside)), 0]
    assert distances == [0, TABLE_SIZE / 64, pytest.approx(TABLE_SIZE * 2**0.5)]


def test_figures_are_the_means_over_the_images(model: MultiHeadedVAE, val: MaskedImages) -> None:
    figures = validate(model, val)
    truths = val.masks.numpy() > 127
    with torch.inference_mode():
        image = val.plain(range(len(val)))
        latents, recon = reconstruct(model, image)
        dices, distances = score_masks(model, predict_theta(model, image), truths)
    assert figures["val_dice"] == pytest.approx(np.mean(dices))
    assert figures["val_hd"] == pytest.approx(np.mean(distances))
    lowered = float(figures["follows"] < MIN_FOLLOWS)
    assert figures["score"] == pytest.approx(figures["val_dice"] - figures["val_hd"] / 256 - lowered)
    moved = model.decode(type(latents)(latents.z.roll(1, 0), latents.theta))
    assert figures["moved_by_z"] == pytest.approx(float((moved - recon).detach().abs().mean()), rel=1e-4)
    position = validate(model, val, decoded=False)
    assert position.keys() == {"val_dice", "val_hd", "follows", "score"}
    assert position["val_dice"] == pytest.approx(figures["val_dice"])


@pytest.mark.parametrize("count", [1, 8])
def test_a_mean_shape_does_not_follow_and_is_never_the_best(
    count: int, model: MultiHeadedVAE, phantom_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even on one image, whose object its mask may happen to fit."""
    val = MaskedImages(discover(phantom_folder)[:count], image_size=32, channels=1, workers=1)
    still = torch.zeros(1, model.theta_dim)
    monkeypatch.setattr(validation, "predict_theta", lambda _model, image: still.expand(len(image), -1))
    assert follows(model, val) < 0.05
    blind = validate(model, val, decoded=False)
    assert blind["score"] < 0 < blind["val_dice"] - blind["val_hd"] / 256 + 0.5

    def known(_model: MultiHeadedVAE, image: torch.Tensor) -> torch.Tensor:
        offsets = [fit(model.warp, mask.numpy() > 0.5) for mask in masks.pop(0)]
        return model.warp.theta_of(model.warp.identity + torch.from_numpy(np.stack(offsets)).float())

    masks, batch = [], val.batch

    def noted(*args: Any, **options: Any) -> Batch:
        drawn = batch(*args, **options)
        masks.append(drawn.mask)
        return drawn

    monkeypatch.setattr(val, "batch", noted)
    monkeypatch.setattr(validation, "predict_theta", known)
    assert follows(model, val) > 0.9


def test_the_sheet_has_a_row_an_image(model: MultiHeadedVAE, val: MaskedImages) -> None:
    one, two = (contact_sheet(model, val, range(count)) for count in (1, 2))
    assert one.shape[1] == two.shape[1] and two.shape[0] - one.shape[0] >= 192
    short = contact_sheet(model, val, range(1), decoded=False)
    assert short.shape[1] < one.shape[1]  # no reconstruction
    blind = copy.deepcopy(model)
    for parameter in blind.image_head.parameters():
        parameter.data.zero_()
    assert np.array_equal(contact_sheet(blind, val, range(1), decoded=False), short)
    changed = (contact_sheet(blind, val, range(1)) != one).reshape(*one.shape[:2], -1).any(axis=(0, 2))
    assert changed.any() and np.ptp(np.flatnonzero(changed)) < 192  # the reconstruction alone
