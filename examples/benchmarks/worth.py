"""What made pairs are worth: the table and the charts of made_pairs.py."""

import math
from collections.abc import Sequence

import numpy as np
from rows import Row

from mhvae_cli.images.plot import line_chart

ARMS = ("real", "carried", "samples-1", "samples-1-good", "samples-4", "samples-4-good")
SEGMENTERS = ("ours", "unet")
HEAD = ("Segmenter", "Arm", "N", "Made pairs", "Seeds", "Dice", "Difference from `real`", "Real masks")


def worth(curve: Sequence[tuple[float, float]], dice: float) -> str:
    """How many real images (N, Dice) give this Dice: between two of them, linear in log N and in Dice.

    The curve is taken never to fall: more images are never worth less.
    """
    counts = [count for count, _ in curve]
    risen = np.maximum.accumulate([value for _, value in curve])
    if dice < risen[0]:
        return f"< {counts[0]:.0f}"
    if dice > risen[-1]:
        return f"> {counts[-1]:.0f}"
    at = int(np.searchsorted(risen, dice))
    if risen[at] == dice:
        return f"{counts[at]:.0f}"
    share = (dice - risen[at - 1]) / (risen[at] - risen[at - 1])
    return f"{math.exp((1 - share) * math.log(counts[at - 1]) + share * math.log(counts[at])):.0f}"


def grouped(rows: Sequence[Row], segmenter: str) -> dict[str, dict[int, list[Row]]]:
    """A segmenter's rows by arm and N, in order."""
    found: dict[str, dict[int, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: (ARMS.index(row["arm"]), int(row["images"]), int(row["seed"]))):
        if row["segmenter"] == segmenter:
            found.setdefault(row["arm"], {}).setdefault(int(row["images"]), []).append(row)
    return found


def dices(rows: Sequence[Row]) -> list[float]:
    return [float(row["dice"]) for row in rows]


def compared(rows: Sequence[Row]) -> list[list[str]]:
    """The table's rows, by segmenter, arm and N: the Dice, how far it is above that of `real` with the same N
    and seeds, and how many real masks are worth as much."""
    lines = []
    for segmenter in SEGMENTERS:
        arms = grouped(rows, segmenter)
        plain = arms.get("real", {})
        curve = [(count, float(np.mean(dices(each)))) for count, each in plain.items()]
        for arm, counts in arms.items():
            for count, each in counts.items():
                made = f"{np.mean([int(row['made']) for row in each]):.0f}"
                line = [segmenter, arm, str(count), made, str(len(each)), _spread(dices(each))]
                same = {row["seed"]: float(row["dice"]) for row in plain.get(count, [])}
                gains = [float(row["dice"]) - same[row["seed"]] for row in each if row["seed"] in same]
                told = arm != "real" and gains
                beside = (
                    [_spread(gains, "+"), worth(curve, float(np.mean(dices(each))))] if told else ["", ""]
                )
                lines.append([*line, *beside])
    return lines


def _spread(values: Sequence[float], sign: str = "") -> str:
    """The mean, and the least and the largest of several."""
    ends = f" ({min(values):{sign}.3f} to {max(values):{sign}.3f})" if len(values) > 1 else ""
    return f"{np.mean(values):{sign}.3f}{ends}"


def charts(rows: Sequence[Row]) -> np.ndarray:
    """Dice against N, a chart per segmenter: means over the seeds, and their range as a band."""
    pages = []
    for segmenter in SEGMENTERS:
        lines, bands = {}, {}
        for arm, counts in grouped(rows, segmenter).items():
            lines[arm] = [(count, float(np.mean(dices(each)))) for count, each in counts.items()]
            bands[arm] = [(count, min(dices(each)), max(dices(each))) for count, each in counts.items()]
        title = f"{segmenter}: Dice against real images with masks"
        look = {"x_label": "N real images", "size": (420, 640), "logarithmic": True, "bands": bands}
        pages.append(line_chart(lines, title=title, **look))
    return np.concatenate(pages)
