"""OUT/rivals.csv and OUT/pairs.csv, and the Markdown made of them alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, pstdev

import numpy as np
from rows import read_csv, write_csv

from mhvae_cli.evaluation.scoring import compare
from mhvae_cli.filesystem import write_atomic

from .testing import METRICS, PROFILES, SCORES

SPREADS = tuple(
    f"{profile}_{metric}{end}" for profile in PROFILES for metric in METRICS for end in ("", "_sd")
)
COLUMNS = (
    *("model", "title", "encoder", "start", "looks", "data", "fold", "size", "budget", "batch"),
    *("train_images", "val_images", "test_images", "steps", "shown", "minutes"),
    *SPREADS,
    *("components", "holes", "empty", "parameters_m", "gflop", "ms", "threads", "dtype", "device", "date"),
)
PAIRS = ("model", "reference", "profile", "metric", "n", "mean", "other", "difference", "low", "high", "p")


@dataclass(frozen=True)
class _Scored:
    """An image as `compare` sees it."""

    id: str
    values: Mapping[str, float]


def spreads(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The columns of `rivals.csv` that are means and standard deviations of the rows of SCORES."""
    found = {}
    for profile in PROFILES:
        here = [row for row in rows if row["profile"] == profile]
        for metric in METRICS:
            values = [float(row[metric]) for row in here]
            found[f"{profile}_{metric}"] = f"{mean(values):.5g}"
            found[f"{profile}_{metric}_sd"] = f"{pstdev(values):.5g}"
    here = [row for row in rows if row["profile"] == PROFILES[0]]
    for column in ("components", "holes"):
        found[column] = f"{mean(int(row[column]) for row in here):.3f}"
    found["empty"] = str(sum(int(row["empty"]) for row in here))
    return found


def compare_all(out: Path, reference: str) -> None:
    """Write OUT/pairs.csv: each model beside the reference, on the images that both were tested on."""
    rows = []
    for name in dict.fromkeys(row["model"] for row in read_csv(out / "rivals.csv")):
        for profile in PROFILES if name != reference else ():
            mine, other = (_scored(out / each / "scores.csv", profile) for each in (name, reference))
            for metric, figures in compare(mine, other, rng=np.random.default_rng(0)).items():
                texts = (name, reference, profile, metric, *(f"{x:.6g}" for x in vars(figures).values()))
                rows.append(dict(zip(PAIRS, texts, strict=True)))
    write_csv(out / "pairs.csv", PAIRS, rows)


def _scored(path: Path, profile: str) -> list[_Scored]:
    rows = [row for row in read_csv(path) if row["profile"] == profile]
    assert not rows or set(SCORES) <= rows[0].keys()
    return [_Scored(row["id"], {name: float(row[name]) for name in METRICS}) for row in rows]


def write_markdown(out: Path) -> None:
    """Write OUT/rivals.md from the two CSV files."""
    rows, pairs = read_csv(out / "rivals.csv"), read_csv(out / "pairs.csv")
    write_atomic(out / "rivals.md", markdown(rows, pairs).encode())


def markdown(rows: Sequence[Mapping[str, str]], pairs: Sequence[Mapping[str, str]]) -> str:
    """The tables: one row per model, over its folds; and the paired differences from the reference."""
    models: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        models.setdefault(row["model"], []).append(row)
    if not rows:
        return ""
    lines = [
        _caption(rows),
        "",
        "| Model | Encoder | Start | Dice | HD | HD95 | Native: Dice | HD | HD95 | Pieces | Holes | Empty "
        "| M parameters | GFLOP | ms | Minutes | Images shown |",
        f"|{'---|' * 17}",
    ]
    for group in models.values():
        cells = [group[0][column] for column in ("title", "encoder", "start")]
        for profile in PROFILES:
            cells += [_spread(group, f"{profile}_{m}", 3 if m == "dice" else 2) for m in METRICS]
        cells += [f"{_mean(group, column):.2f}" for column in ("components", "holes")]
        cells += [str(sum(int(row["empty"]) for row in group))]
        cells += [f"{_mean(group, column):.1f}" for column in ("parameters_m", "gflop", "ms", "minutes")]
        lines.append(_line([*cells, f"{_mean(group, 'shown'):.0f}"]))
    return "\n".join([*lines, *_differences(rows, pairs)]) + "\n"


def _caption(rows: Sequence[Mapping[str, str]]) -> str:
    row, folds = rows[0], sorted({row["fold"] for row in rows}, key=int)
    several = len(folds) > 1
    threads = f"{row['threads']} thread{'s' * (row['threads'] != '1')}"
    return (
        f"{row['data']}, fold{'s' * several} {', '.join(folds)}, {row['test_images']} test images in fold "
        f"{row['fold']}; {row['size']} px, {row['budget']} of training per model and fold, on "
        f"{row['train_images']} images in batches of {row['batch']}; {row['device']}, {threads}, "
        f"{row['dtype']}. ± is the sd {'of the fold means' if several else 'over images'}."
    )


def _differences(rows: Sequence[Mapping[str, str]], pairs: Sequence[Mapping[str, str]]) -> list[str]:
    """The lines of the second table, if there are pairs."""
    if not pairs:
        return []
    titles = {row["model"]: f"{row['title']}, {row['encoder']}, {row['start']}" for row in rows}
    lines = [
        "",
        f"Differences from {titles[pairs[0]['reference']]} on the same images (95 % interval, Wilcoxon's p):",
        "",
        "| Model | n | Dice | p | HD | p | Native: HD | p |",
        f"|{'---|' * 8}",
    ]
    keyed = {(pair["model"], pair["profile"], pair["metric"]): pair for pair in pairs}
    for name in dict.fromkeys(pair["model"] for pair in pairs):
        cells = [titles[name], keyed[name, "paper256", "dice"]["n"]]
        for profile, metric in (("paper256", "dice"), ("paper256", "hausdorff"), ("native", "hausdorff")):
            pair, digits = keyed[name, profile, metric], 4 if metric == "dice" else 2
            shift, low, high = (f"{float(pair[k]):+.{digits}f}" for k in ("difference", "low", "high"))
            cells += [f"{shift} ({low} to {high})", f"{float(pair['p']):.2g}"]
        lines.append(_line(cells))
    return lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(rows: Sequence[Mapping[str, str]], column: str) -> float:
    return mean(float(row[column]) for row in rows)


def _spread(rows: Sequence[Mapping[str, str]], column: str, digits: int) -> str:
    values = [float(row[column]) for row in rows]
    spread = pstdev(values) if len(values) > 1 else float(rows[0][f"{column}_sd"])
    return f"{mean(values):.{digits}f} ± {spread:.{digits}f}"
