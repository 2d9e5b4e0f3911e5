"""From codes to pictures: the same bits in any company, looked at again, at the scan's size and depth."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mhvae_cli.errors import InputError, ModelError
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.images.transforms import to_native
from mhvae_cli.inference import synthesis as generation
from mhvae_cli.inference.pipeline import Pipeline
from mhvae_cli.inference.provenance import noise_key
from mhvae_cli.inference.synthesis import Warping, draft_of, make, warp_image
from mhvae_cli.training.phantoms import phantom
from mhvae_cli.vae.warp import pixel_centres

SIZE = (61, 90)


@pytest.fixture(scope="module")
def pipeline(tiny_refined: Path) -> Pipeline:
    return Pipeline.load(tiny_refined, device="cpu", dtype="float32")


def level_at(
    pipeline: Pipeline, theta: np.ndarray, points: np.ndarray, pose: np.ndarray | None = None
) -> np.ndarray:
    """The level of theta at points in native pixels of an image of SIZE."""
    unit = points / [SIZE[1], SIZE[0]] * 2 - 1
    unit = unit if pose is None else unit @ pose[:, :2].T + pose[:, 2]
    return pipeline.networks.model.level(torch.from_numpy(theta)[None], unit)


def native_centres() -> np.ndarray:
    return (pixel_centres(SIZE) + 1) / 2 * [SIZE[1], SIZE[0]]


def test_a_picture_has_the_scans_size_and_is_looked_at_again(
    pipeline: Pipeline, images: list[np.ndarray]
) -> None:
    made = pipeline.reconstruct(images[0], steps=3)
    assert made.pixels.shape == made.mask.shape == SIZE and made.pixels.dtype == np.uint8
    assert np.array_equal(made.mask, pipeline.segment(images[0]).mask)
    assert made.dice == dice(pipeline.segment(made.pixels).mask, made.mask)
    assert 0 < made.dice < 1 and made.tries == 1
    plain = pipeline.reconstruct(images[0], refine=False)
    assert np.array_equal(plain.pixels, to_native(plain.recon, SIZE))
    assert np.array_equal(plain.recon, made.recon) and not np.array_equal(plain.pixels, made.pixels)


def test_company_and_order_change_no_bit(pipeline: Pipeline, images: list[np.ndarray]) -> None:
    drafts = [draft_of(pipeline.source(image)) for image in images]
    together = make(pipeline.networks, drafts, steps=3)
    reverse = make(pipeline.networks, drafts[::-1], steps=3)[::-1]
    alone = [pipeline.reconstruct(image, steps=3) for image in images]
    for a, b, c in zip(together, reverse, alone, strict=True):
        assert np.array_equal(a.pixels, b.pixels) and np.array_equal(a.pixels, c.pixels)
    batch = np.stack([pipeline.networks.prepare(pipeline.source(image).scan) for image in images])
    z, theta = pipeline.networks.encode(batch)
    for i in range(len(images)):
        own = pipeline.networks.encode(batch[i : i + 1])
        assert np.array_equal(own[0][0], z[i]) and np.array_equal(own[1][0], theta[i])


def test_what_is_carried_takes_half_as_many_evaluations_in_a_batch_of_both_kinds_too(
    pipeline: Pipeline, images: list[np.ndarray]
) -> None:
    source = pipeline.source(images[0])
    whole, carried = draft_of(source), warp_image(pipeline.networks, source, Warping(rotate=30))[0]
    both = make(pipeline.networks, [carried, whole])
    for made, draft, steps in zip(both, (carried, whole), (10, 20), strict=True):
        assert made.steps == steps
        assert np.array_equal(made.pixels, make(pipeline.networks, [draft], steps=steps)[0].pixels)
        assert not np.array_equal(made.pixels, make(pipeline.networks, [draft], steps=30 - steps)[0].pixels)


def test_the_noise_follows_the_key_and_the_seed(pipeline: Pipeline, images: list[np.ndarray]) -> None:
    source = pipeline.source(images[0])
    assert source.sha256 == source.key == hashlib.sha256(images[0].tobytes()).hexdigest()
    made = [
        make(pipeline.networks, [draft], steps=3, seed=seed)[0].pixels
        for draft, seed in [
            (draft_of(source), 0),
            (draft_of(source, draw=0), 0),
            (draft_of(source, draw=1), 0),
            (draft_of(source), 1),
        ]
    ]
    assert np.array_equal(made[0], made[1])
    for other in made[2:]:
        assert np.abs(other.astype(int) - made[0]).mean() > 1
    assert noise_key("ab") != noise_key("ab", 1) != noise_key("ab", 2)


def test_a_file_is_known_by_its_bytes(pipeline: Pipeline, images: list[np.ndarray], tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(images[0]).save(tmp_path / name)
    a, b = (pipeline.reconstruct(tmp_path / name, steps=2) for name in ("a.png", "b.png"))
    assert np.array_equal(a.pixels, b.pixels)
    assert (
        pipeline.source(tmp_path / "a.png").sha256
        == hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    )


def test_a_code_stands_for_its_image(pipeline: Pipeline, images: list[np.ndarray]) -> None:
    made = pipeline.reconstruct(images[0], refine=False)
    again = pipeline.reconstruct(made.code, refine=False)
    assert np.array_equal(again.pixels, made.pixels) and again.dice == made.dice


def test_sixteen_bits_stay_in_the_scans_window(pipeline: Pipeline, images: list[np.ndarray]) -> None:
    wide = images[0].astype(np.uint16) * 10 + 1000
    made = pipeline.reconstruct(wide, refine=False)
    assert made.pixels.dtype == np.uint16 and made.pixels.shape == SIZE
    low, high = np.percentile(wide, (0.1, 99.9))
    assert low - 1 <= made.pixels.min() < made.pixels.max() <= high + 1


def test_a_posed_mask_is_the_moved_one(pipeline: Pipeline, images: list[np.ndarray]) -> None:
    theta = pipeline.segment(images[1]).theta
    pose = np.array([[0.9, -0.5, 0.1], [0.4, 1.2, -0.2]])
    moved = pixel_centres(SIZE) @ pose[:, :2].T + pose[:, 2]
    brute = (pipeline.networks.model.level(torch.from_numpy(theta)[None], moved) >= 0).reshape(SIZE)
    assert np.array_equal(pipeline.networks.mask(theta, SIZE, pose), brute)
    still = np.eye(2, 3)
    assert np.array_equal(pipeline.networks.mask(theta, SIZE, still), pipeline.networks.mask(theta, SIZE))
    area = 0.0
    for ring in pipeline.networks.contour(theta, SIZE, pose):
        x, y = ring.T
        area += (x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
    assert area == pytest.approx(brute.sum(), rel=0.03)


def test_warp_turns_the_users_pixels_about_the_object(pipeline: Pipeline, images: list[np.ndarray]) -> None:
    found = pipeline.segment(images[0])
    ys, xs = np.nonzero(found.mask)
    centre = np.array([xs.mean() + 0.5, ys.mean() + 0.5])
    made = pipeline.warp(images[0], rotate=90, scale=0.8, shift=(3, -2), refine=False)
    # A quarter turn counter-clockwise on the screen sends (x, y) to (y, -x), as y points down.
    back = (native_centres() - centre - [3, -2]) / 0.8
    back = np.stack([-back[:, 1], back[:, 0]], axis=1) + centre
    brute = (level_at(pipeline, found.theta, back, found.pose) >= 0).reshape(SIZE)
    assert brute.any() and (made.mask != brute).sum() <= 2
    about = pipeline.warp(images[0], rotate=90, about="image", refine=False)
    middle = pipeline.warp(images[0], rotate=90, about=(45.0, 30.5), refine=False)
    assert np.array_equal(about.mask, middle.mask) and not np.array_equal(about.mask, made.mask)
    still = pipeline.warp(images[0], carry=False, refine=False)
    plain = pipeline.reconstruct(images[0], refine=False)
    assert np.array_equal(still.mask, plain.mask)
    assert np.abs(still.pixels.astype(int) - plain.pixels).max() <= 1


def test_no_object_has_no_centre(
    pipeline: Pipeline, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mhvae_cli.inference.networks.Networks.mask",
        lambda self, theta, size, pose=None: np.zeros(size, bool),
    )
    with pytest.raises(InputError, match="no object"):
        pipeline.warp(images[0], rotate=10, refine=False)
    assert not pipeline.reconstruct(images[0], refine=False).mask.any()


def test_swapping_moves_the_style_and_leaves_the_position(
    pipeline: Pipeline, images: list[np.ndarray]
) -> None:
    a, b = (pipeline.source(image).code for image in images[:2])
    made = pipeline.swap_style(images[0], images[1], refine=False)
    assert np.array_equal(made.code.z, b.z) and np.array_equal(made.code.theta, a.theta)
    half = pipeline.swap_style(images[0], images[1], mix=0.5, refine=False)
    np.testing.assert_allclose(half.code.z, (a.z + b.z) / 2, rtol=1e-5)
    other = pipeline.swap_style(images[0], phantom("fetal-head", 1, (40, 50))[0], refine=False)
    assert other.pixels.shape == SIZE


def test_tries_keep_the_best(
    pipeline: Pipeline, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    drafts = [draft_of(pipeline.source(image)) for image in images[:2]]
    second = make(pipeline.networks, [replace(drafts[0], key=drafts[0].key + "/try1")], steps=2)[0]
    scores = iter([0.5, 0.95, 0.8, 0.7])
    monkeypatch.setattr(generation, "dice", lambda *_: next(scores))
    made = make(pipeline.networks, drafts, steps=2, min_dice=0.9, tries=3)
    assert [(p.dice, p.tries) for p in made] == [(0.8, 3), (0.95, 1)]
    assert np.array_equal(made[0].pixels, second.pixels) and made[0].key == drafts[0].key + "/try1"
    scores = iter([0.5])  # the VAE's own picture is always the same
    assert make(pipeline.networks, drafts[:1], refine=False, min_dice=0.9, tries=3)[0].tries == 1


def test_a_model_without_a_cddpm_says_what_to_do(tiny_model: Path, images: list[np.ndarray]) -> None:
    bare = Pipeline.load(tiny_model, device="cpu", dtype="float32")
    with pytest.raises(ModelError) as caught:
        bare.reconstruct(images[0])
    assert "--no-refine" in str(caught.value.hint)
    assert bare.reconstruct(images[0], refine=False).pixels.shape == SIZE
