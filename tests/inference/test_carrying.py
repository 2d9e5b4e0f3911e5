"""Carried detail: the image's own pixels where they are known, to the bit, and something drawn elsewhere."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from mhvae_cli import Pipeline
from mhvae_cli.diffusion.frames import TONES, Frames
from mhvae_cli.errors import InputError
from mhvae_cli.images.scan import scan_of
from mhvae_cli.inference.carrying import Donor, carry_detail
from mhvae_cli.training.phantoms import phantom
from mhvae_cli.vae.editing import transform_code

SIZE = (96, 120)
QUICK = {"steps": 4}


@pytest.fixture(scope="module")
def pipeline(tiny_refined: Path) -> Pipeline:
    return Pipeline.load(tiny_refined, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def grey() -> np.ndarray:
    """A phantom with noise, so that every pixel can be told from its neighbours."""
    noise = np.random.default_rng(0).integers(-20, 20, SIZE)
    return (phantom("fetal-head", 3, SIZE)[0].astype(int) + noise).clip(0, 255).astype(np.uint8)


def kinds(grey: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "L": grey,
        "RGB": np.stack([grey, 255 - grey, grey // 2], axis=2),
        "16": grey.astype(np.uint16) * 99 + 1000,
    }


@pytest.mark.parametrize("kind", ["L", "RGB", "16"])
def test_an_edit_that_moves_nothing_returns_the_image(
    pipeline: Pipeline, grey: np.ndarray, kind: str
) -> None:
    image = kinds(grey)[kind]
    made = pipeline.warp(image, **QUICK)
    assert made.pixels.dtype == image.dtype and np.array_equal(made.pixels, image)
    swapped = pipeline.swap_style(image, image.copy(), **QUICK)
    assert np.array_equal(swapped.pixels, image)


@pytest.mark.parametrize("kind", ["L", "RGB", "16"])
def test_the_object_moves_and_the_ground_stays(pipeline: Pipeline, grey: np.ndarray, kind: str) -> None:
    """A shift by whole pixels: both are the image's own pixels."""
    image = kinds(grey)[kind]
    old = pipeline.segment(image).mask
    made = pipeline.warp(image, shift=(9, -4), **QUICK)
    assert made.pixels.dtype == image.dtype and made.pixels.shape == image.shape
    inside = ndimage.binary_erosion(made.mask, iterations=10)  # the rims are blended
    outside = ~ndimage.binary_dilation(old | made.mask, iterations=18)
    assert inside.sum() > 100 and outside.sum() > 100
    assert np.array_equal(made.pixels[outside], image[outside])
    moved = np.roll(image, (-4, 9), axis=(0, 1)).astype(int)
    assert np.abs(made.pixels.astype(int) - moved)[inside].max() <= (1 if kind != "16" else 2)


def test_only_the_hole_depends_on_the_noise(pipeline: Pipeline, grey: np.ndarray) -> None:
    a, b = (pipeline.warp(grey, scale=0.5, seed=seed, **QUICK) for seed in (0, 1))
    changed = a.pixels != b.pixels
    old = pipeline.segment(grey).mask
    hole = old & ~ndimage.binary_dilation(a.mask, iterations=6)
    known = ndimage.binary_erosion(a.mask, iterations=10) | ~ndimage.binary_dilation(old, iterations=18)
    assert hole.sum() > 100 and known.sum() > 100
    assert changed[hole].mean() > 0.5 and not changed[known].any()


def test_a_quarter_turn_turns_the_pixels(pipeline: Pipeline, grey: np.ndarray) -> None:
    image = grey[:, :96]
    made = pipeline.warp(image, rotate=90, about="image", **QUICK)
    inside = ndimage.binary_erosion(made.mask, iterations=12)
    np.testing.assert_allclose(made.pixels[inside].astype(int), np.rot90(image)[inside], atol=1)


def test_what_comes_from_beyond_the_edge_is_drawn(pipeline: Pipeline, grey: np.ndarray) -> None:
    """Of an object at the edge, shifted inwards, the far part was never seen: no streaks of the edge."""
    networks = pipeline.networks
    source = pipeline.source(grey)
    outside = transform_code(source.code, about=(60, 48), shift=(-50, 0))
    target = transform_code(outside, about=(60, 48), shift=(45, 0))
    donor = Donor(scan_of(grey), outside, 1.0)
    carried = carry_detail(networks, target, [donor])
    side = networks.config.image_size
    mask = networks.mask(target.theta, (side, side), target.pose)
    beyond = np.zeros_like(mask)
    beyond[:, : round(45 / 120 * side) - 1] = True
    assert (mask & beyond).any() and carried.known[mask & beyond].max() < 0.01
    assert carried.known[mask & ~np.roll(beyond, 2, axis=1)].min() > 0.99


def test_the_frame_stays_where_it_is(tiny_refined: Path, grey: np.ndarray) -> None:
    """What is black up to the edge of a scan is neither moved with the object's margin nor covered by it."""
    networks = Pipeline.load(tiny_refined, device="cpu", dtype="float32").networks
    networks.side = 240  # as fine as a trained model's: the margin has several pixels
    code = Pipeline(networks).source(grey).code
    right = np.nonzero(networks.mask_of(code).any(0))[0].max()
    scan = np.maximum(grey, 40)
    scan[:, right + 2 :] = 0  # beside the object, within its margin
    target = transform_code(code, about=(60, 48), shift=(-30, 0))
    carried = carry_detail(networks, target, [Donor(scan_of(scan), code, 1.0)])
    made = carried.compose(np.ones((1, 240, 240), np.float32), scan_of(scan))
    assert made[:, : right - 8].min() >= 30
    assert (made[:, right + 6 :] == 0).all()


def test_a_known_frame_hides_the_object_and_none_of_it_is_carried(
    tiny_refined: Path, grey: np.ndarray
) -> None:
    """A black box that covers a part of the object: a frame that the model knows, or else a shadow."""
    networks = Pipeline.load(tiny_refined, device="cpu", dtype="float32").networks
    networks.side = 240
    code = Pipeline(networks).source(grey).code
    x, y = (round(each) for each in networks.centre(code))
    scan, box = np.maximum(grey, 40), np.zeros(SIZE, bool)
    box[y:, x:] = True
    scan[box] = 0
    large = np.asarray(Image.fromarray(box).resize((240, 240), Image.Resampling.NEAREST))
    target = transform_code(code, about=(x, y), shift=(-16, -12))

    def made() -> np.ndarray:
        carried = carry_detail(networks, target, [Donor(scan_of(scan), code, 1.0)])
        return carried.compose(np.ones((1, 240, 240), np.float32), scan_of(scan))

    inner, outer = ndimage.binary_erosion(box, iterations=2, border_value=1), ndimage.binary_dilation(box)
    assert made()[~outer].min() == 0 < made()[inner].max()  # taken for a shadow, it moves with the object
    networks.refiner.frames = Frames(large[None], np.zeros(TONES, np.float32), np.zeros(2, np.float32))
    assert (made()[inner] == 0).all() and made()[~outer].min() >= 30


def test_nothing_of_the_old_object_shines_through_the_seam(tiny_refined: Path, grey: np.ndarray) -> None:
    """A dark object on a light ground is made smaller: what is known around it is light."""
    networks = Pipeline.load(tiny_refined, device="cpu", dtype="float32").networks
    networks.side = 240  # as fine as a trained model's: the margin has several pixels
    code = Pipeline(networks).source(grey).code
    drawn = np.where(ndimage.binary_dilation(networks.mask_of(code)), 20, 220).astype(np.uint8)
    target = transform_code(code, about=networks.centre(code), scale=0.6)
    carried = carry_detail(networks, target, [Donor(scan_of(drawn), code)])
    side = carried.known.shape
    around = ~ndimage.binary_dilation(networks.mask_of(target, side), iterations=6)
    known = around & (carried.known > 0.05) & ndimage.binary_dilation(networks.mask_of(code, side))
    assert known.sum() > 50 and carried.square[0][known].min() > 0.5


def test_a_cross_fade_keeps_tones_and_the_variance_of_detail(pipeline: Pipeline, grey: np.ndarray) -> None:
    code = pipeline.source(grey).code
    noise = [np.random.default_rng(i).integers(60, 180, SIZE).astype(np.uint8) for i in range(2)]
    bright = (noise[0], noise[1] + np.uint8(40))
    donors = [Donor(scan_of(pixels), code, 0.5) for pixels in bright]
    carried = carry_detail(pipeline.networks, code, donors)
    made = carried.compose(np.zeros((1, 32, 32), np.float32), donors[0].scan)
    assert made.mean() == pytest.approx(np.mean(bright), abs=1)
    assert made.std() == pytest.approx(noise[0].std(), rel=0.05)  # of a plain mean it would be 0.71 of that


def test_a_style_of_another_size_fills_the_contents_frame(pipeline: Pipeline, grey: np.ndarray) -> None:
    style = phantom("fetal-head", 5, (50, 44))[0]
    made = pipeline.swap_style(grey, style, **QUICK)
    assert made.pixels.shape == SIZE
    corner = np.ix_([0, -1], [0, -1])
    np.testing.assert_allclose(made.pixels[corner].astype(int), style[corner], atol=30)


def test_an_edit_that_leaves_next_to_nothing_is_refused(pipeline: Pipeline, grey: np.ndarray) -> None:
    code = replace(pipeline.source(grey).code, pose=None)
    huge = transform_code(code, about=(60, 48), scale=8)
    far = transform_code(huge, about=(60, 48), shift=(5000, 0))
    with pytest.raises(InputError, match="of the image to be drawn"):
        carry_detail(pipeline.networks, far, [Donor(scan_of(grey), huge, 1.0)])


def test_invented_images_and_latent_codes_carry_nothing(pipeline: Pipeline, grey: np.ndarray) -> None:
    carried, invented = (pipeline.warp(grey, rotate=20, carry=carry, **QUICK) for carry in (True, False))
    latent = pipeline.warp(pipeline.source(grey).code, rotate=20, **QUICK)
    for made in (invented, latent):
        assert made.pixels.shape == SIZE and np.array_equal(made.mask, carried.mask)
        assert (made.pixels != carried.pixels).mean() > 0.9
