"""An object is found again in a crop around it: where the crop lies, and what is seen in it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mhvae_cli import Pipeline
from mhvae_cli.images.scan import Scan, scan_of
from mhvae_cli.inference.looking import KEPT, encode, locate, view_of
from mhvae_cli.training.phantoms import phantom

Mhvae = Callable[..., Any]


@pytest.fixture(scope="module")
def heads() -> Pipeline:
    return Pipeline.load("fetal-head", device="cpu", dtype="float32")


def small_head(size: tuple[int, int] = (270, 400)) -> np.ndarray:
    """A head that is small in its image: a phantom, on the ground of its own corner."""
    pixels = phantom("fetal-head", 3, (size[0] // 2, size[1] // 2))[0]
    return np.pad(pixels, [(40, size[0] // 2 - 40), (60, size[1] // 2 - 60)], mode="edge")


def test_the_second_look_is_one_at_the_crop(heads: Pipeline) -> None:
    """Against the crop as an image of its own."""
    pixels = small_head()
    found = heads.segment(pixels)
    assert found.pose is not None
    side = 1 / found.pose[0, 0]
    assert 0.1 < side < 0.9 and np.allclose(found.pose[0, 1], 0) and found.pose[1, 1] == found.pose[0, 0]
    centre = -found.pose[:, 2] * side
    assert (np.abs(centre) + side <= 1 + 1e-9).all()
    h, w = pixels.shape
    left, top = (centre - side + 1) / 2 * [w, h]
    right, bottom = (centre + side + 1) / 2 * [w, h]
    square = (192, 192)
    crop = Image.fromarray(pixels).resize(square, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    alone = heads.segment(np.asarray(crop), looks=1)
    expected = alone.contour()[0] / 192 * [right - left, bottom - top] + [left, top]
    ring = found.contour()[0]
    shares = np.linspace(0, 1, 20)[:, None, None]
    dense = ((1 - shares) * ring + shares * np.roll(ring, -1, axis=0)).reshape(-1, 2)
    gaps = np.linalg.norm(expected[:, None] - dense[None], axis=2).min(1)
    assert gaps.max() < 0.5 and alone.pose is None


def test_the_object_found_first_spans_the_fill(heads: Pipeline) -> None:
    pixels = small_head()
    first, second = heads.segment(pixels, looks=1), heads.segment(pixels)
    (low, high) = (getattr(first.contour()[0], end)(0) for end in ("min", "max"))
    h, w = pixels.shape
    spans = (high - low) / [w, h] * second.pose[0, 0]
    assert spans.max() == pytest.approx(heads.networks.config.fill, abs=0.02)


def test_one_look_is_that_of_the_whole_image(heads: Pipeline) -> None:
    pixels = small_head()
    once = heads.segment(pixels, looks=1)
    theta, *_ = heads.networks.posterior(heads.networks.prepare(scan_of(pixels))[None])
    assert once.pose is None and np.allclose(once.theta, theta[0], atol=1e-5)
    never = Pipeline(heads.networks)
    config = heads.networks.config
    try:
        heads.networks.config = replace(config, fill=0.0)
        assert np.array_equal(never.segment(pixels).mask, once.mask)
    finally:
        heads.networks.config = config


def test_an_object_as_large_as_the_image_is_looked_at_once(heads: Pipeline) -> None:
    pixels = phantom("fetal-head", 3, (200, 200))[0]
    mask = heads.segment(pixels, looks=1).mask
    ys, xs = np.nonzero(mask)
    close = pixels[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
    found = heads.segment(close)
    spans = np.ptp(heads.segment(close, looks=1).contour()[0], axis=0) / close.shape[::-1]
    assert spans.max() > heads.networks.config.fill and found.pose is None


def test_a_batch_is_its_images_one_by_one(heads: Pipeline) -> None:
    images = [small_head(), phantom("fetal-head", 5, (128, 128))[0], np.zeros((64, 64), np.uint8)]
    views = [view_of(heads.networks, scan_of(image)) for image in images]
    for tta in (False, True):
        together = locate(heads.networks, views, tta=tta)
        alone = [locate(heads.networks, [view], tta=tta)[0] for view in views]
        for a, b in zip(together, alone, strict=True):
            assert np.allclose(a.theta, b.theta, atol=1e-4) and np.allclose(a.sd, b.sd, atol=1e-4)
            assert (a.pose is None) == (b.pose is None)
            assert a.pose is None or np.allclose(a.pose, b.pose)


def test_mirror_images_are_those_of_the_crop(heads: Pipeline) -> None:
    pixels = small_head()
    plain, both = heads.segment(pixels), heads.segment(pixels, tta=True)
    assert np.array_equal(plain.pose, both.pose) and not np.array_equal(plain.theta, both.theta)
    mirrored = heads.segment(pixels[:, ::-1], tta=True).mask[:, ::-1]
    assert (both.mask != mirrored).sum() < (plain.mask != heads.segment(pixels[:, ::-1]).mask[:, ::-1]).sum()


def test_crops_of_16_bits_keep_the_images_black_and_white(heads: Pipeline) -> None:
    """Values are mapped by those of the whole image, not of the crop."""
    wide = small_head().astype(np.uint16) * 40 + 500
    scan = scan_of(wide)
    box = (50.0, 40.0, 150.0, 110.0)
    seen = heads.networks.prepare(scan, box=box)
    low, high = np.percentile(wide, [0.1, 99.9])
    part = Scan(wide[40:110, 50:150], window=(low, high))
    expected = heads.networks.prepare(part)
    inner = np.s_[:, 4:-4, 4:-4]  # at the border the crop's pixels are blended with those around it
    np.testing.assert_allclose(seen[inner], expected[inner], atol=0.02)


def test_large_images_are_kept_small(heads: Pipeline) -> None:
    scan = scan_of(np.kron(small_head(), np.ones((8, 8), np.uint8)))
    view = view_of(heads.networks, scan)
    assert max(view.scan.pixels.shape) == KEPT * 192 and view.size == scan.pixels.shape
    whole = replace(view, scan=scan)
    a, b = (locate(heads.networks, [each])[0] for each in (view, whole))
    masks = [heads.networks.mask(each.theta, (270, 400), each.pose) for each in (a, b)]
    assert (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum() > 0.99


def test_a_latent_code_has_the_crops_position(heads: Pipeline) -> None:
    pixels = small_head()
    code, found = encode(heads.networks, view_of(heads.networks, scan_of(pixels))), heads.segment(pixels)
    assert np.array_equal(code.theta, found.theta) and np.array_equal(code.pose, found.pose)
    assert code.size == pixels.shape
    assert heads.reconstruct(pixels, refine=False).mask.sum() == found.mask.sum()


@pytest.mark.parametrize("looks", [1, 2])
def test_the_command_looks_as_often_as_asked(
    mhvae: Mhvae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(small_head()).save("head.png")
    options = ("--looks", looks, "-m", "fetal-head", "--device", "cpu", "--dtype", "float32")
    assert mhvae("segment", "head.png", "-o", "m.png", *options).code == 0
    pipeline = Pipeline.load("fetal-head", device="cpu", dtype="float32")
    truth = pipeline.segment(Path("head.png"), looks=looks).mask
    assert np.array_equal(np.asarray(Image.open("m.png")) > 0, truth)


def test_three_looks_are_refused(mhvae: Mhvae) -> None:
    ended = mhvae("segment", "head.png", "-o", "m.png", "--looks", "3")
    assert ended.code == 2 and "--looks" in ended.stderr
