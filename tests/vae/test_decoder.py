"""The segmentation head shows the disc, or any reference, through the warp."""

import numpy as np
import pytest
import torch
from support.warps import FAMILIES, LAYOUTS, mask_of, moments, random_theta, theta_of_affine

from mhvae_cli.config import WarpConfig
from mhvae_cli.vae.decoder import SegmentationHead
from mhvae_cli.vae.fitting import distance_map
from mhvae_cli.vae.warp import RADIUS, Warp, control_points, pixel_centres

SIZES = [(256, 256), (320, 200), (540, 800)]


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_gradients_of_grid_and_soft_mask(config: WarpConfig) -> None:
    warp, head = Warp(config).double(), SegmentationHead(0.1, 0)
    warp.modes.mul_(0.7)
    theta = random_theta(warp, 0.2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: warp(t, (3, 4)), theta)
    assert torch.autograd.gradcheck(lambda t: head(warp(t, (4, 3))), theta)


def test_gradient_of_the_mask_of_a_reference_map() -> None:
    warp, head = Warp(WarpConfig("affine")).double(), SegmentationHead(0.2, 16).double()
    distance = RADIUS - np.linalg.norm(pixel_centres((16, 16)), axis=1)
    head.reference.copy_(torch.from_numpy(distance.reshape(16, 16)))
    theta = random_theta(warp, 0.2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: head(warp(t, (4, 3))), theta)


@pytest.mark.parametrize("points", LAYOUTS)
def test_gradients_are_finite_where_distances_are_nil(points: str) -> None:
    """At the control points r is 0, and at the disc's centre so is the norm."""
    warp, head = Warp(WarpConfig("tps", points)), SegmentationHead(0.02, 0)
    theta = torch.zeros(1, warp.theta_dim, requires_grad=True)
    places = np.concatenate([control_points(points), [[0.0, 0.0]]])[None]
    head(warp.at(theta, places)[:, :, None]).sum().backward()
    assert theta.grad.isfinite().all()
    theta.grad = None
    head(warp(theta, (5, 5))).sum().backward()
    assert theta.grad.isfinite().all() and theta.grad.abs().max() > 0


@pytest.mark.parametrize("config", FAMILIES, ids=str)
@pytest.mark.parametrize("size", [(64, 64), (63, 65), (256, 256), (320, 200)])
def test_nil_theta_is_a_disc_of_its_exact_area(config: WarpConfig, size: tuple[int, int]) -> None:
    warp = Warp(config)
    mask = mask_of(warp, torch.zeros(1, warp.theta_dim), size)
    h, w = size
    truth = np.pi * RADIUS**2 * h * w / 4  # pixels
    # A tenth of the outline's pixels: align_corners, or half a pixel's shift, costs more at every size.
    assert abs(mask.sum() - truth) < 0.1 * np.pi * RADIUS * max(h, w)
    centre, spread = moments(mask)
    np.testing.assert_allclose(centre, 0, atol=1e-3)
    np.testing.assert_allclose(spread, np.eye(2) * RADIUS**2 / 4, atol=2e-3)


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_one_theta_is_one_shape_at_every_size(config: WarpConfig) -> None:
    warp = Warp(config)
    theta = random_theta(warp, 0.08 if config.family == "tps" else 0.2)
    masks = [mask_of(warp, theta, size) for size in SIZES]
    areas = [4 * mask.mean() for mask in masks]
    assert 0.2 < areas[0] < 2.5
    np.testing.assert_allclose(areas, areas[0], rtol=5e-3)
    for mask in masks[1:]:
        h, w = mask.shape
        rows, columns = (np.arange(256) * 2 + 1) * h // 512, (np.arange(256) * 2 + 1) * w // 512
        other = mask[np.ix_(rows, columns)]
        assert (masks[0] & other).sum() / (masks[0] | other).sum() > 0.98


def test_a_reference_map_of_a_disc_is_the_disc() -> None:
    warp, head = Warp(WarpConfig("affine")), SegmentationHead(0.02, 128)
    distance = RADIUS - np.linalg.norm(pixel_centres((128, 128)), axis=1)
    head.reference.copy_(torch.from_numpy(distance).view(128, 128))
    source = warp(theta_of_affine(warp, np.array([[2.0, 0.3, 0.2], [-0.4, 1.5, 0.1]])), (200, 300))
    exact, mapped = SegmentationHead(0.02, 0).level(source), head.level(source)
    inner = source.abs().amax(1) < 0.98
    # Bilinear look-up errs most where the cone has its tip, by half a pixel of the map.
    assert (exact - mapped)[inner].abs().max() < 0.008
    assert ((exact >= 0) != (mapped >= 0)).float().mean() < 1e-3


def test_a_reference_that_touches_its_border_ends_there() -> None:
    warp, head = Warp(WarpConfig("affine")), SegmentationHead(0.02, 64)
    left = np.zeros((64, 64), bool)
    left[:, :32] = True
    head.reference.copy_(torch.from_numpy(distance_map(left, 64)))
    source = warp(theta_of_affine(warp, np.array([[4.0, 0, 0], [0, 4.0, 0]])), (256, 256))
    y, x = np.nonzero((head.level(source)[0] >= 0).numpy())
    # One of these pixels is one of the map's, which may run over by a half.
    assert (x.min(), x.max()) == (pytest.approx(96, abs=1), pytest.approx(127, abs=1))
    assert (y.min(), y.max()) == (pytest.approx(96, abs=1), pytest.approx(159, abs=1))
