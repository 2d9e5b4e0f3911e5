"""Every metric against a brute force over all pairs of pixels, and the price of an empty mask."""

import math

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

from mhvae_cli.evaluation import metrics
from mhvae_cli.images.scan import Spacing

SPACINGS = [Spacing(1.0, 1.0), Spacing(0.5, 0.5), Spacing(1.7, 0.3)]


def brute_boundary(mask: np.ndarray) -> np.ndarray:
    """Object pixels that touch the outside through a side, by looking at each pixel in turn."""
    height, width = mask.shape
    edge = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        for ny, nx in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= ny < height and 0 <= nx < width and mask[ny, nx]):
                edge[y, x] = True
    return edge


def brute(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> tuple[float, float, float]:
    """(hausdorff over ALL object pixels, hd95, assd) from the full matrix of distances."""
    every = cdist(np.argwhere(pred) * spacing[::-1], np.argwhere(truth) * spacing[::-1])
    rim = cdist(
        np.argwhere(brute_boundary(pred)) * spacing[::-1], np.argwhere(brute_boundary(truth)) * spacing[::-1]
    )
    forth, back = rim.min(axis=1), rim.min(axis=0)
    return (
        max(every.min(axis=1).max(), every.min(axis=0).max()),
        max(np.percentile(forth, 95), np.percentile(back, 95)),
        np.concatenate([forth, back]).mean(),
    )


def pairs() -> list[tuple[str, np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:23, :31]

    def blob() -> np.ndarray:
        cy, cx, ry, rx = rng.uniform((6, 8, 2, 2), (17, 23, 9, 12))
        return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1

    def dot(row: int, column: int) -> np.ndarray:
        return (y == row) & (x == column)

    full = np.ones((23, 31), bool)
    radius = np.hypot(y - 11, x - 15)
    return [
        *((f"blobs{i}", blob(), blob()) for i in range(8)),
        *(
            (f"noise{i}", rng.random((23, 31)) < share, rng.random((23, 31)) < 0.3)
            for i, share in enumerate((0.02, 0.5, 0.97))
        ),
        ("disc in ring", radius < 6, (radius > 9) & (radius < 11)),
        ("ring around nothing", radius < 11, (radius > 9) & (radius < 11)),
        ("dots", dot(0, 0), dot(22, 30)),
        ("same dot", dot(4, 5), dot(4, 5)),
        ("dot and full", dot(22, 3), full),
        ("full", full, full),
        ("two islands", blob() | dot(0, 30), blob()),
    ]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize(("pred", "truth"), [case[1:] for case in pairs()], ids=[case[0] for case in pairs()])
def test_equal_to_brute_force(pred: np.ndarray, truth: np.ndarray, spacing: Spacing) -> None:
    expected = brute(pred, truth, spacing)
    found = [f(pred, truth, spacing=spacing) for f in (metrics.hausdorff, metrics.hd95, metrics.assd)]
    assert found == pytest.approx(expected, abs=1e-9)
    swapped = metrics.distances(truth, pred, spacing=spacing)
    assert (swapped.hausdorff, swapped.hd95, swapped.assd) == pytest.approx(expected, abs=1e-9)
    mm = metrics.measure(pred, truth, spacing=spacing).mm
    assert mm is not None
    assert (mm.hausdorff, mm.hd95, mm.assd) == pytest.approx(expected, abs=1e-9)

    a, b = set(map(tuple, np.argwhere(pred))), set(map(tuple, np.argwhere(truth)))
    assert metrics.dice(pred, truth) == pytest.approx(2 * len(a & b) / (len(a) + len(b)))
    assert metrics.iou(pred, truth) == pytest.approx(len(a & b) / len(a | b))


def test_inner_pixels_count_in_the_hausdorff_distance() -> None:
    radius = np.hypot(*(np.mgrid[:41, :41] - 20))
    disc, ring = radius < 15.5, (radius > 14.5) & (radius < 15.5)
    assert metrics.hausdorff(disc, ring) == radius[ring].min() > 14
    assert metrics.hd95(disc, ring) <= 1.0


@pytest.mark.parametrize(("profile", "diagonal"), [("native", 50.0), ("paper256", 256 * math.sqrt(2))])
def test_a_missed_or_invented_object_costs_the_diagonal(profile: metrics.Profile, diagonal: float) -> None:
    nothing, thing = np.zeros((30, 40), bool), np.zeros((30, 40), bool)
    thing[10:20, 10:20] = True
    for pred, truth in ((nothing, thing), (thing, nothing), (None, thing), (None, nothing)):
        scores = metrics.measure(pred, truth, profile=profile, spacing=Spacing(0.2, 0.1))
        assert (scores.dice, scores.iou) == (0, 0)
        assert (scores.px.hausdorff, scores.px.hd95, scores.px.assd) == pytest.approx([diagonal] * 3)
        assert scores.mm is not None
        assert scores.mm.hausdorff == pytest.approx(math.hypot(30 * 0.1, 40 * 0.2))
        assert scores.truth_empty == (truth is nothing)
        assert scores.pred_empty == (pred is nothing)


@pytest.mark.parametrize("profile", ["native", "paper256"])
def test_two_empty_masks_agree(profile: metrics.Profile) -> None:
    nothing = np.zeros((30, 40), bool)
    scores = metrics.measure(nothing, nothing, profile=profile, spacing=Spacing(1, 1))
    assert (scores.dice, scores.iou) == (1, 1)
    assert scores.px == scores.mm == metrics.Distances(0, 0, 0)
    assert scores.pred_empty
    assert scores.truth_empty


@pytest.mark.parametrize("shape", [(270, 400), (90, 61), (256, 256), (513, 255)])
def test_squash_is_the_nearest_neighbour_of_pillow(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(shape) < 0.5
    nearest = Image.fromarray(mask.astype(np.uint8)).resize((256, 256), Image.Resampling.NEAREST)
    assert np.array_equal(metrics.squash(mask), np.asarray(nearest) > 0)


def test_paper256_is_the_brute_force_on_the_squashed_masks() -> None:
    y, x = np.mgrid[:120, :400]
    pred, truth = np.hypot(y - 60, x - 190) < 30, np.hypot(y - 64, x - 200) < 33
    scores = metrics.measure(pred, truth, profile="paper256", spacing=Spacing(0.1, 0.2))
    small_pred, small_truth = metrics.squash(pred), metrics.squash(truth)
    assert scores.dice == metrics.dice(small_pred, small_truth) != metrics.dice(pred, truth)
    assert scores.px.hausdorff == pytest.approx(brute(small_pred, small_truth, Spacing(1, 1))[0])
    assert scores.mm is not None
    assert scores.mm.hausdorff == pytest.approx(
        brute(small_pred, small_truth, Spacing(0.1 * 400 / 256, 0.2 * 120 / 256))[0]
    )
    native = metrics.measure(pred, truth, spacing=Spacing(0.1, 0.2)).mm
    assert native is not None
    assert scores.mm.hausdorff == pytest.approx(native.hausdorff, abs=0.15)


def test_a_mask_that_the_squash_loses_counts_as_empty() -> None:
    dot = np.zeros((1000, 1000), bool)
    dot[0, 0] = True
    scores = metrics.measure(dot, dot, profile="paper256")
    assert scores.pred_empty
    assert scores.truth_empty
    assert not metrics.measure(dot, dot).truth_empty
