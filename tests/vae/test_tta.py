"""What a mirror image shows is brought back to the image."""

from typing import Any

import numpy as np
import pytest

from mhvae_cli.vae.warp import pixel_centres


@pytest.mark.parametrize("family, points", [("affine", "circular"), ("tps", "circular"), ("tps", "uniform")])
def test_what_a_mirror_image_shows_is_brought_back(family: Any, points: Any) -> None:
    import torch

    from mhvae_cli.config import WarpConfig
    from mhvae_cli.vae.tta import FLIPS, aligned, unflipped
    from mhvae_cli.vae.warp import Warp

    warp = Warp(WarpConfig(family, points))
    warp.loc.fill_(0.1)
    theta = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (3, warp.theta_dim)).astype(np.float32))
    other = torch.flip(theta, (0,))

    def masks(codes: torch.Tensor) -> np.ndarray:
        return (warp(codes, (48, 64)).norm(dim=1) <= 0.5).numpy()

    for signs in FLIPS:
        back = unflipped(warp, theta, signs)
        assert 0.01 < masks(theta).mean() < 0.9
        assert (masks(back) == masks(theta)[:, :: signs[1], :: signs[0]]).mean() > 0.999
        turned = aligned(warp, back, other)
        assert (masks(turned) == masks(back)).mean() > 0.999
        at = pixel_centres((9, 9))
        at = np.tile(at * 0.5 if family == "affine" else warp.points, (3, 1, 1))
        gaps = [(warp.at(codes, at) - warp.at(other, at)).square().sum() for codes in (turned, back)]
        assert gaps[0] <= gaps[1] * 1.001
    mirrored = unflipped(warp, theta, (-1, 1)) @ torch.eye(warp.theta_dim)
    assert aligned(warp, unflipped(warp, mirrored, (-1, 1)), theta) == pytest.approx(theta, abs=1e-3)
