"""Images are split into their object and their ground by a warp, and joined again by the same or another."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from support.warps import FAMILIES, random_theta, theta_of_affine
from torch import Tensor

from mhvae_cli.config import WarpConfig
from mhvae_cli.vae.decoder import SegmentationHead
from mhvae_cli.vae.tones import join, split
from mhvae_cli.vae.warp import Warp, pixel_centres

SIDE = 32
LEVEL = SegmentationHead(0.02, 0).level
AFFINE = np.array([[1.4, 0.3, -0.2], [-0.2, 1.1, 0.1]])
MOVED = np.array([[1.0, -0.6, 0.3], [0.5, 1.3, -0.2]])


def layers_of(image: np.ndarray, warp: Warp, theta: Tensor, side: int = SIDE) -> Tensor:
    given = torch.from_numpy(image).float()[None]
    affine = warp.affine_part(warp.parameters_of(theta))
    return split(given, affine, warp(theta, (side, side)), LEVEL, side)


def scene(affine: np.ndarray, size: int = 128) -> np.ndarray:
    """A picture (3, S, S): a ground that darkens to the right, an object with a pattern in its own frame."""
    points = pixel_centres((size, size))
    source = points @ affine[:, :2].T + affine[:, 2]
    pattern = 0.5 + 0.8 * source[:, 0] * source[:, 1] - 0.4 * source[:, 1]
    ground = -0.5 - 0.3 * points[:, 0]
    level = 0.5 - np.linalg.norm(source, axis=1)
    shown = ground + (pattern - ground) / (1 + np.exp(-level / 0.04))
    return np.stack([shown, shown * 0.5, -shown]).reshape(3, size, size)


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_a_split_image_is_joined_again(config: WarpConfig) -> None:
    warp = Warp(config)
    theta = theta_of_affine(warp, AFFINE)
    image = scene(AFFINE)
    joined = join(layers_of(image, warp, theta), warp(theta, (64, 64)), LEVEL)[0].numpy()
    truth = image.reshape(3, 64, 2, 64, 2).mean((2, 4))
    assert np.abs(joined - truth).mean() < 0.02 and np.abs(joined - truth).max() < 0.25


def test_moved_layers_are_the_moved_object() -> None:
    """The layers of one scene, joined by another warp, are the scene with its object there."""
    warp = Warp(WarpConfig("affine"))
    theta, goal = theta_of_affine(warp, AFFINE), theta_of_affine(warp, MOVED)
    joined = join(layers_of(scene(AFFINE), warp, theta), warp(goal, (64, 64)), LEVEL)[0].numpy()
    truth = scene(MOVED).reshape(3, 64, 2, 64, 2).mean((2, 4))
    assert np.abs(joined - truth).mean() < 0.04


def test_the_objects_layer_does_not_depend_on_its_place() -> None:
    warp = Warp(WarpConfig("affine"))
    first, second = (
        layers_of(scene(affine), warp, theta_of_affine(warp, affine))[0, 0].numpy()
        for affine in (AFFINE, MOVED)
    )
    disc = (np.linalg.norm(pixel_centres((SIDE, SIDE)), axis=1) < 0.45).reshape(SIDE, SIDE)
    assert np.abs(first - second)[:, disc].max() < 0.06
    source = pixel_centres((SIDE, SIDE))
    pattern = (0.5 + 0.8 * source[:, 0] * source[:, 1] - 0.4 * source[:, 1]).reshape(SIDE, SIDE)
    well_inside = (np.linalg.norm(source, axis=1) < 0.35).reshape(SIDE, SIDE)
    assert np.abs(first[0] - pattern)[well_inside].max() < 0.06


def test_neither_layer_shows_what_lies_under_or_around() -> None:
    """The ground's hole is filled from the ground, and the object's surroundings from the object."""
    warp = Warp(WarpConfig("affine"))
    theta = theta_of_affine(warp, AFFINE)
    level = LEVEL(warp(theta, (128, 128)))[0].numpy()
    for layer, rim in ((0, -0.2), (1, 0.1)):  # what lies beyond a narrow margin must not be seen
        image = np.where(level > rim, 0.9, -0.7)[None]
        found = layers_of(image, warp, theta)[0, layer].numpy()
        assert found.min() > 0.6 if layer == 0 else found.max() < -0.5


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_the_affine_part_is_the_least_squares_fit(config: WarpConfig) -> None:
    warp = Warp(config)
    theta = random_theta(warp, 0.1, 3)
    found = warp.affine_part(warp.parameters_of(theta)).numpy()
    points = pixel_centres((2, 3)) if warp.points is None else warp.points
    rows = np.column_stack([points, np.ones(len(points))])
    for each, sources in zip(found, warp.at(theta, np.stack([points] * 3)).numpy(), strict=True):
        np.testing.assert_allclose(each.T, np.linalg.lstsq(rows, sources.T, rcond=None)[0], atol=1e-5)


def test_the_object_is_sampled_through_the_inverse_warp() -> None:
    """Against scipy: well inside the object, where nothing is filled."""
    warp = Warp(WarpConfig("affine"))
    theta = theta_of_affine(warp, AFFINE)
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 4) * 5
    found = layers_of(image[None], warp, theta)[0, 0, 0].numpy()
    frame = pixel_centres((SIDE, SIDE))
    points = np.linalg.solve(AFFINE[:, :2], (frame - AFFINE[:, 2]).T)
    columns, rows = ((points + 1) * 64 - 1) / 2
    truth = ndimage.map_coordinates(image, [rows, columns], order=1, mode="nearest").reshape(SIDE, SIDE)
    disc = (np.linalg.norm(frame, axis=1) < 0.35).reshape(SIDE, SIDE)
    np.testing.assert_allclose(found[disc], truth[disc], atol=0.03)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e6])
def test_a_warp_without_an_inverse_still_gives_numbers(scale: float) -> None:
    warp = Warp(WarpConfig("affine"))
    theta = theta_of_affine(warp, AFFINE * scale)
    assert layers_of(scene(AFFINE), warp, theta).isfinite().all()
