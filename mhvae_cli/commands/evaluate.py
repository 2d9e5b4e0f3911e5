"""`mhvae evaluate PRED TRUTH`: agreement of masks with ground truth, and comparison of two sets."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InputError, OutputError, UsageError
from ..runs.console import print_error, print_warning, show_table, write_line
from ..runs.results import csv_line
from .options import AsJson, ExistingFile, Quiet, Seed

if TYPE_CHECKING:
    from ..evaluation.metrics import Profile
    from ..evaluation.scoring import Pairing, Row
    from ..images.spacing import SpacingTable

EXAMPLES = (
    "mhvae evaluate masks/ truth/ --csv scores.csv",
    "mhvae evaluate masks/ truth/ --compare theirs/ --profile paper256",
)


def evaluate(
    pred: Annotated[Path, typer.Argument(metavar="PRED", help="Folder of predicted masks.")],
    truth: Annotated[
        Path,
        typer.Argument(
            metavar="TRUTH", help="Folder of ground-truth masks, with the same file names and sizes."
        ),
    ],
    profile: Annotated[
        Literal["native", "paper256"],
        typer.Option(
            "--profile",
            help="native scores at the original resolution; paper256 first resizes both masks to 256 x 256,"
            " as in the published tables. Either way, a missed object's distances are the image diagonal.",
        ),
    ] = "native",
    spacing_csv: Annotated[
        Path | None,
        typer.Option(
            "--spacing-csv",
            metavar="FILE",
            help="CSV of pixel sizes, for distances in mm: columns id and pixel_size_mm, or spacing_x and"
            " spacing_y.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            "--compare",
            metavar="OTHER",
            help="Also score this folder and compare it image by image: mean difference PRED - OTHER, 95 %"
            " bootstrap confidence interval, p-value of the Wilcoxon test.",
            show_default=False,
        ),
    ] = None,
    csv_file: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="Write the scores to this file, one row per image.",
            show_default=False,
        ),
    ] = None,
    existing: ExistingFile = "error",
    seed: Seed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score predicted masks against ground truth: Dice, IoU, Hausdorff distance, HD95 and ASSD.

    The thresholded Jaccard, of the ISIC challenges, is the IoU, or 0 below 0.65.
    A ground-truth mask without a prediction counts as a missed object. An unusable mask is reported as an
    error in its own row, and the other masks are still scored.
    """
    from ..evaluation.scoring import pair
    from ..filesystem import write_atomic
    from ..images.spacing import SpacingTable, read_spacing_csv

    if csv_file is not None and existing == "error" and csv_file.exists():
        raise OutputError(f"{csv_file}: already exists", hint="use --existing overwrite to replace it")
    folders = [pred] if compare is None else [pred, compare]
    pairings = [pair(folder, truth) for folder in folders]
    sizes = read_spacing_csv(spacing_csv) if spacing_csv else SpacingTable()
    warnings = [line for each in zip(folders, pairings, strict=True) for line in _pairing_warnings(*each)]
    if spacing_csv:
        warnings += _spacing_warnings(pairings[0], sizes, spacing_csv)
    for line in () if quiet else warnings:
        print_warning(line)
    rows_by_folder = [_score(pairing, profile, sizes) for pairing in pairings]
    errors = list(dict.fromkeys(row.error for rows in rows_by_folder for row in rows if row.error))
    for line in errors:
        print_error(InputError(line))
    if csv_file is not None and not (existing == "skip" and csv_file.exists()):
        write_atomic(csv_file, _as_csv(rows_by_folder[0]).encode(errors="surrogateescape"))
    report = {"profile": profile, "truth": str(truth), **_report(folders, rows_by_folder, seed)}
    if as_json:
        write_line(json.dumps(report | {"images": [_record(row) for row in rows_by_folder[0]]}))
    else:
        _print_report(report)
    if errors:
        raise typer.Exit(3 if all(any(row.scores for row in rows) for rows in rows_by_folder) else 4)


def _pairing_warnings(folder: Path, pairing: "Pairing") -> list[str]:
    """Warnings about masks without a counterpart."""
    missing = [pair.truth.name for pair in pairing.pairs if pair.pred is None]
    unmatched = [path.name for path in pairing.unmatched]
    lines = []
    if missing:
        share = f"{len(missing)} of {len(pairing.pairs)} (first: {missing[0]})"
        lines.append(f"{folder}: ground-truth masks without a prediction, scored as missed objects: {share}")
    if unmatched:
        share = f"{len(unmatched)} (first: {unmatched[0]})"
        lines.append(f"{folder}: predictions without a ground-truth mask, ignored: {share}")
    return lines


def _spacing_warnings(pairing: "Pairing", sizes: "SpacingTable", source: Path) -> list[str]:
    """Warnings about images without a pixel size in `source`; UsageError if none of them has one."""
    unsized = [pair.id for pair in pairing.pairs if sizes.find(pair.truth.name) is None]
    if len(unsized) == len(pairing.pairs):
        raise UsageError(f"{source}: names none of the images", hint=f"the first image is {unsized[0]!r}")
    share = f"{len(unsized)} of {len(pairing.pairs)}"
    return [f"{source}: images without a pixel size: {share} (first: {unsized[0]})"] if unsized else []


def _score(pairing: "Pairing", profile: "Profile", sizes: "SpacingTable") -> list["Row"]:
    from ..evaluation.scoring import score

    return [score(pair, profile=profile, spacing=sizes.find(pair.truth.name)) for pair in pairing.pairs]


def _report(folders: Sequence[Path], rows_by_folder: Sequence[Sequence["Row"]], seed: int) -> dict[str, Any]:
    """What --json prints, as plain values: `pred`, `counts`, `summary`; also `other` and `comparison`."""
    import numpy as np

    from ..evaluation.scoring import compare, count, summarise

    sets = [
        {
            "pred": str(folder),
            "counts": dataclasses.asdict(count(rows)),
            "summary": {name: dataclasses.asdict(spread) for name, spread in summarise(rows).items()},
        }
        for folder, rows in zip(folders, rows_by_folder, strict=True)
    ]
    if len(sets) == 1:
        return sets[0]
    differences = compare(rows_by_folder[0], rows_by_folder[1], rng=np.random.default_rng(seed))
    comparison = {name: dataclasses.asdict(difference) for name, difference in differences.items()}
    return sets[0] | {"other": sets[1], "comparison": comparison}


def _record(row: "Row") -> dict[str, object]:
    """One image as plain values, with the same keys for every status."""
    from ..evaluation.scoring import METRICS

    status = "failed" if row.scores is None else "missing" if row.missing else "ok"
    return {
        "id": row.id,
        "status": status,
        **{name: row.values.get(name) for name in METRICS},
        "pred_empty": row.scores and row.scores.pred_empty,
        "truth_empty": row.scores and row.scores.truth_empty,
        "error": row.error,
    }


def _as_csv(rows: Sequence["Row"]) -> str:
    records = [_record(row) for row in rows]
    text = csv_line(records[0])
    for record in records:
        text += csv_line(int(value) if isinstance(value, bool) else value for value in record.values())
    return text


def _print_report(report: dict[str, Any]) -> None:
    """Print the report as tables: counts, the metrics of each folder, the comparison."""
    sets = [report, report["other"]] if "other" in report else [report]
    overview = [["profile", *([report["profile"]] * len(sets))]]
    overview += [
        [key.replace("_", " "), *(str(each["counts"][key]) for each in sets)] for key in sets[0]["counts"]
    ]
    show_table(["", *(each["pred"] for each in sets)], overview)
    for each in sets:
        show_table([each["pred"], "n", "mean", "sd", "median"], _table_rows(each["summary"]))
    if "comparison" in report:
        show_table(
            ["PRED - OTHER", "n", "PRED", "OTHER", "diff", "2.5 %", "97.5 %", "Wilcoxon p"],
            _table_rows(report["comparison"]),
        )


def _table_rows(metrics: dict[str, dict[str, float]]) -> list[list[str]]:
    """One row per metric: its name and unit, then its figures rounded to significant digits."""
    from ..evaluation.scoring import RATIOS

    rows = []
    for name, figures in metrics.items():
        unit = "" if name in RATIOS else " mm" if name.endswith("_mm") else " px"
        digits = {"": ".4f", " px": ".2f", " mm": ".3f"}[unit]
        shapes = {"n": "d", "p": ".2g"}
        cells = [format(value, shapes.get(key, digits)) for key, value in figures.items()]
        rows.append([name.removesuffix("_mm").replace("_", " ") + unit, *cells])
    return rows
