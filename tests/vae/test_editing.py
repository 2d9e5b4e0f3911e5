"""Edits of codes against Pillow's turns, explicit matrices, scipy's densities and the outlines they draw."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from scipy.spatial import KDTree

from mhvae_cli.config import EncoderConfig, ModelConfig, WarpConfig
from mhvae_cli.errors import InputError, MhvaeError, ModelError, UsageError
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.inference.pipeline import Pipeline
from mhvae_cli.vae.contour import contours
from mhvae_cli.vae.density import Density
from mhvae_cli.vae.editing import HANDLES, LatentCode, blend, interpolate, transform_code
from mhvae_cli.vae.fitting import distance_map, fit
from mhvae_cli.vae.handles import handles, move_handles
from mhvae_cli.vae.model import MultiHeadedVAE, build
from mhvae_cli.vae.raster import rasterise
from mhvae_cli.vae.warp import RADIUS, Warp

SIZE = (200, 300)
ELLIPSE = np.array([[1.9, -0.6, 0.3], [0.5, 1.1, -0.1]])
"""An affine warp whose object is a slanting, off-centre ellipse."""


def code(z: float = 0.0, theta: float = 0.0, pose: np.ndarray | None = None, size=SIZE) -> LatentCode:
    return LatentCode(z=np.full(3, z, "f"), theta=np.full(6, theta, "f"), pose=pose, size=size)


def ellipse_mask(pose: np.ndarray | None, size: tuple[int, int] = SIZE) -> np.ndarray:
    """The ellipse through a pose, by matrices alone."""

    def level(points: np.ndarray) -> np.ndarray:
        at = points if pose is None else points @ pose[:, :2].T + pose[:, 2]
        return RADIUS - np.linalg.norm(at @ ELLIPSE[:, :2].T + ELLIPSE[:, 2], axis=1)

    return rasterise(level, size)


def moments(mask: np.ndarray) -> tuple[int, np.ndarray, float]:
    """Area, centroid in the frame 0..w by 0..h, and the long axis' angle, counter-clockwise to the eye."""
    ys, xs = np.nonzero(mask)
    values, vectors = np.linalg.eigh(np.cov(xs, ys))
    x, y = vectors[:, values.argmax()]
    return len(xs), np.array([xs.mean(), ys.mean()]) + 0.5, math.degrees(math.atan2(-y, x))


# Styles and positions


def test_blend_takes_the_style_and_leaves_the_rest() -> None:
    pose = np.array([[1.0, 0.1, 0.2], [0, 1, 0]])
    content, style = code(1, 2, pose, (7, 9)), code(5, 6, None, (3, 4))
    found = blend(content, style)
    assert found.z.tolist() == [5] * 3 and found.theta.tolist() == [2] * 6
    assert found.pose is pose and found.size == (7, 9)
    assert blend(content, style, mix=0.25).z.tolist() == [2] * 3 and found.z.dtype == np.float32
    assert blend(content, style, mix=0).z.tolist() == content.z.tolist()


def test_between_parts_style_from_position() -> None:
    a, b = code(0, 10, None, (7, 9)), code(4, 20)
    found = interpolate(a, b, style=0.75, position=0.1)
    np.testing.assert_allclose(found.z, 3)
    np.testing.assert_allclose(found.theta, 11)
    assert found.pose is None and found.size == (7, 9) and found.theta.dtype == np.float32


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_shares_are_between_none_and_all(share: float) -> None:
    for call in (
        lambda: blend(code(), code(), mix=share),
        lambda: interpolate(code(), code(), style=share, position=0),
        lambda: interpolate(code(), code(), style=0, position=share),
    ):
        with pytest.raises(UsageError, match="not between 0 and 1"):
            call()


def test_codes_of_two_models_do_not_mix() -> None:
    other = LatentCode(z=np.zeros(4, "f"), theta=np.zeros(6, "f"), pose=None, size=SIZE)
    longer = LatentCode(z=np.zeros(3, "f"), theta=np.zeros(40, "f"), pose=None, size=SIZE)
    for stranger in (other, longer):
        with pytest.raises(ModelError, match="different models"):
            blend(code(), stranger)
        with pytest.raises(ModelError, match="different models"):
            interpolate(code(), stranger, style=0.5, position=0.5)


# Poses


@pytest.mark.parametrize(("rotate", "scale"), [(45, 0.7), (-30, 1.3), (100, 1.0), (0, 0.5)])
def test_what_was_asked_is_what_is_seen(rotate: float, scale: float) -> None:
    area, centre, angle = moments(ellipse_mask(None))
    edited = transform_code(code(), rotate=rotate, scale=scale, about=tuple(centre))
    found_area, found_centre, found_angle = moments(ellipse_mask(edited.pose))
    assert abs((found_angle - angle - rotate + 90) % 180 - 90) < 1
    assert abs(found_area / area - scale**2) < 0.02
    np.testing.assert_allclose(found_centre, centre, atol=0.2)


def test_turns_are_pillows_about_any_point_and_then_shifted() -> None:
    truth = Image.fromarray(ellipse_mask(None).astype(np.uint8) * 255)
    truth = truth.rotate(25, center=(120, 90), translate=(13, -8), resample=Image.Resampling.BILINEAR)
    edited = transform_code(code(), rotate=25, about=(120, 90), shift=(13, -8))
    assert dice(ellipse_mask(edited.pose), np.asarray(truth) >= 128) > 0.99


def test_edits_pile_up() -> None:
    """Two turns about one point are one; a later shift is in the edited picture's pixels, not turned."""
    once = transform_code(code(), rotate=50, scale=0.6, about=(100, 80))
    twice = transform_code(
        transform_code(code(), rotate=20, scale=1.2, about=(100, 80)), rotate=30, scale=0.5, about=(100, 80)
    )
    np.testing.assert_allclose(twice.pose, once.pose, atol=1e-12)
    later = transform_code(once, shift=(30, 12), about=(5, 5))
    at_once = transform_code(code(), rotate=50, scale=0.6, about=(100, 80), shift=(30, 12))
    np.testing.assert_allclose(later.pose, at_once.pose, atol=1e-12)
    back = transform_code(later, shift=(-30, -12), about=(0, 0))
    back = transform_code(back, rotate=-50, scale=1 / 0.6, about=(100, 80))
    np.testing.assert_allclose(back.pose, np.eye(2, 3), atol=1e-12)


def test_an_affine_pose_may_as_well_be_written_into_theta() -> None:
    warp = Warp(WarpConfig("affine")).double()
    warp.loc.copy_(torch.tensor([[0.2, 0, 0.1], [0, -0.1, 0.3]]))
    warp.modes.mul_(0.3)
    theta = torch.randn(1, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pose = transform_code(code(), rotate=40, scale=1.7, about=(80, 150), shift=(-20, 9)).pose
    matrix = warp.parameters_of(theta)[0] @ torch.from_numpy(np.vstack([pose, [0, 0, 1]]))
    beside = warp(theta, SIZE, torch.from_numpy(pose)[None])
    torch.testing.assert_close(warp(warp.theta_of(matrix[None]), SIZE), beside, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        ({"scale": 0.0}, "not above 0"),
        ({"scale": -2.0}, "not above 0"),
        ({"scale": math.nan}, "scale: not a finite"),
        ({"scale": math.inf}, "scale: not a finite"),
        ({"scale": 5e-324}, "too large or too small"),
        ({"scale": 1e300}, "too large or too small"),
        ({"rotate": math.nan}, "rotate: not a finite"),
        ({"rotate": -math.inf}, "rotate: not a finite"),
        ({"shift": (0.0, math.nan)}, "shift: not a finite"),
    ],
)
def test_edits_that_make_no_sense(edit: dict, said: str) -> None:
    with np.errstate(all="ignore"), pytest.raises(UsageError, match=said) as caught:
        transform_code(code(), about=(1, 1), **edit)
    assert "\n" not in str(caught.value)


def test_poses_are_passed_through_on_their_arc() -> None:
    """Half of a turn by 90 degrees about a point is one by 45 about it; 170 and -170 meet at 180."""
    about = (250.0, 30.0)
    quarter = transform_code(code(), rotate=90, about=about)
    half = interpolate(code(), quarter, style=0, position=0.5)
    np.testing.assert_allclose(half.pose, transform_code(code(), rotate=45, about=about).pose, atol=1e-12)
    a, b = (transform_code(code(), rotate=angle, scale=0.5, about=about) for angle in (170, -170))
    half = interpolate(a, b, style=0, position=0.5)
    np.testing.assert_allclose(half.pose, transform_code(a, rotate=10, about=about).pose, atol=1e-12)
    shifted = transform_code(a, shift=(10, 4), about=(0, 0))
    third = interpolate(a, shifted, style=0, position=0.3)
    np.testing.assert_allclose(third.pose, transform_code(a, shift=(3, 1.2), about=(0, 0)).pose, atol=1e-12)
    for share, end in ((0, a), (1, quarter)):
        np.testing.assert_allclose(
            interpolate(a, quarter, style=0, position=share).pose, end.pose, atol=1e-12
        )


# Density


def correlated(count: int, *, seed: int = 0) -> np.ndarray:
    """(count, 12) codes of unequal spread, the first ten of which vary in three ways together."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((3, 10))
    first = rng.standard_normal((count, 3)) @ mixing + 0.3 * rng.standard_normal((count, 10))
    return np.concatenate([first * np.linspace(0.1, 4, 10) + 2, rng.standard_normal((count, 2))], axis=1)


def covariance(density: Density) -> np.ndarray:
    return density.factor @ density.factor.T


def test_the_density_of_many_codes_is_their_gaussian() -> None:
    codes = correlated(20_000)
    density = Density.fit(codes[:, :5], codes[:, 5:])
    np.testing.assert_allclose(density.mean, codes.mean(0))
    sd = codes.std(0, ddof=1)
    assert (np.abs(covariance(density) - np.cov(codes.T)) / np.outer(sd, sd)).max() < 2e-3
    assert (np.triu(density.factor, 1) == 0).all()
    rng = np.random.default_rng(1)
    drawn = np.array([np.concatenate(density.draw(rng)) for _ in range(20_000)])
    assert (np.abs(drawn.mean(0) - codes.mean(0)) / sd).max() < 0.05
    assert (np.abs(np.cov(drawn.T) - np.cov(codes.T)) / np.outer(sd, sd)).max() < 0.05


def test_shrinkage_is_schaefers_and_strimmers() -> None:
    """Their equations for the correlations, entry by entry."""
    codes = correlated(8)
    n, d = codes.shape
    x = (codes - codes.mean(0)) / codes.std(0, ddof=1)
    r, noise = np.eye(d), np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            w = x[:, i] * x[:, j]
            if i != j:
                r[i, j] = n / (n - 1) * w.mean()
                noise[i, j] = n / (n - 1) ** 3 * ((w - w.mean()) ** 2).sum()
    share = noise.sum() / (r**2 - np.eye(d)).sum()
    assert 0.01 < share < 0.99
    truth = np.outer(codes.std(0, ddof=1), codes.std(0, ddof=1)) * ((1 - share) * r + share * np.eye(d))
    np.testing.assert_allclose(covariance(Density.fit(codes[:, :4], codes[:, 4:])), truth, rtol=1e-9)


def test_few_codes_foretell_others_better_than_no_correlations_do() -> None:
    few, others = correlated(9, seed=1), correlated(500, seed=2)
    density = Density.fit(few[:, :5], few[:, 5:])
    alone = np.diag(few.var(0, ddof=1))
    ours = stats.multivariate_normal(density.mean, covariance(density)).logpdf(others).mean()
    assert ours > stats.multivariate_normal(few.mean(0), alone).logpdf(others).mean() + 1


def test_unused_entries_and_copies_do_no_harm() -> None:
    z, theta = np.zeros((5, 3)), np.tile(np.arange(5.0)[:, None], (1, 4))
    for density in (Density.fit(z, theta), Density.fit(z[:2], z[:2, :2])):
        drawn_z, _ = density.draw(np.random.default_rng(0))
        assert np.isfinite(density.factor).all() and np.abs(drawn_z).max() < 1e-4
    with pytest.raises(UsageError, match="two images"):
        Density.fit(z[:1], theta[:1])


def test_a_draw_is_the_generators_and_parts_the_code() -> None:
    density = Density.prior(4, 7)
    z, theta = density.draw(np.random.default_rng(3))
    truth = np.random.default_rng(3).standard_normal(11)
    assert z.dtype == theta.dtype == np.float32 and z.shape == (4,)
    np.testing.assert_allclose(np.concatenate([z, theta]), truth, rtol=1e-6)
    assert density.draw(np.random.default_rng(3))[0].tolist() == z.tolist()


# Handles


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
    changed = pipeline.networks.mask(after.theta, code.size) ^ pipeline.networks.mask(code.theta, code.size)
    ys, xs = np.nonzero(changed)
    assert len(xs) and np.median(np.hypot(xs + 0.5 - before[5, 0], ys + 0.5 - before[5, 1])) < 6
