"""Masks are paired and scored, and sets of scores compared, against theory."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import wilcoxon
from support.discs import DIAGONAL, disc, write, write_truths

from mhvae_cli.errors import InputError
from mhvae_cli.evaluation import metrics
from mhvae_cli.evaluation import scoring as evaluation
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_tiff


def row(name: str, pred: np.ndarray | None, truth: np.ndarray) -> evaluation.Row:
    return evaluation.Row(name, metrics.measure(pred, truth), missing=pred is None)


def test_masks_pair_by_stem_whatever_case_and_suffix(tmp_path: Path) -> None:
    truths = write_truths(tmp_path / "truth")
    folder = tmp_path / "cased"
    write_atomic(folder / "A.TIF", encode_tiff(disc(6)))
    pairing = evaluation.pair(folder, truths)
    assert [pair.id for pair in pairing.pairs] == ["a", "b", "c", "d"]
    assert pairing.pairs[0].pred == folder / "A.TIF"
    assert evaluation.score(pairing.pairs[0]).values["dice"] == 1
    write(folder, a=disc(6))
    with pytest.raises(InputError, match=r"A\.TIF and a\.png have the same name"):
        evaluation.pair(folder, truths)


def test_interval_and_p_against_theory() -> None:
    """The mean of many normal differences has an interval of +- 1.96 standard errors."""
    rng = np.random.default_rng(5)
    shifts = rng.normal(0.3, 1, size=(400, 2))

    def rows(column: int) -> list[evaluation.Row]:
        return [
            evaluation.Row(str(i), metrics.Scores(x, x, metrics.Distances(x, x, x), None, False, False))
            for i, x in enumerate(shifts[:, column])
        ]

    def compared(seed: int) -> evaluation.Difference:
        rng = np.random.default_rng(seed)
        return evaluation.compare(rows(0), list(reversed(rows(1))), rng=rng, resamples=2000)["dice"]

    change = shifts[:, 0] - shifts[:, 1]
    error = change.std() / 20
    found = compared(0)
    assert found.difference == pytest.approx(change.mean())
    assert found.low == pytest.approx(change.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(change.mean() + 1.96 * error, abs=0.2 * error)
    assert found.p == pytest.approx(wilcoxon(shifts[:, 0], shifts[:, 1]).pvalue)
    assert compared(0) == found
    assert compared(1).low != found.low


@pytest.mark.filterwarnings("error")
def test_equal_predictions_do_not_differ() -> None:
    rows = [row("a", disc(5), disc(6)), row("b", disc(7), disc(6))]
    found = evaluation.compare(rows, rows, rng=np.random.default_rng(0))
    assert set(found) == {"dice", "iou", "thresholded_jaccard", "hausdorff", "hd95", "assd"}
    assert all((d.difference, d.low, d.high, d.p) == (0, 0, 0, 1) for d in found.values())
    alone = evaluation.compare(rows[:1], [row("a", None, disc(6))], rng=np.random.default_rng(0))
    assert alone["dice"].n == alone["dice"].p == 1
    assert evaluation.compare(rows[:1], rows[1:], rng=np.random.default_rng(0)) == {}


def test_folds_give_the_mean_and_population_sd_of_their_means() -> None:
    folds = [
        [row("a", disc(6), disc(6)), row("b", disc(6, x=22), disc(6))],
        [row("c", disc(6, x=23), disc(6))],
        [row("d", None, disc(6)), evaluation.Row("e", error="truncated")],
    ]
    spread = evaluation.over_folds(folds)["hausdorff"]
    assert spread.n == 3
    assert spread.mean == pytest.approx((1 + 3 + DIAGONAL) / 3)
    assert spread.sd == pytest.approx(math.sqrt(np.mean((np.array([1, 3, DIAGONAL]) - 18) ** 2)))
