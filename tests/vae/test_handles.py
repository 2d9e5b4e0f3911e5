"""Handles lie where the disc's rim comes from, and the outline follows them where they are moved."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree
from support.codes import SIZE

from mhvae_cli.config import EncoderConfig, ModelConfig, WarpConfig
from mhvae_cli.errors import InputError, MhvaeError, ModelError, UsageError
from mhvae_cli.inference.pipeline import Pipeline
from mhvae_cli.vae.contour import contours
from mhvae_cli.vae.editing import HANDLES, LatentCode, transform_code
from mhvae_cli.vae.fitting import distance_map, fit
from mhvae_cli.vae.handles import handles, move_handles
from mhvae_cli.vae.model import MultiHeadedVAE, build
from mhvae_cli.vae.warp import RADIUS


def model_of(warp: WarpConfig, *, reference: np.ndarray | None = None, single: bool = False):
    encoder = EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=16)
    side = 0 if reference is None else 64
    config = ModelConfig(
        image_size=32, z_dim=4, encoder=encoder, warp=warp, reference=side, single_head=single
    )
    model = build(config, seed=0)
    if reference is not None:
        model.segmentation_head.reference.copy_(torch.from_numpy(distance_map(reference, side)))
    if not single:
        model.warp.loc.fill_(0.05)
        model.warp.modes.mul_(0.3)
    return model


def object_code(model: MultiHeadedVAE, *, pose: bool) -> LatentCode:
    """A lopsided object on a 3:2 image, some 120 x 100 pixels large."""
    warp = model.warp
    ys, xs = np.mgrid[:200, :300] + 0.5
    angle = np.arctan2(ys - 105, xs - 140)
    mask = np.hypot((xs - 140) / 1.2, ys - 105) < 52 + 3 * np.cos(2 * angle + 1)
    offsets = torch.from_numpy(fit(warp, mask)).float()
    theta = warp.theta_of((warp.identity + offsets)[None])[0].numpy()
    found = LatentCode(z=np.zeros(4, "f"), theta=theta, pose=None, size=SIZE)
    return transform_code(found, rotate=35, scale=0.9, about=(140, 105), shift=(8, -3)) if pose else found


def sources(model: MultiHeadedVAE, code: LatentCode, points: np.ndarray) -> np.ndarray:
    """Sources (N, 2) of native pixels, by the warp's own `at`."""
    units = points * 2 / [SIZE[1], SIZE[0]] - 1
    if code.pose is not None:
        units = units @ code.pose[:, :2].T + code.pose[:, 2]
    return model.warp.at(torch.from_numpy(code.theta)[None], units[None])[0].numpy().T


def outline(model: MultiHeadedVAE, code: LatentCode) -> np.ndarray:
    """The object's outline, closely spaced (n, 2) in native pixels."""

    def level(points: np.ndarray) -> np.ndarray:
        at = points if code.pose is None else points @ code.pose[:, :2].T + code.pose[:, 2]
        return model.level(torch.from_numpy(code.theta)[None], at)

    ring = max(contours(level), key=len)
    closed = np.concatenate([ring, ring[:1]])
    places = np.linspace(0, len(ring), 4000)
    dense = np.stack([np.interp(places, np.arange(len(closed)), axis) for axis in closed.T], axis=1)
    return (dense + 1) / 2 * [SIZE[1], SIZE[0]]


def gaps(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    return KDTree(line).query(points)[0]


TPS = [WarpConfig("tps", "circular"), WarpConfig("tps", "uniform")]


@pytest.mark.parametrize("pose", [False, True])
@pytest.mark.parametrize("config", TPS, ids=str)
def test_handles_are_the_points_that_come_from_the_discs_rim(config: WarpConfig, pose: bool) -> None:
    model = model_of(config)
    code = object_code(model, pose=pose)
    found = handles(model, code)
    assert found.shape == (HANDLES, 2)
    angles = 2 * np.pi * np.arange(HANDLES) / HANDLES
    truth = RADIUS * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(sources(model, code, found), truth, atol=1e-5)
    assert gaps(found, outline(model, code)).max() < 0.1


@pytest.mark.parametrize("move", [(6.0, -4.0), (5.0, 5.0), (-4.0, -5.0)])
@pytest.mark.parametrize("pose", [False, True])
@pytest.mark.parametrize("config", TPS, ids=str)
def test_a_handle_is_moved_and_the_others_stay(config: WarpConfig, pose: bool, move) -> None:
    """Along the outline, outward and inward, where 5 x 5 points are too few for so small a dent."""
    model = model_of(config)
    code = object_code(model, pose=pose)
    before = handles(model, code)
    after, off = move_handles(model, code, {3: move})
    asked = before.copy()
    asked[3] += move
    line, old = outline(model, after), outline(model, code)
    stiff = config.points == "uniform" and move[0] < 0
    assert gaps(asked, line).max() < (3 if stiff else 0.5)
    assert abs(gaps(asked, line).max() - off) < (0.5 if stiff else 0.1)
    far = np.linalg.norm(old - before[3], axis=1) > 55
    assert far.mean() > 0.5 and gaps(old[far], line).max() < 0.5
    assert after.theta.dtype == np.float32 and after.pose is code.pose and after.z is code.z
    if move[0] * move[1] > 0:
        assert gaps(asked[3:4], old) > 3


def test_several_handles_move_at_once_and_in_turn() -> None:
    model = model_of(TPS[0])
    code = object_code(model, pose=False)
    moves = {2: (3.0, 4.0), 3: (2.0, 5.0), 12: (-4.0, 0.0)}
    asked = handles(model, code)
    for number, move in moves.items():
        asked[number] += move
    after, off = move_handles(model, code, moves)
    assert off < 0.5 and gaps(asked, outline(model, after)).max() < 0.5
    again, _ = move_handles(model, after, {2: (-3.0, -4.0), 3: (-2.0, -5.0), 12: (4.0, 0.0)})
    assert gaps(handles(model, code), outline(model, again)).max() < 1


def test_an_idle_move_changes_nothing() -> None:
    model = model_of(TPS[0])
    code = object_code(model, pose=True)
    after, off = move_handles(model, code, {0: (0.0, 0.0)})
    np.testing.assert_allclose(after.theta, code.theta, atol=1e-3)
    assert off < 1e-3


def test_a_reference_of_any_shape_has_handles() -> None:
    ys, xs = np.mgrid[:64, :64] - 31.5
    cross = ((np.abs(xs) < 8) & (np.abs(ys) < 18)) | ((np.abs(xs) < 20) & (np.abs(ys) < 9))
    model = model_of(TPS[0], reference=cross)
    theta = np.random.default_rng(0).normal(0, 0.1, 40).astype("f")
    code = LatentCode(z=np.zeros(4, "f"), theta=theta, pose=None, size=SIZE)
    before = handles(model, code)
    line = outline(model, code)
    assert gaps(before, line).max() < 0.3
    assert np.linalg.norm(before - np.roll(before, 1, axis=0), axis=1).min() > 5
    after, off = move_handles(model, code, {0: (8.0, 0.0)})
    asked = before[:1] + np.array([8.0, 0.0])
    assert gaps(asked, line) > 5 and gaps(asked, outline(model, after)) < max(0.5, off + 0.3) < 2


def test_what_cannot_be_moved() -> None:
    spline = model_of(TPS[0])
    code = object_code(spline, pose=False)
    nowhere = LatentCode(z=code.z, theta=np.zeros(40, "f"), pose=None, size=SIZE)
    collapsed = model_of(TPS[0])
    collapsed.warp.loc.copy_(0.1 - collapsed.warp.identity)  # every point of the image has one source
    affine, single = model_of(WarpConfig("affine")), model_of(TPS[0], single=True)
    faults: list[tuple[type[MhvaeError], str, MultiHeadedVAE, LatentCode, dict]] = [
        (UsageError, "no handle 20", spline, code, {20: (1, 1)}),
        (UsageError, "no handle -1", spline, code, {-1: (1, 1)}),
        (UsageError, "not finite", spline, code, {4: (math.nan, 1)}),
        (UsageError, "an affine model has no handles", affine, code, {1: (1, 1)}),
        (ModelError, "cannot find objects", single, code, {1: (1, 1)}),
        (InputError, "would fold over itself", spline, code, {4: (0, -900)}),
        (InputError, "folded over itself, so its", collapsed, nowhere, {1: (1, 1)}),
    ]
    for kind, said, model, of, moves in faults:
        with pytest.raises(kind, match=said) as caught:
            move_handles(model, of, moves)
        assert "\n" not in str(caught.value)


def test_a_models_own_code_can_be_moved(tiny_model: Path) -> None:
    pipeline = Pipeline.load(tiny_model, device="cpu", dtype="float32")
    code = pipeline.source(np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8)).code
    before = handles(pipeline.networks.model, code)
    after, off = move_handles(pipeline.networks.model, code, {5: (0.0, 3.0)})
    assert off < 0.5 and not np.allclose(after.theta, code.theta)
    changed = pipeline.networks.mask_of(after) ^ pipeline.networks.mask_of(code)
    ys, xs = np.nonzero(changed)
    assert len(xs) and np.median(np.hypot(xs + 0.5 - before[5, 0], ys + 0.5 - before[5, 1])) < 6
