"""Deformations against torch's own grids and scipy's thin plate."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import RBFInterpolator
from support.warps import FAMILIES, LAYOUTS, mask_of, moments, random_theta, theta_of_affine

from mhvae_cli.config import WarpConfig
from mhvae_cli.vae.warp import MIN_MODE, RADIUS, Warp, control_points, kernel, pixel_centres


def turn_on_screen(degrees: float) -> np.ndarray:
    """The (2, 2) matrix that turns xy points, y down, counter-clockwise to the eye."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, s], [-s, c]])


# Frames


def test_pixel_centres_are_those_of_align_corners_false() -> None:
    identity = torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]], dtype=torch.float64)
    truth = F.affine_grid(identity, [1, 1, 3, 5], align_corners=False).reshape(-1, 2)
    np.testing.assert_allclose(pixel_centres((3, 5)), truth.numpy(), atol=1e-15)


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_nil_theta_is_the_identity(config: WarpConfig) -> None:
    warp = Warp(config)
    found = warp(torch.zeros(2, warp.theta_dim), (7, 9))
    assert found.shape == (2, 2, 7, 9)
    truth = pixel_centres((7, 9)).T.reshape(2, 7, 9)
    np.testing.assert_allclose(found.numpy(), np.stack([truth, truth]), atol=2e-6)


def test_control_points_are_the_papers() -> None:
    ring, mesh = control_points("circular"), control_points("uniform")
    assert ring.shape == (20, 2) and mesh.shape == (25, 2)
    assert np.ptp(np.linalg.norm(ring, axis=1)) < 1e-12
    steps = np.diff(np.unwrap(np.arctan2(ring[:, 1], ring[:, 0])))
    np.testing.assert_allclose(steps, 2 * np.pi / 20)
    assert {tuple(p) for p in mesh.tolist()} == {(x / 2, y / 2) for x in range(-2, 3) for y in range(-2, 3)}


# Exactness


def test_affine_is_affine_grid() -> None:
    warp = Warp(WarpConfig("affine"))
    theta = random_theta(warp, 0.5, 3)
    matrices = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]) + theta.view(3, 2, 3)
    for size in [(8, 8), (13, 22)]:
        truth = F.affine_grid(matrices, [3, 1, *size], align_corners=False)
        torch.testing.assert_close(warp.grid(theta, size), truth, atol=2e-6, rtol=0)


@pytest.mark.parametrize("points", LAYOUTS)
def test_spline_with_affinely_moved_points_is_the_affine_warp(points: str) -> None:
    matrix = np.array([[1.2, -0.4, 0.3], [0.5, 0.7, -0.2]])
    spline, affine = Warp(WarpConfig("tps", points)).double(), Warp(WarpConfig("affine")).double()
    found = spline(theta_of_affine(spline, matrix), (31, 44))
    torch.testing.assert_close(found, affine(theta_of_affine(affine, matrix), (31, 44)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("points", LAYOUTS)
def test_spline_is_scipys_thin_plate(points: str) -> None:
    warp = Warp(WarpConfig("tps", points)).double()
    theta = random_theta(warp, 0.3)
    sources = warp.parameters_of(theta)[0].numpy().T
    truth = RBFInterpolator(control_points(points), sources, kernel="thin_plate_spline", degree=1)
    size = (29, 37)
    found = warp(theta, size)[0].flatten(1).numpy().T
    np.testing.assert_allclose(found, truth(pixel_centres(size)), atol=1e-9)


@pytest.mark.parametrize("points", LAYOUTS)
def test_control_points_are_interpolated(points: str) -> None:
    warp = Warp(WarpConfig("tps", points)).double()
    theta = random_theta(warp, 0.4, 2)
    found = warp.at(theta, np.stack([control_points(points)] * 2))
    torch.testing.assert_close(found, warp.parameters_of(theta), atol=1e-9, rtol=0)


def test_kernel_is_guarded_at_nothing() -> None:
    r2 = np.array([0.0, 1.0, np.e, 0.25, 1e-320])
    with np.errstate(all="raise", under="ignore"):
        found = kernel(r2)
    np.testing.assert_allclose(found, [0, 0, np.e, 0.25 * np.log(0.25), 0], atol=1e-300)


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_theta_of_inverts_parameters_of(config: WarpConfig) -> None:
    warp = Warp(config)
    warp.loc.copy_(torch.randn(warp.loc.shape, generator=torch.Generator().manual_seed(0)))
    warp.modes.mul_(0.3)
    theta = random_theta(warp, 1.0, 2)
    torch.testing.assert_close(warp.theta_of(warp.parameters_of(theta)), theta, atol=1e-5, rtol=0)


def correlated(count: int) -> torch.Tensor:
    """Offsets (count, 2, 20) that vary together, and one of them not at all."""
    rng = torch.Generator().manual_seed(5)
    offsets = torch.randn(count, 40, generator=rng) @ (0.3 * torch.randn(40, 40, generator=rng)) / 40**0.5
    offsets = offsets.unflatten(1, (2, 20)) + 0.2
    offsets[:, 0, 0] = 0.7
    return offsets


def test_statistics_make_theta_standard_normal() -> None:
    warp, offsets = Warp(WarpConfig("tps")), correlated(500)
    warp.set_statistics(offsets)
    nil = torch.zeros(1, warp.theta_dim)
    torch.testing.assert_close(warp.parameters_of(nil)[0] - warp.identity, offsets.mean(0))
    theta = warp.theta_of(warp.identity + offsets)
    torch.testing.assert_close(theta.mean(0), nil[0], atol=1e-3, rtol=0)
    steps = warp.parameters_of(torch.eye(warp.theta_dim)) - warp.parameters_of(nil)
    lengths = steps.flatten(1).norm(dim=1)
    assert (lengths.diff() <= 1e-6).all()  # largest first
    free = lengths > MIN_MODE * 1.001
    assert 30 < free.sum() < 40
    spread = torch.cov(theta.T, correction=0)[free][:, free]
    torch.testing.assert_close(spread, torch.eye(len(spread)), atol=2e-3, rtol=0)
    # What never varied can be reached all the same.
    torch.testing.assert_close(lengths[~free], torch.full_like(lengths[~free], MIN_MODE))
    assert warp.theta_of(warp.identity + offsets[:1] + 0.1).isfinite().all()


def test_statistics_of_one_mask_are_numbers() -> None:
    warp, offsets = Warp(WarpConfig("tps")), correlated(1)
    warp.set_statistics(offsets)
    nil = torch.zeros(1, warp.theta_dim)
    torch.testing.assert_close(warp.parameters_of(nil)[0] - warp.identity, offsets[0])
    assert warp.modes.isfinite().all()


# Gradients


def test_what_was_seen_in_inference_can_still_be_trained() -> None:
    warp = Warp(WarpConfig("tps"))
    with torch.inference_mode():
        warp(torch.zeros(1, warp.theta_dim), (6, 6))
    theta = torch.zeros(1, warp.theta_dim, requires_grad=True)
    warp(theta, (6, 6)).sum().backward()
    assert theta.grad.abs().max() > 0


# Precision


def test_autocast_leaves_the_warp_exact() -> None:
    warp = Warp(WarpConfig("tps"))
    theta = random_theta(warp, 0.1, 2)
    points = np.full((2, 3, 2), 0.3)
    warp.modes += 0.01 * torch.randn(warp.modes.shape, generator=torch.Generator().manual_seed(6))
    plain = warp(theta, (24, 24))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warp(theta, (24, 24)), plain)
        assert warp.at(theta, points).dtype == torch.float32


def test_the_basis_follows_the_modules_precision() -> None:
    warp, sharp = Warp(WarpConfig("tps")), Warp(WarpConfig("tps")).double()
    warp(torch.zeros(1, warp.theta_dim), (9, 9))
    warp.double()
    theta = random_theta(warp, 0.3)
    torch.testing.assert_close(warp(theta, (9, 9)), sharp(theta, (9, 9)), atol=1e-12, rtol=0)


def test_many_threads_may_ask_for_many_sizes() -> None:
    """More sizes than are kept, so that some are dropped while others are asked for."""
    warp = Warp(WarpConfig("affine"))
    theta, faults = random_theta(warp, 0.3), []
    truths = {
        n: F.affine_grid(warp.parameters_of(theta), [1, 1, n, 1], align_corners=False) for n in range(1, 25)
    }

    def work(first: int) -> None:
        try:
            for i in range(300):
                side = 1 + (first + i * 7) % 24
                if (warp.grid(theta, (side, 1)) - truths[side]).abs().max() > 1e-5:
                    faults.append(side)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


# A user's edits


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_plus_45_degrees_is_counter_clockwise_on_the_screen(config: WarpConfig) -> None:
    """An ellipse lying along x, turned, points up to the right; its axes stay what they were."""
    warp = Warp(config)
    theta = theta_of_affine(warp, np.array([[RADIUS / 0.6, 0, 0], [0, RADIUS / 0.3, 0]]))
    pose = np.concatenate([np.linalg.inv(turn_on_screen(45)), np.zeros((2, 1))], axis=1)
    mask = mask_of(warp, theta, (256, 256), torch.tensor(pose)[None])
    _, spread = moments(mask)
    values, vectors = np.linalg.eigh(spread)
    np.testing.assert_allclose(2 * np.sqrt(values), [0.3, 0.6], rtol=0.01)
    x, y = vectors[:, 1]
    assert np.rad2deg(np.arctan2(-y, x)) % 180 == pytest.approx(45, abs=0.5)
    assert mask[:128, 128:].sum() > 2 * mask[:128, :128].sum()  # up and to the right


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_a_shift_and_a_zoom_go_where_they_say(config: WarpConfig) -> None:
    warp = Warp(config)
    edit = np.array([[0.5, 0, 0.3], [0, 0.5, -0.2]])  # half as large, right and up
    inverse = np.linalg.inv(edit[:, :2])
    pose = torch.tensor(np.concatenate([inverse, -(inverse @ edit[:, 2])[:, None]], axis=1))[None]
    centre, spread = moments(mask_of(warp, torch.zeros(1, warp.theta_dim), (256, 256), pose))
    np.testing.assert_allclose(centre, [0.3, -0.2], atol=2e-3)
    np.testing.assert_allclose(2 * np.sqrt(np.diag(spread)), RADIUS / 2, rtol=0.01)


def test_an_affine_pose_is_the_same_as_folding_it_into_theta() -> None:
    warp = Warp(WarpConfig("affine")).double()
    theta = random_theta(warp, 0.3, 2)
    rng = np.random.default_rng(9)
    pose = torch.from_numpy(rng.normal(0, 0.3, (2, 2, 3)) + np.eye(2, 3))
    square = torch.cat([pose, torch.tensor([[[0.0, 0, 1]]] * 2, dtype=pose.dtype)], dim=1)
    folded = warp.theta_of(warp.parameters_of(theta) @ square)
    torch.testing.assert_close(warp(theta, (11, 17), pose), warp(folded, (11, 17)))


@pytest.mark.parametrize("points", LAYOUTS)
def test_a_spline_pose_is_exact(points: str) -> None:
    """D(A^-1 p), as scipy's interpolator gives it at the moved points, each sample with its own pose."""
    warp = Warp(WarpConfig("tps", points)).double()
    theta = random_theta(warp, 0.2, 2)
    pose = np.stack([np.eye(2, 3), np.hstack([1.3 * turn_on_screen(30), [[0.1], [-0.2]]])])
    found = warp(theta, (12, 10), torch.from_numpy(pose))
    sources = warp.parameters_of(theta).numpy()
    for i in range(2):
        truth = RBFInterpolator(control_points(points), sources[i].T, kernel="thin_plate_spline", degree=1)
        moved = pixel_centres((12, 10)) @ pose[i, :, :2].T + pose[i, :, 2]
        np.testing.assert_allclose(found[i].flatten(1).numpy().T, truth(moved), atol=1e-9)
