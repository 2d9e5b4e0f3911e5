"""The Python user's door: one load, then native-size masks that no resizing ever touched."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.interpolate import RBFInterpolator

from mhvae_cli.errors import InputError, ModelError
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import scan_of
from mhvae_cli.images.transforms import to_square
from mhvae_cli.inference.loading import load_model
from mhvae_cli.inference.pipeline import Pipeline
from mhvae_cli.vae.warp import RADIUS, control_points, pixel_centres


def test_an_array_a_scan_and_a_file_give_one_answer(
    pipeline: Pipeline, image: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "scan.png"
    Image.fromarray(image).save(file)
    first, *others = [pipeline.segment(given) for given in (image, scan_of(image), file, str(file))]
    assert first.mask.shape == (120, 200) and first.mask.dtype == bool
    assert 0.005 < first.mask.mean() < 0.9
    assert first.theta.shape == (40,) and first.theta.dtype == np.float32
    for other in others:
        assert np.array_equal(other.mask, first.mask) and np.array_equal(other.theta, first.theta)
        assert len(other.contour()) == len(first.contour()) > 0


def test_the_mask_is_scipys_thin_plate_at_the_native_size(pipeline: Pipeline, image: np.ndarray) -> None:
    found = pipeline.segment(image)
    warp = pipeline.networks.model.warp
    sources = warp.parameters_of(torch.from_numpy(found.theta)[None])[0].double().numpy().T
    plate = RBFInterpolator(control_points("circular"), sources, kernel="thin_plate_spline", degree=1)
    assert found.pose is not None
    points = pixel_centres((120, 200)) @ found.pose[:, :2].T + found.pose[:, 2]  # in the crop
    distance = np.linalg.norm(plate(points), axis=1).reshape(120, 200)
    assert np.array_equal(found.mask, distance <= RADIUS)


def whole_mask(pipeline: Pipeline, theta: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Every pixel evaluated, at once."""
    return (pipeline.networks.model.level(torch.from_numpy(theta)[None], pixel_centres(size)) >= 0).reshape(
        size
    )


@pytest.mark.parametrize("size", [(1500, 401), (3, 140_000)])
def test_a_large_images_mask_is_whole(pipeline: Pipeline, image: np.ndarray, size: tuple[int, int]) -> None:
    """However it is cut up for memory's sake, there are no seams."""
    theta = pipeline.segment(image).theta
    found = pipeline.networks.mask(theta, size)
    assert found.shape == size and found.dtype == bool and found.any()
    assert (found != whole_mask(pipeline, theta, size)).sum() <= 2  # rounding, on the outline itself


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (97, 97), (256, 256), (270, 401)])
def test_no_part_of_a_mask_is_missed(pipeline: Pipeline, size: tuple[int, int]) -> None:
    """From smooth blobs to crumpled ones of many pieces."""
    rng = np.random.default_rng(1)
    for spread in (0.0, 0.3, 0.6, 1.0):
        theta = (spread * rng.standard_normal(40)).astype(np.float32)
        assert (pipeline.networks.mask(theta, size) != whole_mask(pipeline, theta, size)).sum() <= 1


def test_the_mask_at_another_size_is_the_same_shape(pipeline: Pipeline, image: np.ndarray) -> None:
    theta = pipeline.segment(image).theta
    areas = [
        pipeline.networks.mask(theta, size).mean()
        for size in ((256, 256), (320, 200), (270, 400), (900, 500))
    ]
    np.testing.assert_allclose(areas, areas[0], rtol=0.01)


def test_the_contour_is_the_masks_outline(pipeline: Pipeline, image: np.ndarray) -> None:
    """Its area and centre, by the shoelace formula, are the mask's, in pixels from the image's corner."""
    found = pipeline.segment(image)
    area, moment = 0.0, np.zeros(2)
    for polygon in found.contour():
        assert (polygon >= 0).all() and (polygon <= [200, 120]).all()
        after = np.roll(polygon, -1, axis=0)
        cross = polygon[:, 0] * after[:, 1] - polygon[:, 1] * after[:, 0]
        area += cross.sum() / 2
        moment += ((polygon + after) * cross[:, None]).sum(0) / 6
    ys, xs = np.nonzero(found.mask)
    assert area == pytest.approx(found.mask.sum(), rel=0.01)
    np.testing.assert_allclose(moment / area, [xs.mean() + 0.5, ys.mean() + 0.5], atol=0.25)


def test_a_batch_is_its_images_one_by_one(pipeline: Pipeline, phantom_folder: Path) -> None:
    files = sorted((phantom_folder / "images").iterdir())[:3]
    ready = [pipeline.networks.prepare(read_scan(file)) for file in files]
    assert ready[0].shape == (1, 32, 32) and ready[0].dtype == np.float32
    together, *_ = pipeline.networks.posterior(np.stack(ready))
    assert together.shape == (3, 40) and together.dtype == np.float32
    alone = np.concatenate([pipeline.networks.posterior(one[None])[0] for one in ready])
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_the_networks_leave_their_input_unchanged(pipeline: Pipeline, image: np.ndarray) -> None:
    batch = pipeline.networks.prepare(scan_of(image))[None]
    batch.flags.writeable = False
    before = batch.copy()
    pipeline.networks.posterior(batch)
    assert np.array_equal(batch, before)
    np.testing.assert_array_equal(before[0], to_square(image, 32, 1))


def test_the_model_is_the_folders(pipeline: Pipeline, tiny_model: Path, image: np.ndarray) -> None:
    """Folded batch norms and channels-last change no answer; the name and place are told."""
    model, name = load_model(tiny_model)
    batch = pipeline.networks.prepare(scan_of(image))[None]
    with torch.inference_mode():
        theta = model.eval().locate(torch.tensor(batch)).mean.numpy()
    np.testing.assert_allclose(pipeline.networks.posterior(batch)[0], theta, atol=1e-3)
    assert (pipeline.networks.name, pipeline.networks.folder, name) == ("tiny", tiny_model, "tiny")
    assert pipeline.networks.config == model.config


def test_bfloat16_finds_the_same_object(pipeline: Pipeline, tiny_model: Path, image: np.ndarray) -> None:
    half = Pipeline.load(tiny_model, device="cpu", dtype="bfloat16")
    assert half.networks.dtype == torch.bfloat16
    assert next(half.networks.model.encoder.convnet.parameters()).dtype == torch.bfloat16
    assert next(half.networks.model.encoder.theta.parameters()).dtype == torch.float32
    a, b = pipeline.segment(image), half.segment(image)
    assert b.theta.dtype == np.float32 and not np.array_equal(a.theta, b.theta)
    assert 2 * (a.mask & b.mask).sum() / (a.mask.sum() + b.mask.sum()) > 0.95


def test_no_image_is_an_input_error(pipeline: Pipeline, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.png"):
        pipeline.segment(tmp_path / "absent.png")
    with pytest.raises(InputError):
        pipeline.segment(np.zeros((4, 4, 7)))


def test_a_pillow_image_is_its_file(pipeline: Pipeline, image: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.png", "turned.tif", "grey16.png", "colour.webp"):
        pixels = image.astype(np.uint16) * 200 if "16" in name else image
        pixels = np.dstack([image] * 3) if "colour" in name else pixels
        options = {"exif": exif} if "turned" in name else {}
        options |= {"compression": "tiff_lzw"} if "tif" in name else {}
        Image.fromarray(pixels).save(tmp_path / name, **options)
        found = pipeline.segment(tmp_path / name)
        with Image.open(tmp_path / name) as opened:
            given = pipeline.segment(opened)
        assert np.array_equal(given.mask, found.mask) and np.array_equal(given.theta, found.theta)
    bits = Image.fromarray(image > 90)
    assert np.array_equal(pipeline.segment(bits).mask, pipeline.segment(image > 90).mask)
    made = pipeline.warp(Image.fromarray(image), rotate=10, refine=False)
    assert np.array_equal(made.pixels, pipeline.warp(image, rotate=10, refine=False).pixels)
    Image.fromarray(image).save(tmp_path / "mapped.tif", exif=exif)
    with Image.open(tmp_path / "mapped.tif") as opened, pytest.raises(InputError, match="rotated TIFF"):
        pipeline.segment(opened)
    (tmp_path / "cut.png").write_bytes((tmp_path / "turned.png").read_bytes()[:900])
    with (
        Image.open(tmp_path / "cut.png") as opened,
        pytest.raises(InputError, match=r"cut\.png: truncated PNG"),
    ):
        pipeline.segment(opened)


@pytest.mark.parametrize("thing", [None, [[0, 1]], b"\x89PNG", 7, {"image": 1}], ids=str)
def test_what_is_no_image_is_an_input_error_in_every_method(pipeline: Pipeline, thing: Any) -> None:
    calls = (
        lambda: pipeline.segment(thing),
        lambda: pipeline.segment(thing, posterior=20),
        lambda: pipeline.source(thing),
        lambda: pipeline.reconstruct(thing),
        lambda: pipeline.warp(thing, rotate=3),
        lambda: pipeline.swap_style(thing, np.zeros((9, 9), np.uint8)),
        lambda: pipeline.swap_style(np.zeros((9, 9), np.uint8), thing),
    )
    for call in calls:
        with pytest.raises(InputError, match=f"an object of type {type(thing).__name__} is not an image"):
            call()


def changed_config(folder: Path, copy: Path, **model: object) -> Path:
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    config["model"] |= model
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"colour": 3}, "colour"),
        ({"image_size": "large"}, "image_size"),
        ({"z_dim": 9}, "does not match its config.json"),
    ],
    ids=["unknown", "wrong", "other shapes"],
)
def test_a_damaged_model_folder_is_a_model_error(
    tiny_model: Path, tmp_path: Path, model: dict, said: str
) -> None:
    folder = changed_config(tiny_model, tmp_path / "model", **model)
    with pytest.raises(ModelError, match=said) as caught:
        Pipeline.load(folder, device="cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("size", [(300, 400), (700, 900)])
def test_cuda_gives_the_cpus_mask_and_contour(
    pipeline: Pipeline, tiny_model: Path, image: np.ndarray, size: tuple[int, int]
) -> None:
    there = Pipeline.load(tiny_model, device="cuda", dtype="float32")
    theta = there.segment(image).theta
    np.testing.assert_allclose(theta, pipeline.segment(image).theta, atol=1e-2)
    assert (there.mask(theta, size) != pipeline.networks.mask(theta, size)).sum() <= 4
    for a, b in zip(there.contour(theta, size), pipeline.networks.contour(theta, size), strict=True):
        np.testing.assert_allclose(a, b, atol=0.01)
