"""Folders of images and masks: faults named, subjects kept together, image, mask and rim moved as one."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import binary_erosion, distance_transform_edt

from mhvae_cli.config import AugmentConfig
from mhvae_cli.errors import InputError, UsageError
from mhvae_cli.training.datasets import (
    FILLS,
    POSES,
    Batch,
    Images,
    MaskedImages,
    Sample,
    discover,
    folds_of,
    split,
)
from mhvae_cli.vae.warp import pixel_centres

STILL = AugmentConfig(rotate=0, scale=0, shift=0, flip_x=False, flip_y=False, tone=0, noise=0)
MOVES = AugmentConfig(rotate=180, scale=0.2, shift=0.1, tone=0, noise=0)
TURNS = AugmentConfig(rotate=180, scale=0, shift=0, flip_x=False, flip_y=False, tone=0, noise=0)


def shape(size: tuple[int, int], axes: tuple[float, float] = (0.5, 0.3), turn: float = 20) -> np.ndarray:
    """An ellipse with a bump, off the centre; lengths in half heights, so true in native pixels."""
    h, w = size
    points = pixel_centres(size) * [w / h, 1] - [0.1, -0.15]
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    u = points @ np.array([[c, -s], [s, c]])
    inside = ((u / axes) ** 2).sum(1) <= 1
    inside |= np.linalg.norm(u - [0.4, 0.2], axis=1) < 0.12
    return inside.reshape(size)


def ellipse(size: tuple[int, int], axes: tuple[float, float], turn: float) -> np.ndarray:
    h, w = size
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    u = pixel_centres(size) * [w / h, 1] @ np.array([[c, -s], [s, c]])
    return (((u / axes) ** 2).sum(1) <= 1).reshape(size)


def write(folder: Path, name: str, mask: np.ndarray, image: np.ndarray | None = None, **save: object) -> None:
    """A sample whose image is its mask, unless given."""
    for place in ("images", "masks"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    picture = mask.astype(np.uint8) * 255 if image is None else image
    Image.fromarray(picture).save(folder / "images" / f"{name}.png", **save)
    Image.fromarray(mask.astype(np.uint8) * 255).save(folder / "masks" / f"{name}.png")


def load(folder: Path, **given: int) -> MaskedImages:
    return MaskedImages(discover(folder), **{"image_size": 64, "channels": 1, **given})


def draw(
    data: MaskedImages, indices: list[int], augment: AugmentConfig, *, seed: int = 0, epoch: int = 0
) -> Batch:
    return data.batch(indices, augment, seed=seed, epoch=epoch, dims=(3, 2))


def people(counts: list[int], folds: list[int | None] | None = None) -> list[Sample]:
    """Samples of len(counts) subjects, the i-th with counts[i] frames."""
    fold = folds or [None] * len(counts)
    return [
        Sample(f"{s}_{i}", Path("x"), Path("y"), f"subject{s}", fold[s])
        for s, n in enumerate(counts)
        for i in range(n)
    ]


# Folders


def test_a_folder_is_read_in_order_with_its_index(phantom_folder: Path) -> None:
    samples = discover(phantom_folder)
    assert [s.id for s in samples] == [f"fetal-head_{i:04d}" for i in range(8)]
    assert [s.subject for s in samples] == [str(i) for i in range(8)]
    assert [s.fold for s in samples] == [i % 4 for i in range(8)]
    assert all(s.image.parent.name == "images" and s.mask.parent.name == "masks" for s in samples)


def test_without_an_index_every_image_is_its_own_subject(tmp_path: Path) -> None:
    for name in "ba":
        write(tmp_path, name, shape((20, 30)))
    (tmp_path / "images" / ".DS_Store").write_bytes(b"junk")
    samples = discover(tmp_path)
    assert [(s.id, s.subject, s.fold) for s in samples] == [("a", "a", None), ("b", "b", None)]


def test_an_index_may_leave_out_images_columns_and_cells(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, name, shape((20, 30)))
    (tmp_path / "index.csv").write_text("\ufeffid,subject\na,p1\nb,\nnobody,p9\n", encoding="utf-8")
    assert [(s.subject, s.fold) for s in discover(tmp_path)] == [("p1", None), ("b", None), ("c", None)]


def test_what_has_no_partner_is_named(tmp_path: Path) -> None:
    for name in ("good", "imageless", "maskless"):
        write(tmp_path, name, shape((20, 30)))
    (tmp_path / "images" / "imageless.png").unlink()
    (tmp_path / "masks" / "maskless.png").unlink()
    with pytest.raises(InputError, match=r"imageless \(no image\), maskless \(no mask\)") as caught:
        discover(tmp_path)
    assert caught.value.hint and "good" not in str(caught.value)
    assert [s.mask for s in discover(tmp_path, masks=False)] == [None, None]


def test_many_unpaired_are_counted(tmp_path: Path) -> None:
    for i in range(9):
        write(tmp_path, f"n{i}", shape((8, 8)))
    shutil.rmtree(tmp_path / "masks")
    with pytest.raises(InputError, match=r"n4 \(no mask\) and 4 more"):
        discover(tmp_path)


def test_two_files_of_one_stem_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a", shape((20, 30)))
    Image.new("L", (30, 20)).save(tmp_path / "images" / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png"):
        discover(tmp_path)


def test_a_folder_without_images_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="images"):
        discover(tmp_path / "absent")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("name,fold\na,1\n", "id column"),
        ("id,fold\na,first\n", "'first'"),
        ("id,subject,fold\na,p,0\nb,p,1\n", "subject p is in more than one fold"),
    ],
)
def test_a_faulty_index_is_named(tmp_path: Path, table: str, said: str) -> None:
    for name in "ab":
        write(tmp_path, name, shape((20, 30)))
    (tmp_path / "index.csv").write_text(table)
    with pytest.raises(InputError, match=said) as caught:
        discover(tmp_path)
    assert "index.csv" in str(caught.value)


def test_odd_sizes_and_empty_and_broken_files_are_named_together(tmp_path: Path) -> None:
    for name in ("good", "odd", "void", "torn"):
        write(tmp_path, name, shape((20, 30)))
    Image.new("L", (20, 30), 255).save(tmp_path / "masks" / "odd.png")
    Image.new("L", (30, 20)).save(tmp_path / "masks" / "void.png")
    file = tmp_path / "images" / "torn.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    said = str(caught.value)
    assert "odd.png: 20 x 30 px, but its image is 30 x 20 px" in said
    assert "void.png: empty mask" in said and "torn.png" in said and "good" not in said
    assert "\n" not in said and caught.value.hint


# Splits


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_subject_never_straddles_a_split(seed: int) -> None:
    samples = people([3, 1, 2, 4, 1, 1, 5, 2, 1, 1])
    train, val = split(samples, fraction=0.3, seed=seed)
    assert not {s.subject for s in train} & {s.subject for s in val}
    assert len({s.subject for s in val}) == 3
    assert sorted(s.id for s in train + val) == sorted(s.id for s in samples)


def test_a_split_depends_on_the_seed_alone() -> None:
    samples = people([1] * 30)
    val = {s.id for s in split(samples, fraction=0.2, seed=4)[1]}
    assert {s.id for s in split(samples[::-1], fraction=0.2, seed=4)[1]} == val
    assert {s.id for s in split(samples, fraction=0.2, seed=5)[1]} != val


@pytest.mark.parametrize("fraction", [0.001, 0.5, 0.999])
def test_neither_part_of_a_split_is_empty(fraction: float) -> None:
    train, val = split(people([2, 2]), fraction=fraction, seed=0)
    assert len(train) == len(val) == 2
    with pytest.raises(InputError, match="one subject"):
        split(people([5]), fraction=fraction, seed=0)


def test_folds_part_all_subjects_evenly() -> None:
    samples = people([2, 1, 3, 1, 1, 2, 1, 1, 1, 4])
    parts = folds_of(samples, 4, seed=0)
    assert sorted(s.id for part in parts for s in part) == sorted(s.id for s in samples)
    subjects = [{s.subject for s in part} for part in parts]
    assert sorted(map(len, subjects)) == [2, 2, 3, 3]
    assert not any(a & b for i, a in enumerate(subjects) for b in subjects[:i])
    with pytest.raises(UsageError, match="too few"):
        folds_of(samples, 11, seed=0)


def test_the_indexs_own_folds_are_kept_where_they_are_as_many() -> None:
    samples = people([1, 2, 1, 1], folds=[7, 3, 7, 5])
    assert [{s.fold for s in part} for part in folds_of(samples, 3, seed=0)] == [{3}, {5}, {7}]
    assert len(folds_of(samples, 2, seed=0)) == 2


# Batches


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> MaskedImages:
    """Images that are their own masks, 3 : 2, 1 : 1 and 2 : 3."""
    folder = tmp_path_factory.mktemp("masks")
    for i, size in enumerate([(200, 300), (200, 200), (300, 200), (160, 240)]):
        write(folder, f"m{i}", shape(size, turn=20 + 40 * i))
    return load(folder)


def test_plain_images_and_masks_are_the_files_squashed(masks: MaskedImages) -> None:
    image, mask = masks.with_masks([0, 2])
    assert image.shape == (2, 1, 64, 64) and mask.shape == (2, 64, 64)
    for tensor, low in ((image, -1), (mask, 0)):
        assert tensor.min() >= low - 1e-5 and tensor.max() <= 1 + 1e-5
    truth = shape((640, 960), turn=20).reshape(64, 10, 64, 15).mean((1, 3))
    assert np.abs(mask[0].numpy() - truth).mean() < 0.01
    torch.testing.assert_close((image[:, 0] + 1) / 2, mask, atol=1e-5, rtol=0)
    still = draw(masks, [0, 2], STILL)
    torch.testing.assert_close(still.image, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(still.mask, mask, atol=1e-5, rtol=0)


def test_images_alone_are_those_with_masks(masks: MaskedImages) -> None:
    """From a folder without masks, and augmented alike."""
    samples = [replace(sample, mask=None) for sample in masks.samples]
    alone = Images(samples, image_size=64, channels=1)
    assert len(alone) == 4 and alone.sizes.tolist() == [[200, 300], [200, 200], [300, 200], [160, 240]]
    assert torch.equal(alone.plain([2, 0]), masks.with_masks([2, 0])[0])
    full = AugmentConfig()
    image, rngs, moves = alone.augmented([3, 1], full, seed=5, epoch=2)
    assert torch.equal(image, draw(masks, [3, 1], full, seed=5, epoch=2).image)
    assert len(rngs) == 2 and rngs[0].random() != rngs[1].random()
    again = alone.augmented([1], full, seed=5, epoch=2)
    assert torch.equal(again[0][0], image[1]) and np.array_equal(again[2][0][0], moves[1][0])


def test_images_that_cannot_be_read_are_named_without_masks_too(tmp_path: Path) -> None:
    write(tmp_path, "a", shape((20, 30)))
    (tmp_path / "images" / "b.png").write_text("no picture")
    with pytest.raises(InputError, match=r"b\.png"):
        Images(discover(tmp_path, masks=False), image_size=32, channels=1)


@pytest.mark.parametrize("epoch", range(4))
def test_image_mask_and_rim_move_together(masks: MaskedImages, epoch: int) -> None:
    batch, plain = draw(masks, [0, 1, 2, 3], MOVES, epoch=epoch), masks.plain([0, 1, 2, 3])
    assert (batch.image - plain).abs().amax((1, 2, 3)).min() > 0.5  # each has moved
    torch.testing.assert_close((batch.image[:, 0] + 1) / 2, batch.mask, atol=1e-4, rtol=0)
    for mask, points, weight in zip(batch.mask.numpy() > 0.5, batch.rim, batch.rim_weight, strict=True):
        assert weight.sum() > 60
        edge = mask & ~binary_erosion(mask)
        far = np.minimum(distance_transform_edt(~edge), 9)
        kept = points[weight.numpy() > 0]
        columns, rows = np.floor((kept + 1) * 32).astype(int).T
        assert far[rows, columns].max() <= 1.5
        seen = np.zeros_like(mask)
        seen[rows, columns] = True
        inner = edge.copy()
        inner[[0, -1]] = inner[:, [0, -1]] = False
        assert distance_transform_edt(~seen)[inner].max() < 8  # and the points go all the way round


def test_a_rim_moved_out_of_the_picture_has_no_weight(masks: MaskedImages) -> None:
    away = AugmentConfig(rotate=0, scale=0, shift=0.6, tone=0, noise=0)
    batches = [draw(masks, [0, 1, 2, 3], away, epoch=epoch) for epoch in range(6)]
    out = np.concatenate([(np.abs(b.rim) >= 1).any(-1) for b in batches])
    weights = torch.cat([b.rim_weight for b in batches]).numpy()
    assert out.any() and not out.all()
    assert (weights[out] == 0).all() and (weights[~out] > 0).mean() > 0.9


def native_moments(mask: np.ndarray, aspect: float) -> tuple[float, np.ndarray, float]:
    """Area, semi-axes (short, long), and the long axis' angle in degrees, in half heights."""
    h, w = mask.shape
    points, weights = pixel_centres((h, w)) * [aspect, 1], mask.ravel()
    values, vectors = np.linalg.eigh(np.cov(points.T, aweights=weights, bias=True))
    angle = np.rad2deg(np.arctan2(vectors[1, 1], vectors[0, 1])) % 180
    return 4 * aspect * mask.mean(), 2 * np.sqrt(values), angle


def test_a_turn_is_a_true_one_in_native_pixels(tmp_path: Path) -> None:
    """On a 3 : 2 image an ellipse keeps its area and both axes; a turn of the squashed square would not."""
    write(tmp_path, "e", ellipse((200, 300), (0.6, 0.25), 15))
    data = load(tmp_path)
    angles = []
    for epoch in range(8):
        mask = draw(data, [0], TURNS, epoch=epoch).mask[0].numpy()
        area, axes, angle = native_moments(mask, 1.5)
        assert area == pytest.approx(np.pi * 0.6 * 0.25, rel=0.02)
        np.testing.assert_allclose(axes, [0.25, 0.6], rtol=0.03)
        angles.append(angle)
    assert np.ptp(angles) > 60


def test_zoom_scales_the_area_within_its_range(tmp_path: Path) -> None:
    write(tmp_path, "e", ellipse((200, 300), (0.4, 0.25), 15))
    data = load(tmp_path)
    zoom = AugmentConfig(rotate=0, scale=0.3, shift=0, flip_x=False, flip_y=False, tone=0, noise=0)
    ratios = []
    for epoch in range(12):
        area, axes, angle = native_moments(draw(data, [0], zoom, epoch=epoch).mask[0].numpy(), 1.5)
        ratios.append(area / (np.pi * 0.4 * 0.25))
        assert axes[1] / axes[0] == pytest.approx(1.6, rel=0.03) and angle == pytest.approx(15, abs=1)
    assert np.exp(-0.6) * 0.97 < min(ratios) < 0.9 and 1.1 < max(ratios) < np.exp(0.6) * 1.03


def test_flips_are_those_asked_for(masks: MaskedImages) -> None:
    plain = masks.with_masks([1])[1][0]
    for axis, names in ((1, {"flip_x": True, "flip_y": False}), (0, {"flip_x": False, "flip_y": True})):
        flips = AugmentConfig(rotate=0, scale=0, shift=0, tone=0, noise=0, **names)
        seen = [draw(masks, [1], flips, epoch=epoch).mask[0] for epoch in range(10)]
        same = [torch.allclose(mask, plain, atol=1e-4) for mask in seen]
        turned = [torch.allclose(mask, plain.flip(axis), atol=1e-4) for mask in seen]
        assert any(same) and any(turned)
        assert all(a != b for a, b in zip(same, turned, strict=True))


def test_a_crop_shows_the_whole_object_larger(masks: MaskedImages) -> None:
    """Image, mask and rim as one, and the object's box fills as much of the window as it should."""
    fills = []
    for epoch in range(8):
        batch = draw(masks, [0, 1, 2, 3], replace(STILL, crop=1.0), epoch=epoch)
        torch.testing.assert_close((batch.image[:, 0] + 1) / 2, batch.mask, atol=0.02, rtol=0)
        # Half of what lies about a point of the rim is the object.
        near = torch.nn.functional.avg_pool2d(batch.mask[:, None], 5, 1, 2, count_include_pad=False)
        grid = torch.from_numpy(batch.rim).float()[:, None]
        at_rim = torch.nn.functional.grid_sample(near, grid, align_corners=False)[:, 0, 0]
        assert abs(float(at_rim.mean()) - 0.5) < 0.1
        assert (np.abs(batch.rim) < FILLS[1] + 0.2).all()  # off the centre by a tenth of the window at most
        fills += (np.ptp(batch.rim, axis=1).max(1) / 2).tolist()
    assert FILLS[0] - 1e-6 < min(fills) < 0.6 and 0.85 < max(fills) < FILLS[1] + 1e-6


def test_a_share_of_the_images_is_cropped_and_none_without(masks: MaskedImages) -> None:
    """What is not cropped is moved as ever, and what is, within what the move shows."""
    cropped = 0
    for epoch in range(40):
        plain = masks.augmented([0, 1, 2, 3], MOVES, seed=0, epoch=epoch)[2]
        some = masks.augmented([0, 1, 2, 3], replace(MOVES, crop=0.4), seed=0, epoch=epoch)[2]
        for (pull, push), (cut, cut_push) in zip(plain, some, strict=True):
            window = np.linalg.inv(pull[:, :2]) @ cut[:, :2]
            np.testing.assert_allclose(window, window[0, 0] * np.eye(2), atol=1e-12)
            centre = push[:, :2] @ cut[:, 2] + push[:, 2]
            assert (np.abs(centre) + window[0, 0] <= 1 + 1e-9).all()
            np.testing.assert_allclose(cut_push[:, :2] @ cut[:, 2] + cut_push[:, 2], 0, atol=1e-9)
            cropped += not np.array_equal(pull, cut)
    assert 45 < cropped < 80  # of 160; some crops would be larger than the image


def test_a_second_look_is_centred_and_tells_its_size(masks: MaskedImages) -> None:
    image, mask, side = masks.object_crops([0, 3])
    torch.testing.assert_close((image[:, 0] + 1) / 2, mask, atol=1e-4, rtol=0)
    for i, rim in enumerate(masks.rims[[0, 3]]):
        assert abs(side[i] - np.ptp(rim, axis=0).max() / 2 / 0.7) < 1e-9
        box = np.nonzero(mask[i].numpy() > 0.5)
        filled = [(axis.max() + 1 - axis.min()) / 64 for axis in box]
        assert abs(max(filled) - 0.7) < 0.04


def test_images_without_masks_cannot_be_cropped(masks: MaskedImages) -> None:
    alone = Images(masks.samples, image_size=64, channels=1)
    with pytest.raises(TypeError, match="no object"):
        alone.augmented([0], AugmentConfig(crop=0.5), seed=0, epoch=0)


def test_poses_are_random_edits_in_native_pixels(masks: MaskedImages) -> None:
    """What `Objective.consistency` asks for: each a turn, zoom and shift that keeps shapes, none a mirror."""
    poses = [draw(masks, [0, 2], STILL, epoch=epoch).pose.double().numpy() for epoch in range(12)]
    turns, zooms = [], []
    for i, aspect in enumerate([1.5, 2 / 3]):
        native = np.diag([aspect, 1.0])
        for pose in (both[i] for both in poses):
            assert pose.shape == (2, 3)
            linear = native @ pose[:, :2] @ np.linalg.inv(native)
            zoom = np.sqrt(np.linalg.det(linear))
            np.testing.assert_allclose(linear @ linear.T, zoom**2 * np.eye(2), atol=1e-6)
            turns.append(np.rad2deg(np.arctan2(linear[1, 0], linear[0, 0])))
            zooms.append(np.log(zoom))
    for values, most in ((turns, POSES.rotate), (zooms, POSES.scale)):
        assert most / 2 < np.abs(values).max() <= most and min(values) < 0 < max(values)


# The same batch, however it is asked for


def same(a: Batch, b: Batch, rows_a: list[int], rows_b: list[int]) -> bool:
    names = ("image", "mask", "rim_weight", "eps_theta", "eps_z", "pose")
    equal = all(torch.equal(getattr(a, n)[rows_a], getattr(b, n)[rows_b]) for n in names)
    return equal and np.array_equal(a.rim[rows_a], b.rim[rows_b])


def test_a_row_is_the_same_in_any_batch(masks: MaskedImages) -> None:
    full = AugmentConfig()
    a = draw(masks, [3, 1], full, seed=5, epoch=2)
    assert same(a, draw(masks, [3, 1], full, seed=5, epoch=2), [0, 1], [0, 1])
    assert same(a, draw(masks, [1, 3], full, seed=5, epoch=2), [0, 1], [1, 0])
    assert same(a, draw(masks, [0, 1, 2, 3], full, seed=5, epoch=2), [0, 1], [3, 1])
    assert same(a, draw(masks, [1], full, seed=5, epoch=2), [1], [0])
    for other in (draw(masks, [3, 1], full, seed=5, epoch=3), draw(masks, [3, 1], full, seed=6, epoch=2)):
        assert not torch.equal(a.mask[0], other.mask[0]) and not torch.equal(a.eps_z, other.eps_z)
    assert not torch.equal(a.eps_theta[0], a.eps_theta[1])


def test_a_sample_is_the_same_whoever_else_is_in_the_set(masks: MaskedImages) -> None:
    fewer = MaskedImages(masks.samples[2:], image_size=64, channels=1, workers=1)
    assert same(draw(masks, [2, 3], AugmentConfig()), draw(fewer, [0, 1], AugmentConfig()), [0, 1], [0, 1])


def test_nothing_reads_the_global_generators(masks: MaskedImages) -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    draw(masks, [0, 1], AugmentConfig())
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


# Files as they come


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_a_turned_file_lies_upon_its_stored_mask(tmp_path: Path, orientation: int) -> None:
    """The mask has no EXIF: it lies as the image's pixels are stored, not as they are shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    mask = shape((60, 100))
    write(tmp_path, "t", mask, exif=exif)
    write(tmp_path, "u", mask)
    data = load(tmp_path)
    image, found = data.with_masks([0, 1])
    torch.testing.assert_close((image[:, 0] + 1) / 2, found, atol=1e-5, rtol=0)
    assert (found[0] - found[1]).abs().max() > 0.5
    assert data.aspects.tolist() == pytest.approx([100 / 60 if orientation < 5 else 60 / 100, 100 / 60])
    far = distance_transform_edt((found[0].numpy() > 0.5) ^ True)
    columns, rows = np.floor((data.rims[0] + 1) * 32).astype(int).T
    assert far[rows, columns].max() <= 1.5


def test_grey_and_colour_become_what_the_model_takes(tmp_path: Path) -> None:
    mask = shape((40, 60))
    colour = np.zeros((40, 60, 3), np.uint8)
    colour[..., 0], colour[..., 2] = 200, 100
    write(tmp_path, "c", mask, colour)
    write(tmp_path, "g", mask)
    three, one = load(tmp_path, channels=3), load(tmp_path, channels=1)
    image = three.plain([0, 1])
    assert image.shape == (2, 3, 64, 64)
    np.testing.assert_allclose(image[0].mean((1, 2)), np.array([200, 0, 100]) / 127.5 - 1, atol=1e-3)
    assert torch.equal(image[1, 0], image[1, 1]) and torch.equal(image[1, 0], image[1, 2])
    luma = 0.299 * 200 + 0.114 * 100
    np.testing.assert_allclose(one.plain([0])[0], luma / 127.5 - 1, atol=0.01)
