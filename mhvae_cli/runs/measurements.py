"""The measurements that `segment --measure` adds to results.csv, and the 90 % intervals of measurements."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from ..evaluation import biometry
from ..inference.certainty import Certainty

Fields = dict[str, str | int | float | None]
V = TypeVar("V")
Measure = Literal["fetal-head", "cup-disc"]
MEASURE_COLUMNS: dict[Measure | None, tuple[str, ...]] = {
    None: (),
    "fetal-head": biometry.HEAD_COLUMNS,
    "cup-disc": biometry.CUP_COLUMNS,
}
INTERVALS = {
    "area_px": "area",
    "area_mm2": "area",
    "perimeter_px": "perimeter",
    "perimeter_mm": "perimeter",
}
HEAD_INTERVALS = {f"{name}_{unit}": name for name in ("hc", "bpd", "ofd") for unit in ("px", "mm")}
CUP_INTERVALS = {"vcdr": "height", "acdr": "area"}
"""Columns that have a 90 % interval, and the measure (`certainty.MEASURES`) whose errors give it."""


def intervals(measure: Measure | None) -> dict[str, str]:
    """The columns that have 90 % intervals, and the measures that these are of."""
    more: dict[Measure | None, dict[str, str]] = {"fetal-head": HEAD_INTERVALS, "cup-disc": CUP_INTERVALS}
    return INTERVALS | more.get(measure, {})


def interval_fields(
    fields: Mapping[str, object], certainties: Sequence[Certainty | None], measure: Measure | None
) -> Fields:
    """The intervals of the measurements in `fields`, None where one is not known.

    `certainties` are those of the object and, if any, the cup.
    """
    own, *others = certainties
    found: Fields = {}
    for name, key in intervals(measure).items():
        value = fields.get(name)
        low = high = None
        if own is not None and isinstance(value, float):
            if name not in CUP_INTERVALS:
                low, high = own.interval(key, value)
            elif others[0] is not None:
                low, high = own.ratio(others[0], key, value)
        found |= rounded({f"{name}_low": low, f"{name}_high": high})
    return found


def rounded(fields: Mapping[str, V]) -> dict[str, V | float]:
    """Fields whose floats have seven significant digits."""
    return {name: float(f"{x:.7g}") if isinstance(x, float) else x for name, x in fields.items()}
