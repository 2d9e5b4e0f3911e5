"""Conformal quantiles, ridges and tables, on synthetic residuals whose distribution is known."""

import json
import math

import numpy as np
import pytest

from mhvae_cli.errors import ModelError
from mhvae_cli.inference.certainty import Evidence, parse_errors
from mhvae_cli.training.error_model import (
    DICE_PENALTIES,
    Outcome,
    conformal_quantile,
    fit_errors,
    fit_factor,
    fit_measure,
    isotonic,
    ridge,
)

FEATURES = 6


def test_the_conformal_quantile_is_the_smallest_with_enough_below() -> None:
    """Against its definition, and its promise: new values exceed it at most one time in ten, on average."""
    rng = np.random.default_rng(0)
    for count in (5, 9, 10, 63, 154):
        ratios = rng.exponential(size=count)
        enough = [value for value in ratios if (ratios <= value).sum() >= 0.9 * (count + 1)]
        assert conformal_quantile(ratios) == (min(enough) if enough else ratios.max())
    held = [rng.exponential() <= conformal_quantile(rng.exponential(size=63)) for _ in range(4000)]
    assert np.mean(held) == pytest.approx(58 / 64, abs=0.015)


def residuals(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised inputs, gaps, and errors whose size depends on the first input and one feature."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([np.ones(count), rng.standard_normal((count, 4 + FEATURES))])
    gaps = 0.1 * rng.standard_normal(count)
    size = 0.05 * np.exp(0.6 * x[:, 1] + 0.4 * x[:, 6])
    return x, gaps, 0.3 * gaps + size * rng.standard_normal(count)


def test_intervals_hold_nine_of_ten_in_every_third_of_difficulty() -> None:
    x, gaps, errors = residuals(400, 1)
    fit = fit_measure(x, gaps, errors)
    new, new_gaps, new_errors = residuals(6000, 2)
    width = np.exp(new @ fit.weights)
    held = np.abs(new_errors - fit.mean[0] - fit.mean[1] * new_gaps) <= width
    assert held.mean() == pytest.approx(0.9, abs=0.03)
    thirds = [held[part].mean() for part in np.array_split(np.argsort(width), 3)]
    assert min(thirds) > 0.84
    constant = np.quantile(np.abs(errors), 0.9)  # what one width for all would need
    assert width.mean() < 0.9 * constant
    assert fit.mean[1] == pytest.approx(0.3, abs=0.1)


def test_the_ridge_is_the_penalised_least_squares_solution() -> None:
    x, _, y = residuals(60, 3)
    found = ridge(x, y, [10.0])
    penalty = np.array([1e-9, *[10.0] * 4, *[10.0 * FEATURES] * FEATURES])
    gradient = x.T @ (x @ found - y) + penalty * found
    assert gradient == pytest.approx(0, abs=1e-9)
    # Chosen by leaving each out, done here one by one.
    missed = []
    for each in DICE_PENALTIES:
        gone = [
            (y[i] - x[i] @ ridge(np.delete(x, i, 0), np.delete(y, i), [each])) ** 2 for i in range(len(y))
        ]
        missed.append(np.mean(gone))
    best = DICE_PENALTIES[int(np.argmin(missed))]
    assert ridge(x, y, DICE_PENALTIES) == pytest.approx(ridge(x, y, [best]))


def test_the_table_of_the_dice_rises() -> None:
    rng = np.random.default_rng(4)
    scores = rng.standard_normal(300)
    values = 0.8 + 0.1 * np.tanh(scores) + 0.05 * rng.standard_normal(300)
    table = isotonic(scores, values)
    assert (np.diff(table) > 0).all() and len(table[0]) <= 12
    told = np.interp(scores, *table)
    assert told.mean() == pytest.approx(values.mean(), abs=0.01)
    assert np.abs(told - 0.8 - 0.1 * np.tanh(scores)).mean() < 0.03
    assert isotonic(scores, -scores).shape == (2, 1)  # falling: one value for all


def outcomes(count: int) -> list[Outcome]:
    rng = np.random.default_rng(5)
    made = []
    for number in range(count):
        inputs = rng.standard_normal(4 + FEATURES)
        gap = 0.05 * rng.standard_normal()
        if number % 10 == 0:  # a single look
            inputs[:2], inputs[3], gap = math.nan, 1.0, math.nan
        size = 0.05 * math.exp(np.nan_to_num(inputs[0]))
        errors = {"area": size * rng.standard_normal(), "hc": math.nan if number % 2 else 0.01}
        theta = size * rng.standard_normal(3) * [1, 2, 0]
        made.append(Outcome(Evidence(gap, inputs), errors, 1 - min(size, 0.9), theta))
    return made


def test_the_model_outlives_its_file_and_says_what_is_certain() -> None:
    model = fit_errors(outcomes(120), least=80)
    assert model is not None and set(model.measures) == {"area"}  # 60 of hc are too few
    again = parse_errors(json.loads(json.dumps(model.to_dict())), FEATURES, 3, where="here")
    sure, unsure = Evidence(0.0, np.full(10, -1.5)), Evidence(0.0, np.full(10, 1.5))
    for found in (model, again):
        a, b = found.assess(sure), found.assess(unsure)
        assert a.dice > b.dice and a.spans["area"][1] < b.spans["area"][1]
        low, high = a.interval("area", 100.0)
        assert low is not None and high is not None and low < 100 < high
        assert a.interval("hc", 100.0) == a.interval("area", None) == (None, None)
    assert again.assess(sure).dice == pytest.approx(model.assess(sure).dice, abs=1e-3)
    missing = Evidence(math.nan, np.full(10, math.nan))
    assert 0 < model.assess(missing).dice < 1
    assert fit_errors(outcomes(60), least=80) is None


@pytest.mark.parametrize(
    "change",
    [{"scale": [0.0] * 10}, {"table": [[1, 0], [0, 1]]}, {"measures": {}}, {"factor": 1}, {"dice": []}],
)
def test_a_damaged_model_is_refused(change: dict[str, object]) -> None:
    model = fit_errors(outcomes(60), least=20)
    assert model is not None
    with pytest.raises(ModelError, match="here"):
        parse_errors({**model.to_dict(), **change}, FEATURES, 3, where="here")


def test_draws_have_the_covariance_of_scaled_errors() -> None:
    given = outcomes(400)
    model = fit_errors(given, least=20)
    assert model is not None
    certainties = [model.assess(each.evidence) for each in given]
    errors = np.stack([each.theta for each in given])
    factor = fit_factor(errors, certainties)
    widths = np.array([each.spans["area"][1] for each in certainties])
    expected = np.cov((errors / widths[:, None]).T, bias=True)
    assert factor.shape == (3, 2) and factor @ factor.T == pytest.approx(expected, rel=0.4, abs=0.01)
