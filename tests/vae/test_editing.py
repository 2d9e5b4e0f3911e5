"""Edits of codes against Pillow's turns, explicit matrices and the outlines they draw."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from support.codes import SIZE, code

from mhvae_cli.config import WarpConfig
from mhvae_cli.errors import ModelError, UsageError
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.vae.editing import LatentCode, blend, interpolate, transform_code
from mhvae_cli.vae.raster import rasterise
from mhvae_cli.vae.warp import RADIUS, Warp

ELLIPSE = np.array([[1.9, -0.6, 0.3], [0.5, 1.1, -0.1]])
"""An affine warp whose object is a slanting, off-centre ellipse."""


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
