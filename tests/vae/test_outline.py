"""The outline of a model's object is where its level is zero, at any size."""

import numpy as np
import pytest
import torch
from support.polygons import area


@pytest.mark.parametrize("pose", [None, [[0.8, 0.3, 0.1], [-0.2, -0.9, 0.05]]])
def test_an_affine_models_outline_is_that_of_its_level(pose: list[list[float]] | None) -> None:
    from mhvae_cli import Pipeline

    pipeline = Pipeline.load("fetal-head", device="cpu", dtype="float32")
    moved = None if pose is None else np.array(pose)
    theta = np.array([0.3, -0.5, 0.2, 0.4, -0.3, 0.1], dtype=np.float32)
    (ring,) = pipeline.networks.contour(theta, (270, 400), moved)
    where = ring / [400, 270] * 2 - 1
    source = where if moved is None else where @ moved[:, :2].T + moved[:, 2]
    assert np.abs(pipeline.networks.model.level_of(torch.from_numpy(theta)[None])(source)).max() < 1e-12
    mask = pipeline.networks.mask(theta, (270, 400), moved)
    assert area(ring) == pytest.approx(mask.sum(), rel=2e-3)
