"""The outline is moved to the boundary: points, normals and refitted warps against analytic shapes."""

import numpy as np
import pytest
import torch
from support.warps import FAMILIES, theta_of_affine
from torch import Tensor

from mhvae_cli.config import DecoderConfig, EncoderConfig, ModelConfig, WarpConfig
from mhvae_cli.vae import boundary
from mhvae_cli.vae.boundary import (
    FARTHEST,
    NUDGES,
    POINTS,
    BoundaryHead,
    boundary_miss,
    nudged,
    outlines,
    refitted,
    true_distance,
)
from mhvae_cli.vae.model import build
from mhvae_cli.vae.warp import RADIUS, Warp, pixel_centres


def bent(config: WarpConfig, spread: float = 0.05) -> tuple[Warp, Tensor]:
    """A warp, and thetas of two objects that differ from an ellipse by `spread`."""
    warp = Warp(config)
    matrices = [np.array([[1.4, 0.2, 0.1], [-0.3, 1.1, -0.2]]), np.array([[-0.9, 0.1, 0.0], [0.1, 1.2, 0.1]])]
    theta = torch.cat([theta_of_affine(warp, matrix) for matrix in matrices])
    noise = torch.randn(theta.shape, generator=torch.Generator().manual_seed(3))
    return warp, (theta + spread * noise * (config.family == "tps")).float()


def levels(warp: Warp, theta: Tensor, points: np.ndarray) -> np.ndarray:
    """The distance (B, K) of points (B, K, 2) from the reference's rim, positive inside."""
    parameters = warp.parameters_of(theta).double().numpy()
    sources = [warp.sources(p, each) for p, each in zip(points, parameters, strict=True)]
    return RADIUS - np.linalg.norm(sources, axis=2)


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_points_lie_on_the_outline_and_normals_point_outward(config: WarpConfig) -> None:
    warp, theta = bent(config)
    found = outlines(warp, theta)
    assert found.points.shape == found.normals.shape == (2, POINTS, 2) and found.found.all()
    assert np.abs(levels(warp, theta, found.points)).max() < 1e-5
    step = 1e-4
    out = levels(warp, theta, found.points + step * found.normals) / step
    along = levels(warp, theta, found.points + step * found.normals[..., ::-1] * [1, -1]) / step
    np.testing.assert_allclose(out, -found.slope, rtol=2e-3, atol=1e-3)
    assert np.abs(along).max() < 0.01 and (out < 0).all()


def test_a_folded_warp_is_left_alone() -> None:
    warp, theta = bent(WarpConfig("tps"), spread=1.5)
    found = outlines(warp, theta)
    assert (found.found.mean(1) < boundary.MIN_FOUND).all()
    distance = torch.full((2, POINTS), 0.1)
    assert torch.equal(refitted(warp, theta, found, distance, torch.zeros(2, POINTS)), theta)


@pytest.mark.parametrize("config", FAMILIES, ids=str)
def test_theta_is_refitted_to_another_warps_outline(config: WarpConfig) -> None:
    warp, theta = bent(config)
    change = 0.04 * torch.randn(theta.shape, generator=torch.Generator().manual_seed(5))
    goal = theta + change
    found = outlines(warp, theta)
    rays = np.linspace(-0.3, 0.3, 2001)
    distance = np.zeros((2, POINTS))
    for i in range(2):
        for k in range(POINTS):
            ray = found.points[i, k] + rays[:, None] * found.normals[i, k]
            inside = levels(warp, goal[i : i + 1], ray[None])[0] >= 0
            crossings = rays[:-1][inside[:-1] & ~inside[1:]]
            distance[i, k] = crossings[np.abs(crossings).argmin()]
    moved = refitted(warp, theta, found, torch.from_numpy(distance), torch.zeros(2, POINTS))
    before, after = (
        np.abs(levels(warp, goal, outlines(warp, each).points)).max(1) for each in (theta, moved)
    )
    assert (before > 0.03).all() and (after < 0.15 * before).all()
    still = refitted(warp, theta, found, torch.zeros(2, POINTS), torch.zeros(2, POINTS))
    torch.testing.assert_close(still, theta, atol=1e-4, rtol=0)


def test_points_of_which_little_is_known_count_little() -> None:
    warp, theta = bent(WarpConfig("affine"))
    found = outlines(warp, theta)
    wrong = torch.zeros(2, POINTS)
    wrong[:, :10] = 0.2
    sure, unsure = torch.full((2, POINTS), -4.0), torch.full((2, POINTS), -4.0)
    unsure[:, :10] = 0.0
    moves = [(refitted(warp, theta, found, wrong, each) - theta).norm(dim=1) for each in (sure, unsure)]
    assert (moves[1] < 0.01 * moves[0]).all()


def discs(radii: list[float], size: int = 160) -> Tensor:
    distance = np.hypot(*pixel_centres((size, size)).T).reshape(size, size)
    return torch.from_numpy(np.stack([(distance <= radius).astype(np.float32) for radius in radii]))


def test_distances_to_a_disc_are_known() -> None:
    angles = torch.arange(POINTS) * 2 * torch.pi / POINTS
    normals = torch.stack([angles.cos(), angles.sin()], dim=1)[None].repeat(4, 1, 1)
    found = true_distance(discs([0.4, 0.5, 0.6, 0.05]), 0.5 * normals, normals)
    torch.testing.assert_close(found.mean(1)[:3], torch.tensor([-0.1, 0.0, 0.1]), atol=0.004, rtol=0)
    assert found[:3].std(dim=1).max() < 0.006  # of pixels 0.0125 wide
    assert (found[3] == -FARTHEST).all()
    full = true_distance(torch.ones(1, 32, 32), 0.5 * normals[:1], normals[:1])
    assert (full == FARTHEST).all()


def test_outlines_are_moved_at_random_as_told() -> None:
    warp, theta = bent(WarpConfig("affine"))
    found = outlines(warp, theta)
    points, normals = nudged(found, torch.zeros(2, NUDGES))
    np.testing.assert_allclose(points.numpy(), found.points, atol=1e-6)
    assert (normals.numpy() * found.normals).sum(-1).min() > 0.99
    numbers = torch.randn(2, NUDGES, generator=torch.Generator().manual_seed(1))
    moved, turned = nudged(found, numbers)
    assert 0.003 < float((moved - points).norm(dim=-1).mean()) < 0.1
    assert float((turned * normals).sum(-1).min()) > 0.7
    torch.testing.assert_close(turned.norm(dim=-1), torch.ones(2, POINTS))


def test_the_likelihood_is_laplaces() -> None:
    from scipy.stats import laplace

    rng = np.random.default_rng(0)
    distance, target = rng.normal(0, 0.1, (2, 2, POINTS))
    log_error = rng.uniform(-4, 0, (2, POINTS))
    weight = (rng.random((2, POINTS)) < 0.7).astype(float)
    given = map(torch.from_numpy, (distance, log_error, target, weight))
    truth = -laplace.logpdf(target, distance, np.exp(log_error)) - np.log(2)
    np.testing.assert_allclose(boundary_miss(*given), (truth * weight).sum(1) / weight.sum(1))


def test_the_head_learns_to_see_a_boundary() -> None:
    """Discs of many sizes, and outlines that are wrong: after a short training most of the error is gone."""
    torch.manual_seed(0)
    head = BoundaryHead(1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    warp = Warp(WarpConfig("affine"))
    theta = theta_of_affine(warp, np.eye(2, 3)).float().repeat(16, 1)
    found, rng = outlines(warp, theta), np.random.default_rng(0)

    def step() -> tuple[Tensor, Tensor, Tensor]:
        masks = discs(rng.uniform(0.4, 0.6, 16).tolist(), size=64)
        points, normals = nudged(found, torch.from_numpy(rng.standard_normal((16, NUDGES), np.float32)))
        target = true_distance(masks, points, normals)
        noise = torch.from_numpy(rng.normal(0, 0.1, masks.shape)).float()
        distance, log_error = head([(masks - 0.5 + noise)[:, None]], points, normals)
        return distance, log_error, target

    first = step()
    assert not first[0].any()
    for _ in range(100):
        distance, log_error, target = step()
        optimizer.zero_grad()
        boundary_miss(distance, log_error, target, torch.ones(16, POINTS)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        distance, log_error, target = step()
    error = float((distance - target).abs().mean())
    assert error < 0.25 * float(target.abs().mean())
    assert 0.5 < float(log_error.exp().mean()) / error < 2


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnet50-vit-b16", "efficientnet-lite0"])
def test_an_untrained_head_moves_nothing(arch: str) -> None:
    encoder = EncoderConfig(arch=arch, width=0.125, reduce=4, hidden=8)
    small = {"image_size": 64, "z_dim": 3, "encoder": encoder, "decoder": DecoderConfig(channels=8)}
    plain, model = (build(ModelConfig(**small, boundary=each), seed=1).eval() for each in (False, True))
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("boundary_head.")})
    image = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(model.locate(image).mean, plain.locate(image).mean, atol=1e-4, rtol=0)
        assert model.boundary_head is not None
        model.boundary_head.leave.bias.copy_(torch.tensor([1.0, 0.0]))  # the boundary is 0.1 farther out
        grown, before = (each.mask(each.locate(image).mean, (64, 64)).sum((1, 2)) for each in (model, plain))
    assert ((grown / before).sqrt() - 1 - 0.1 / RADIUS).abs().max() < 0.03
