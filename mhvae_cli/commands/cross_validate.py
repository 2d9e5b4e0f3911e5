"""`mhvae cross-validate --data DIR --folds 5 --out CV/`: k-fold cross-validation, as in table 1."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..resources import worker_count
from ..runs.console import TrainingProgress, command_line, show_table, write_line
from . import options, training_options

if TYPE_CHECKING:
    from ..evaluation.scoring import Row, Spread

EXAMPLES = (
    "mhvae cross-validate --data DIR --folds 5 --out CV/",
    "mhvae cross-validate --data DIR --only 0 --max-time 90m --out CV/",
)


def cross_validate(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder with images/ and masks/, paired by file name; an index.csv in it may give fold and"
            " subject.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="CV/",
            help="Output folder: one training run per fold (fold0/), its masks (fold0-masks/), and"
            " results.csv.",
        ),
    ],
    folds: Annotated[int, typer.Option("--folds", min=2, metavar="N", help="Number of folds.")] = 5,
    only: Annotated[
        list[int] | None,
        typer.Option(
            "--only",
            min=0,
            metavar="K",
            help="Run only fold K, counting from 0; repeatable.",
            show_default=False,
        ),
    ] = None,
    preset: Annotated[
        Literal["small", "paper"],
        typer.Option(
            "--preset", help="Training recipe; small takes one to two hours per fold on two CPU cores."
        ),
    ] = "small",
    config: training_options.Config = None,
    profile: Annotated[
        Literal["native", "paper256"],
        typer.Option(
            "--profile", help="As in evaluate: native resolution, or 256 x 256 as in the published tables."
        ),
    ] = "paper256",
    max_time: training_options.MaxTime = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
) -> None:
    """Run k-fold cross-validation; report the mean +- population sd over the folds.

    The folds are taken from index.csv if it defines N folds; otherwise subjects are assigned to folds
    automatically. Each model is selected on a validation split of its training folds, never on the test
    fold. To continue an interrupted run, repeat the command.
    """
    from ..training.recipe import load_recipe

    limit = training_options.deadline(max_time)
    recipe, given = load_recipe(preset, config, {})

    from ..devices import resolve_dtype
    from ..evaluation.scoring import over_folds
    from ..training import train
    from ..training.cross_validation import cross_validate as train_each_fold
    from ..training.datasets import discover

    torch_device = training_options.select_device(device)
    recipe = train.with_channels(recipe, given, discover(data))
    run_options = train.TrainingOptions(
        torch_device,
        resolve_dtype(dtype, torch_device),
        deadline=limit,
        workers=worker_count(workers),
        offline=offline,
        command=command_line(),
    )
    rows_by_fold: dict[int, list[Row]] = {}
    with TrainingProgress(quiet=quiet, progress=progress) as say:
        for fold, rows in train_each_fold(
            data, recipe, run_options, out, count=folds, only=only, profile=profile, say=say
        ):
            if not isinstance(rows, list):
                training_options.end_training(rows, out, quiet=quiet, resume_with="the same command")
                return
            rows_by_fold[fold] = rows
            _write(out / "results.csv", rows_by_fold)
    summary = over_folds(list(rows_by_fold.values()))
    if as_json:
        values = {name: {"mean": s.mean, "sd": s.sd, "folds": s.n} for name, s in summary.items()}
        write_line(json.dumps({"profile": profile, "folds": sorted(rows_by_fold), "summary": values}))
        return
    _show(summary, profile)


def _write(path: Path, rows_by_fold: "dict[int, list[Row]]") -> None:
    """Write one row per image: its fold, its id and its scores."""
    from ..evaluation.scoring import METRICS
    from ..filesystem import write_atomic

    names = [m for m in METRICS if any(m in row.values for rows in rows_by_fold.values() for row in rows)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["fold", "id", *names, "error"])
    for fold, rows in rows_by_fold.items():
        table.writerows([fold, r.id, *(r.values.get(name) for name in names), r.error] for r in rows)
    write_atomic(path, text.getvalue().encode())


def _show(summary: "dict[str, Spread]", profile: str) -> None:
    rows: list[list[str]] = [
        [name, str(spread.n), f"{spread.mean:.4f}", f"{spread.sd:.4f}"] for name, spread in summary.items()
    ]
    show_table([profile, "folds", "mean", "sd"], rows)
