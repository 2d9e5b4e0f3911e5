"""`mhvae cross-validate --data DIR --folds 5 --out CV/`: train and test on each fold, as table 1 does."""

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..resources import worker_count
from ..runs.console import TrainingProgress, command_line, show_table, write_line
from . import options
from . import training_options as own

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
            help="A folder of images/ and masks/, one stem each; index.csv in it may give fold and subject.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="CV/",
            help="A run a fold (fold0/), its masks (fold0-masks/), and results.csv.",
        ),
    ],
    folds: Annotated[int, typer.Option("--folds", min=2, metavar="N", help="How many.")] = 5,
    only: Annotated[
        list[int] | None,
        typer.Option(
            "--only", min=0, metavar="K", help="Only this fold, from 0; may be repeated.", show_default=False
        ),
    ] = None,
    preset: Annotated[
        Literal["small", "paper"],
        typer.Option("--preset", help="small trains on two CPU cores in an hour or two a fold."),
    ] = "small",
    config: own.Config = None,
    profile: Annotated[
        Literal["native", "paper256"],
        typer.Option("--profile", help="As in evaluate: native pixels, or the published tables' 256 x 256."),
    ] = "paper256",
    max_time: own.MaxTime = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    workers: options.Workers = None,
    as_json: options.AsJson = False,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
) -> None:
    """Train on all folds but one and test on that one, in turn; mean +- population sd over the folds.

    The folds are index.csv's if it names N, else subjects are dealt out. A fold's model is chosen on a
    validation part of its training folds, never on the fold that is reported. Run the same command again
    to go on where it was cut.
    """
    from ..config import load_recipe

    limit = own.deadline(max_time)
    recipe, given = load_recipe(preset, config, {})

    from ..devices import resolve_dtype
    from ..evaluation.scoring import over_folds
    from ..training import train
    from ..training.datasets import discover

    place = own.place_of(device)
    recipe = train.with_channels(recipe, given, discover(data))
    work = train.TrainingOptions(
        place,
        resolve_dtype(dtype, place),
        deadline=limit,
        workers=worker_count(workers),
        offline=offline,
        command=command_line(),
    )
    tested: dict[int, list[Row]] = {}
    with TrainingProgress(quiet=quiet, progress=progress) as say:
        for fold, rows in train.cross_validate(
            data, recipe, work, out, count=folds, only=only, profile=profile, say=say
        ):
            if not isinstance(rows, list):
                own.end_training(rows, out, quiet=quiet, again="the same command")
                return
            tested[fold] = rows
            _write(out / "results.csv", tested)
    summary = over_folds(list(tested.values()))
    if as_json:
        values = {name: {"mean": s.mean, "sd": s.sd, "folds": s.n} for name, s in summary.items()}
        write_line(json.dumps({"profile": profile, "folds": sorted(tested), "summary": values}))
        return
    _show(summary, profile)


def _write(path: Path, tested: "dict[int, list[Row]]") -> None:
    """A row an image: its fold, its id and its scores."""
    from ..evaluation.scoring import METRICS
    from ..filesystem import write_atomic

    names = [m for m in METRICS if any(m in row.values for rows in tested.values() for row in rows)]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["fold", "id", *names, "error"])
    for fold, rows in tested.items():
        table.writerows([fold, r.id, *(r.values.get(name) for name in names), r.error] for r in rows)
    write_atomic(path, text.getvalue().encode())


def _show(summary: "dict[str, Spread]", profile: str) -> None:
    rows: list[list[str]] = [
        [name, str(spread.n), f"{spread.mean:.4f}", f"{spread.sd:.4f}"] for name, spread in summary.items()
    ]
    show_table([profile, "folds", "mean", "sd"], rows)
