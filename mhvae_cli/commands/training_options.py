"""The options of the verbs that train, and the end of a training as output and exit code."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from ..resources import is_rank_zero
from ..runs.console import print_note, write_line

if TYPE_CHECKING:
    import torch

    from ..training.loop import Outcome


UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}

Data = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="DIR",
        help="A folder of images/ and masks/, one stem each; index.csv in it may give fold and subject."
        " Several may be given.",
    ),
]
Images = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="DIR",
        help="A folder of images/; masks are not looked at; index.csv in it may give fold and subject."
        " Several may be given.",
    ),
]
RunFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="RUN/", help="The run's folder; it ends as a model folder.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="JSON with the recipe (see examples/training/); flags win over it.",
        show_default=False,
    ),
]
HoldOut = Annotated[
    int | None,
    typer.Option("--hold-out", metavar="FOLD", help="Leave out this fold of index.csv.", show_default=False),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", envvar="MHVAE_SEED", help="Seed of all that is random.", show_default="0"
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", help="The model's name.", show_default="the name of RUN/")
]
Licence = Annotated[
    str | None,
    typer.Option(
        "--license", metavar="TEXT", help="The weights' licence, for the model card.", show_default="none"
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", min=1, metavar="N", help="Passes over the data.", show_default="the preset's"),
]
TrainBatch = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        "-b",
        min=1,
        metavar="N",
        help="Images a step, over all processes.",
        show_default="the preset's",
    ),
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="X", help="Peak learning rate.", show_default="the preset's")
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the run in --out: on a CPU to the bit, if with as many threads."
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time", metavar="T", help="Stop after 90s, 30m or 2h, ready to resume.", show_default=False
    ),
]


def flags(values: dict[str, Any]) -> dict[str, Any]:
    """Dotted keys as nested objects, those that are None left out."""
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


def deadline(text: str | None) -> float | None:
    """`90`, `90s`, `30m` or `2h` from now, as a time of `time.monotonic`. UsageError for anything else."""
    if text is None:
        return None
    try:
        value = float(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--max-time {text!r} is no time", hint="90s, 30m or 2h")
    return time.monotonic() + value


def place_of(device: str) -> "torch.device":
    """The device asked for, of several GPUs one each for torchrun's processes. DeviceError if not there."""
    from ..devices import resolve_device

    place = resolve_device(device)
    if place.type == "cuda" and place.index is None and "LOCAL_RANK" in os.environ:
        return resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
    return place


def end_training(outcome: "Outcome", out: Path, *, quiet: bool, again: str = "--resume") -> None:
    """The run's folder on stdout, or how it was stopped on stderr; exits 130 or 143 if by a signal."""
    if is_rank_zero():
        if outcome.finished:
            write_line(str(out))
        elif not quiet:
            where = f" in epoch {outcome.epoch}" if outcome.epoch else ""
            print_note(f"stopped{where}; {again} goes on from here")
    if outcome.signal is not None:
        raise typer.Exit(128 + outcome.signal)
