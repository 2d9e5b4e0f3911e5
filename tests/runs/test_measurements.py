"""The interval columns of results.csv: which measure's errors give them, and empty where nothing is known."""

import math

import numpy as np
import pytest

from mhvae_cli.inference.certainty import Certainty
from mhvae_cli.runs.measurements import interval_fields, intervals, rounded


def certainty(**spans: tuple[float, float]) -> Certainty:
    return Certainty(0.9, spans, np.zeros((1, 0)))


def test_each_unit_has_the_interval_of_its_measure() -> None:
    found = interval_fields(
        {"area_px": 400.0, "area_mm2": 4.0, "perimeter_px": 80.0, "perimeter_mm": None},
        [certainty(area=(0.0, 0.1), perimeter=(0.0, 0.2))],
        None,
    )
    assert found["area_px_low"] == pytest.approx(400 * math.exp(-0.1), rel=1e-6)
    assert found["area_mm2_high"] == pytest.approx(4 * math.exp(0.1), rel=1e-6)
    assert found["perimeter_px_high"] == pytest.approx(80 * math.exp(0.2), rel=1e-6)
    assert found["perimeter_mm_low"] is None and found["perimeter_mm_high"] is None


def test_heads_and_cups_add_columns() -> None:
    assert {"hc_mm", "bpd_px", "ofd_mm"} <= set(intervals("fetal-head")) and "vcdr" not in intervals(None)
    fields = {"vcdr": 0.5, "acdr": 0.25}
    disc, cup = certainty(height=(0.0, 0.3), area=(0.0, 0.1)), certainty(height=(0.0, 0.4))
    found = interval_fields(fields, [disc, cup], "cup-disc")
    assert found["vcdr_low"] == pytest.approx(0.5 * math.exp(-0.5), rel=1e-6)  # 3, 4, 5
    assert found["acdr_low"] is None  # the cup's error of area is not known


def test_without_statistics_all_are_empty() -> None:
    found = interval_fields({"area_px": 400.0, "vcdr": 0.5}, [None, None], "cup-disc")
    assert set(found.values()) == {None} and len(found) == 2 * len(intervals("cup-disc"))


def test_numbers_have_seven_digits() -> None:
    assert rounded({"a": 1234.56789012, "b": "x", "c": None}) == {"a": 1234.568, "b": "x", "c": None}
