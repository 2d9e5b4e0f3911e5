"""A line chart shows its lines where the numbers are."""

import math

import numpy as np

from mhvae_cli.images.plot import COLOURS, line_chart


def rows_of(chart: np.ndarray, number: int, column: slice) -> np.ndarray:
    """The rows in which the line of this number is drawn."""
    return np.nonzero((chart[60:, column] == COLOURS[number]).all(-1).any(1))[0]


def test_lines_rise_and_fall_with_their_numbers() -> None:
    series = {"up": [(1.0, 0.0), (9.0, 1.0)], "down": [(1.0, 1.0), (9.0, 0.0)]}
    chart = line_chart(series, title="Dice", x_label="epoch", size=(400, 300))
    assert chart.shape == (400, 300, 3) and chart.dtype == np.uint8
    left, right = slice(70, 110), slice(220, 270)
    assert rows_of(chart, 0, left).mean() > rows_of(chart, 0, right).mean() + 50
    assert rows_of(chart, 1, left).mean() < rows_of(chart, 1, right).mean() - 50


def test_a_logarithmic_axis_spaces_equal_factors_equally() -> None:
    points = [(10.0, 0.0), (100.0, 0.5), (1000.0, 1.0)]
    straight = line_chart({"n": points}, title="", x_label="images", logarithmic=True)
    even = line_chart({"n": [(1.0, 0.0), (2.0, 0.5), (3.0, 1.0)]}, title="", x_label="images")
    assert np.array_equal(straight[:310], even[:310])  # all but the numbers below


def test_no_numbers_and_one_number_are_drawn_too() -> None:
    assert (line_chart({}, title="", x_label="") == 255).all()
    assert (line_chart({"a": [(1.0, math.nan)]}, title="", x_label="") == 255).all()
    one = line_chart({"a": [(1.0, 2.0)]}, title="", x_label="")
    assert len(rows_of(one, 0, slice(0, None)))


def test_a_band_is_drawn_faintly_between_its_ends() -> None:
    line = {"a": [(0.0, 1.0), (1.0, 1.0)]}
    chart = line_chart(line, title="", x_label="", bands={"a": [(0.0, 0.0, 2.0), (1.0, 0.5, 2.0)]})
    column = chart[60:310, 240].astype(int)
    faint = ((column < 255).any(1) & (column[:, 2] > 200)).nonzero()[0]
    bare = ((column == 255).all(1)).nonzero()[0]
    assert len(faint) > 100 and len(bare)  # from .25 to 2 of 0 to 2
    assert bare.min() < faint.min() and bare.max() > faint.max()  # above and below it
    inside = chart[60:310, 230:250].reshape(-1, 3)
    assert (inside == COLOURS[0]).all(1).any()  # the line lies over it
