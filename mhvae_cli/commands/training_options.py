"""The options and settings of the verbs that train, and what these verbs do before and after training."""

import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import UsageError
from ..resources import is_rank_zero, parse_duration, worker_count
from ..runs import settings as run_settings
from ..runs.console import command_line, print_note, write_line
from . import options

if TYPE_CHECKING:
    import torch

    from ..training.loop import Outcome
    from ..training.train import TrainingOptions


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of every verb that trains."""

    max_time: str | None = None
    device: str = "auto"
    dtype: run_settings.Dtype = "auto"
    threads: int | None = None
    workers: int | None = None
    as_json: bool = False
    offline: bool = False
    quiet: bool = False
    progress: run_settings.Progress = "auto"


@dataclass(frozen=True)
class ModelTrainingSettings(TrainingSettings):
    """Additional settings of the verbs that train one model. None keeps the value of the recipe."""

    hold_out: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int | None = None
    name: str | None = None
    licence: str | None = None
    resume: bool = False


ImagesAndMasks = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder with images/ and masks/, paired by file name, and optionally an index.csv that assigns"
        " folds and subjects. Repeatable.",
    ),
]

Images = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder with images/, and optionally an index.csv that assigns folds and subjects; masks are"
        " ignored. Repeatable.",
    ),
]

RunFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="RUN/", help="Output folder, which becomes a model folder.")
]

Preset = Annotated[
    Literal["auto", "small", "paper"],
    typer.Option(
        "--preset",
        help="Training recipe. auto suits the data and trains what finds the object; small trains all parts"
        " together, from scratch, in one to two hours on two CPU cores; paper needs a GPU.",
    ),
]

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="JSON file with the training recipe (see examples/training/); options override it.",
        show_default=False,
    ),
]

HoldOut = Annotated[
    int | None,
    typer.Option(
        "--hold-out", metavar="FOLD", help="Exclude this fold of index.csv from training.", show_default=False
    ),
]

Epochs = Annotated[
    int | None,
    typer.Option("--epochs", min=1, metavar="N", help="Number of epochs.", show_default="the preset's"),
]

BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        metavar="N",
        help="Images per step, over all processes.",
        show_default="the preset's",
    ),
]

Lr = Annotated[
    float | None, typer.Option("--lr", metavar="X", help="Peak learning rate.", show_default="the preset's")
]

Seed = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", envvar="MHVAE_SEED", help="Random seed.", show_default="0"),
]

Name = Annotated[
    str | None, typer.Option("--name", help="Name of the model.", show_default="the name of RUN/")
]

Licence = Annotated[
    str | None,
    typer.Option(
        "--license", metavar="TEXT", help="Licence of the weights, for the model card.", show_default="none"
    ),
]

Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Resume the training in --out; bit-exact on a CPU with the same number of threads."
    ),
]

MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="T",
        help="Stop after this time (90s, 30m, 2h); training can be resumed. With preset auto and without"
        " --epochs, the training is shortened to be complete by then.",
        show_default=False,
    ),
]


def training(
    kind: type[TrainingSettings], *, without: Collection[str] = ()
) -> Callable[[options.Verb], options.Verb]:
    """Add to a verb the options for the fields of `kind`; see `options.with_settings`."""
    return options.with_settings(kind, types={**vars(options), **globals()}, without=without)


def recipe_options(settings: ModelTrainingSettings, own: dict[str, Any]) -> dict[str, Any]:
    """The options that override the recipe, as nested objects; `own` are the verb's own, with dotted keys."""
    shared = {
        "train.epochs": settings.epochs,
        "train.batch_size": settings.batch_size,
        "train.lr": settings.lr,
        "train.seed": settings.seed,
        "card.license": settings.licence,
    }
    return nest_keys({**own, **shared})


def nest_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested objects; None values are omitted."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        if value is None:
            continue
        *parents, key = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[key] = value
    return tree


def parse_max_time(text: str | None) -> float | None:
    """The time of `time.monotonic` that is `90`, `90s`, `30m` or `2h` from now. UsageError if invalid."""
    if text is None:
        return None
    seconds = parse_duration(text)
    if seconds is None:
        raise UsageError(f"--max-time {text}: not a duration", hint="for example 90s, 30m or 2h")
    return time.monotonic() + seconds


def training_options(
    settings: TrainingSettings, *, deadline: float | None, resume: bool = False, timed: bool = False
) -> "TrainingOptions":
    """The options of `training.train`. Raises DeviceError if the device is not available."""
    from ..devices import resolve_dtype
    from ..training.train import TrainingOptions

    device = select_device(settings.device)
    return TrainingOptions(
        device,
        resolve_dtype(settings.dtype, device),
        resume=resume,
        deadline=deadline,
        timed=timed and "WORLD_SIZE" not in os.environ,
        workers=worker_count(settings.workers),
        offline=settings.offline,
        command=command_line(),
    )


def select_device(device: str) -> "torch.device":
    """The device of --device; under torchrun, one GPU per process. DeviceError if it is not available."""
    from ..devices import resolve_device

    selected = resolve_device(device)
    if selected.type == "cuda" and selected.index is None and "LOCAL_RANK" in os.environ:
        return resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
    return selected


def describe_fold(hold_out: int | None) -> str:
    """The fold held out, as it precedes the splits in the model card."""
    return "" if hold_out is None else f"fold {hold_out} held out; "


def end_training(outcome: "Outcome", out: Path, *, quiet: bool, resume_with: str = "--resume") -> None:
    """Print the model folder, or where training stopped; exit with 130 or 143 after a signal."""
    if is_rank_zero():
        if outcome.finished:
            write_line(str(out))
        elif not quiet:
            where = f" in epoch {outcome.epoch}" if outcome.epoch else ""
            print_note(f"stopped{where}; resume with {resume_with}")
    if outcome.signal is not None:
        raise typer.Exit(128 + outcome.signal)
