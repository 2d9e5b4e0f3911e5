"""Section 3.4's terms against float64, hand counts and known geometry."""

import math

import numpy as np
import pytest
import torch

from mhvae_cli.vae.losses import SHARPNESS, coarse_miss, contour_miss, log_cosh, soft_dice, warmup


def test_log_cosh_is_that_of_float64() -> None:
    rng = np.random.default_rng(3)
    recon, image = rng.uniform(-1, 1, (4, 1, 8, 8)), rng.uniform(-1, 1, (4, 1, 8, 8))
    truth = (np.log(np.cosh(SHARPNESS * (recon - image))) / SHARPNESS).mean((1, 2, 3))
    found = log_cosh(torch.from_numpy(recon).float(), torch.from_numpy(image).float())
    np.testing.assert_allclose(found.numpy(), truth, rtol=1e-5)


def test_log_cosh_neither_overflows_nor_loses_its_gradient() -> None:
    error = torch.tensor([-1e6, -50.0, 0.0, 50.0, 1e6], requires_grad=True)
    loss = log_cosh(error[:, None], torch.zeros(5, 1))
    tail = (error.detach().abs() - math.log(2) / SHARPNESS).clamp_min(0)  # log cosh x -> |x| - log 2
    torch.testing.assert_close(loss.detach(), tail, rtol=1e-6, atol=1e-6)
    loss.sum().backward()
    torch.testing.assert_close(error.grad, torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0]))


def test_log_cosh_is_per_sample() -> None:
    recon = torch.zeros(2, 3, 4, 4)
    recon[1] = 1
    found = log_cosh(recon, torch.zeros_like(recon))
    assert found.shape == (2,) and found[0] == 0 and found[1] > 0.9


def test_coarse_miss_sees_tones_and_no_texture() -> None:
    """Speckle that is bright on one pixel in 16: its median is no loss to log-cosh, and is one here."""
    image = torch.zeros(2, 1, 64, 64)
    image[0, :, ::4, ::4] = 1.6
    dark, mean = torch.zeros(2, 1, 64, 64), torch.full((2, 1, 64, 64), 0.1)
    assert log_cosh(dark, image)[0] < log_cosh(mean, image)[0]
    assert coarse_miss(dark, image)[0] > 1.5 * coarse_miss(mean, image)[0]
    exact = 2 * 0.1**2 + 0.4**2 / 4  # of 1 and 8 px the thumbnail is even; of 32 a quarter of it is bright
    assert abs(float(coarse_miss(dark, image)[0]) - exact) < 1e-6
    assert coarse_miss(dark, image)[1] == 0


def test_soft_dice_is_the_hand_count() -> None:
    mask, pred = torch.zeros(3, 4, 4), torch.zeros(3, 4, 4)
    mask[0, :2] = 1
    pred[0, 1:3] = 1  # 8 and 8 pixels, 4 of them shared
    mask[1, :, :2] = 1
    pred[1] = 0.5  # 8 pixels, half of each of 16
    torch.testing.assert_close(soft_dice(pred, mask)[:2], torch.tensor([9 / 17, 9 / 17]))
    assert soft_dice(pred, mask)[2] == 1  # nothing to find and nothing found
    assert soft_dice(mask, mask)[0] == 1


def test_soft_dice_of_a_large_mask_is_dice() -> None:
    mask, pred = torch.zeros(1, 256, 256), torch.zeros(1, 256, 256)
    mask[0, :100, :100] = 1
    pred[0, 50:150, :100] = 1
    torch.testing.assert_close(soft_dice(pred, mask), torch.tensor([0.5]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("zoom", [1.0, 0.2, 3.0])
def test_contour_miss_of_a_shifted_circle_is_its_distance_in_the_image(zoom: float) -> None:
    """The rim of a circle moved by d lies at r + d cos(angle), to first order, from the true centre."""
    radius, shift = 0.5, 0.01
    angles = 2 * np.pi * np.arange(360) / 360
    rim = np.stack([radius * np.cos(angles) + shift, radius * np.sin(angles)], axis=1)
    away = np.linalg.norm(rim, axis=1)
    level = torch.from_numpy(zoom * (radius - away))[None]  # a warp that magnifies the reference's frame
    slope = torch.from_numpy(-zoom * (rim / away[:, None]).T)[None]
    miss = contour_miss(level, slope, torch.ones_like(level))
    assert abs(float(miss) - shift**2 / 2) < 0.03 * shift**2 / 2


def test_contour_miss_leaves_out_what_the_border_cut_and_saturates() -> None:
    level = torch.tensor([[0.1, 5.0, -0.1, 7.0]])
    slope = torch.tensor([[[1.0] * 4, [0.0] * 4]])
    weight = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    torch.testing.assert_close(
        contour_miss(level, slope, weight), torch.tensor([0.01 / 1.01]), rtol=2e-3, atol=0
    )
    assert contour_miss(level, slope, torch.zeros(1, 4)).item() == 0
    assert contour_miss(1e6 * level, slope, weight).item() <= 1


def test_warmup_rises_from_nothing() -> None:
    assert [warmup(p, 0.2) for p in (0, 0.1, 0.2, 0.7)] == [0, 0.5, 1, 1]
    assert warmup(0.0, 0.0) == 1
