"""`mhvae cross-validate --data DIR --folds 5 --out CV/`: k-fold cross-validation, as in table 1."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..runs.console import TrainingProgress, show_table, write_line
from ..runs.results import csv_line
from . import training_options
from .training_options import TrainingSettings

if TYPE_CHECKING:
    from ..evaluation.scoring import Row, Spread

EXAMPLES = (
    "mhvae cross-validate --data DIR --folds 5 --out CV/",
    "mhvae cross-validate --data DIR --only 0 --max-time 90m --out CV/",
)


@training_options.training(TrainingSettings)
def cross_validate(
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DIR",
            help="Folder with images/ and masks/, paired by file name, and optionally an index.csv that"
            " assigns folds and subjects.",
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
    preset: training_options.Preset = "auto",
    config: training_options.Config = None,
    profile: Annotated[
        Literal["native", "paper256"],
        typer.Option(
            "--profile", help="As in evaluate: native resolution, or 256 x 256 as in the published tables."
        ),
    ] = "paper256",
    *,
    settings: TrainingSettings,
) -> None:
    """Run k-fold cross-validation; report the mean and population sd over the folds.

    The folds are those of index.csv if it defines N folds; otherwise subjects
    are assigned to folds at random. The best epoch of each model is selected on
    a validation split of its training folds, never on the test fold. To resume
    an interrupted run, repeat the command.
    """
    from ..training.recipe import load_recipe

    deadline = training_options.parse_max_time(settings.max_time)
    recipe, undecided = load_recipe(preset, config, {}, offline=settings.offline)

    from ..evaluation.scoring import over_folds
    from ..training.automatic import choose
    from ..training.cross_validation import cross_validate as run_folds
    from ..training.datasets import discover

    run_options = training_options.training_options(settings, deadline=deadline)
    recipe = choose(recipe, undecided, discover(data))
    rows_by_fold: dict[int, list[Row]] = {}
    with TrainingProgress(quiet=settings.quiet, progress=settings.progress) as callback:
        for fold, result in run_folds(
            data, recipe, run_options, out, count=folds, only=only, profile=profile, callback=callback
        ):
            if not isinstance(result, list):
                training_options.end_training(
                    result, out, quiet=settings.quiet, resume_with="the same command"
                )
                return
            rows_by_fold[fold] = result
            _write_results(out / "results.csv", rows_by_fold)
    summary = over_folds(list(rows_by_fold.values()))
    if settings.as_json:
        values = {name: {"mean": s.mean, "sd": s.sd, "folds": s.n} for name, s in summary.items()}
        write_line(json.dumps({"profile": profile, "folds": sorted(rows_by_fold), "summary": values}))
        return
    _show_summary(summary, profile)


def _write_results(path: Path, rows_by_fold: "dict[int, list[Row]]") -> None:
    """Write a row per image: fold, id and scores."""
    from ..evaluation.scoring import METRICS
    from ..filesystem import write_atomic

    names = [m for m in METRICS if any(m in row.values for rows in rows_by_fold.values() for row in rows)]
    lines = [csv_line(["fold", "id", *names, "error"])]
    for fold, rows in rows_by_fold.items():
        lines += [csv_line([fold, r.id, *(r.values.get(name) for name in names), r.error]) for r in rows]
    write_atomic(path, "".join(lines).encode(errors="surrogateescape"))


def _show_summary(summary: "dict[str, Spread]", profile: str) -> None:
    rows: list[list[str]] = [
        [name, str(spread.n), f"{spread.mean:.4f}", f"{spread.sd:.4f}"] for name, spread in summary.items()
    ]
    show_table([profile, "folds", "mean", "sd"], rows)
