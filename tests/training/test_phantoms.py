"""Phantoms are reproducible, their masks are the shapes they show, and a folder of them is a data folder."""

import csv

import numpy as np
import pytest

from mhvae_cli.errors import OutputError
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.training.phantoms import phantom, write_phantoms

KINDS = ["fetal-head", "skin-lesion", "optic-disc"]
SEEDS = range(12)


def eroded(mask, steps):
    for _ in range(steps):
        outer = np.pad(mask, 1)
        mask = mask & outer[:-2, 1:-1] & outer[2:, 1:-1] & outer[1:-1, :-2] & outer[1:-1, 2:]
    return mask


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_a_picture(kind):
    state = np.random.get_state()[1].copy()
    image, mask = phantom(kind, 3, (60, 90))
    again, same = phantom(kind, 3, (60, 90))
    np.testing.assert_array_equal(image, again)
    np.testing.assert_array_equal(mask, same)
    assert image.shape == ((60, 90) if kind == "fetal-head" else (60, 90, 3))
    assert (image.dtype, mask.dtype, mask.shape) == (np.uint8, bool, (60, 90))
    other, elsewhere = phantom(kind, 4, (60, 90))
    assert (image != other).any() and (mask != elsewhere).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@pytest.mark.parametrize("kind", KINDS)
def test_one_shape_at_every_size(kind):
    for seed in SEEDS:
        _, small = phantom(kind, seed, (40, 60))
        _, large = phantom(kind, seed, (120, 180))
        np.testing.assert_array_equal(small, large[1::3, 1::3])  # every third centre is a small pixel's


@pytest.mark.parametrize("kind", ["fetal-head", "optic-disc"])
def test_heads_and_discs_are_whole_ellipses(kind):
    for seed in SEEDS:
        _, mask = phantom(kind, seed, (120, 160))
        if kind == "fetal-head":
            assert not (mask[[0, -1]].any() or mask[:, [0, -1]].any())
        axes = np.linalg.eigvalsh(np.cov(np.argwhere(mask).T))
        area = 4 * np.pi * np.sqrt(axes.prod())  # true of ellipses alone
        assert mask.sum() == pytest.approx(area, rel=0.02)


def test_lesions_are_one_piece_and_vary():
    areas = []
    for seed in SEEDS:
        _, mask = phantom("skin-lesion", seed, (100, 100))
        areas.append(mask.mean())
        assert 0.01 < areas[-1] < 0.9
        assert eroded(mask, 2).any()
    assert max(areas) > 4 * min(areas)


def test_the_skull_shines_under_the_edge_of_the_mask():
    for seed in SEEDS:
        image, mask = phantom("fetal-head", seed, (120, 160))
        rim = mask & ~eroded(mask, 5)
        assert np.percentile(image[rim], 80) > 1.5 * image[eroded(mask, 8)].mean()


@pytest.mark.parametrize(("kind", "sign"), [("skin-lesion", -1), ("optic-disc", 1)])
def test_the_object_differs_from_what_surrounds_it(kind, sign):
    for seed in SEEDS:
        image, mask = phantom(kind, seed, (100, 100))
        around = eroded(~mask, 4) & ~eroded(~mask, 12)
        green = image[..., 1].astype(float)
        assert sign * (np.median(green[eroded(mask, 5)]) - np.median(green[around])) > 8


def test_a_folder_of_phantoms_is_a_data_folder(tmp_path):
    write_phantoms(tmp_path, "fetal-head", 5, seed=7, size=(30, 40))
    with open(tmp_path / "index.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["fold"] for row in rows] == ["0", "1", "2", "3", "0"]
    assert len({row["subject"] for row in rows}) == 5
    for number, row in enumerate(rows):
        image, mask = phantom("fetal-head", 7 + number, (30, 40))
        np.testing.assert_array_equal(read_scan(tmp_path / "images" / f"{row['id']}.png").pixels, image)
        np.testing.assert_array_equal(read_mask(tmp_path / "masks" / f"{row['id']}.png"), mask)
    assert len(list(tmp_path.rglob("*.png"))) == 10


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(OutputError):
        write_phantoms(tmp_path / "taken", "optic-disc", 1, size=(16, 16))
