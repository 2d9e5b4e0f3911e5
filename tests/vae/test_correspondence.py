"""Which points of two images show the same part of the object, against the warps themselves."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mhvae_cli.config import WarpConfig
from mhvae_cli.vae.correspondence import correspondence
from mhvae_cli.vae.editing import LatentCode, transform_code
from mhvae_cli.vae.warp import Warp, pixel_centres

POINTS = pixel_centres((24, 24))


def code_of(theta: np.ndarray, pose: np.ndarray | None = None) -> LatentCode:
    return LatentCode(z=np.zeros(2, np.float32), theta=theta.astype(np.float32), pose=pose, size=(60, 80))


def to_reference(warp: Warp, code: LatentCode, points: np.ndarray) -> np.ndarray:
    """The warp of a latent code at points of its image, through `Warp.at`."""
    posed = points if code.pose is None else points @ code.pose[:, :2].T + code.pose[:, 2]
    return warp.double().at(torch.from_numpy(code.theta).double()[None], posed[None])[0].numpy().T


@pytest.fixture(params=["affine", "tps"])
def warp(request: pytest.FixtureRequest) -> Warp:
    return Warp(WarpConfig(family=request.param))


def test_an_edit_by_a_pose_is_that_pose(warp: Warp) -> None:
    source = code_of(np.full(warp.theta_dim, 0.05))
    target = transform_code(source, about=(30.0, 20.0), rotate=90, scale=0.5)
    # A quarter turn counter-clockwise on the screen sends an offset (x, y) to (y, -x), y down.
    offset = (POINTS + 1) / 2 * [80, 60] - [30, 20]
    back = np.stack([-offset[:, 1], offset[:, 0]], axis=1) / 0.5 + [30, 20]
    np.testing.assert_allclose(
        correspondence(warp, source, target)(POINTS), back / [80, 60] * 2 - 1, atol=1e-12
    )


def test_corresponding_points_have_one_reference_point(warp: Warp) -> None:
    rng = np.random.default_rng(3)
    spread = 0.1 if warp.points is None else 0.03
    source, target = (code_of(rng.normal(0, spread, warp.theta_dim)) for _ in range(2))
    source = replace(source, pose=np.array([[0.9, -0.2, 0.1], [0.2, 0.9, -0.1]]))
    target = transform_code(target, about=(30.0, 20.0), rotate=20, scale=1.2)
    found = correspondence(warp, source, target)(POINTS)
    assert np.isfinite(found).all() and np.abs(found - POINTS).max() > 0.1
    np.testing.assert_allclose(
        to_reference(warp, source, found), to_reference(warp, target, POINTS), atol=2e-6
    )


def test_what_a_fold_hides_has_no_point() -> None:
    warp = Warp(WarpConfig(family="tps"))
    folded = np.zeros((2, 20))
    folded[0, 0] = -1.5  # the rightmost control point comes from the far left: the right side folds over
    found = correspondence(warp, code_of(folded.ravel()), code_of(np.zeros(40)))(POINTS)
    lost = np.isnan(found).any(1)
    assert 0.02 < lost.mean() < 0.8
    np.testing.assert_allclose(
        to_reference(warp, code_of(folded.ravel()), found[~lost]), POINTS[~lost], atol=2e-6
    )
