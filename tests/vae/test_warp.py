"""Deformations against torch's own grids, scipy's thin plate, and shapes known in closed form."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.interpolate import RBFInterpolator

from mhvae_cli.config import WarpConfig
from mhvae_cli.vae.decoder import SegmentationHead
from mhvae_cli.vae.fitting import distance_map
from mhvae_cli.vae.warp import MIN_MODE, RADIUS, Warp, control_points, kernel, pixel_centres

LAYOUTS = ("circular", "uniform")
FAMILIES = [WarpConfig("affine"), *(WarpConfig("tps", points) for points in LAYOUTS)]
SIZES = [(256, 256), (320, 200), (540, 800)]


def theta_of_affine(warp: Warp, matrix: np.ndarray) -> torch.Tensor:
    """The code under which `warp` is the affine map `matrix` (2, 3)."""
    if warp.points is None:
        parameters = torch.tensor(matrix)
    else:
        parameters = torch.tensor((warp.points @ matrix[:, :2].T + matrix[:, 2]).T)
    return warp.theta_of(parameters.to(warp.loc)[None])


def random_theta(warp: Warp, spread: float, count: int = 1) -> torch.Tensor:
    rng = torch.Generator().manual_seed(warp.theta_dim)
    return spread * torch.randn(count, warp.theta_dim, generator=rng, dtype=warp.loc.dtype)


def mask_of(
    warp: Warp, theta: torch.Tensor, size: tuple[int, int], pose: torch.Tensor | None = None
) -> np.ndarray:
    return (SegmentationHead(0.02, 0).level(warp(theta, size, pose))[0] >= 0).numpy()


def moments(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (2,) and covariance (2, 2) in [-1, 1] xy, of the pixels' centres."""
    h, w = mask.shape
    points = pixel_centres((h, w))[mask.ravel()]
    return points.mean(0), np.cov(points.T, bias=True)


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


# Shapes


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
