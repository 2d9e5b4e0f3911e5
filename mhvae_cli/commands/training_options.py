"""The options of the verbs that train, and the output and exit code at the end of training."""

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
        help="Folder with images/ and masks/, paired by file name; an index.csv in it may give fold and"
        " subject."
        " Repeatable.",
    ),
]
Images = Annotated[
    list[Path],
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder with images/; masks are ignored; an index.csv in it may give fold and subject."
        " Repeatable.",
    ),
]
RunFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="RUN/", help="Output folder, which becomes a model folder.")
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
Epochs = Annotated[
    int | None,
    typer.Option("--epochs", min=1, metavar="N", help="Number of epochs.", show_default="the preset's"),
]
TrainBatch = Annotated[
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
LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="X", help="Peak learning rate.", show_default="the preset's")
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
        help="Stop after this time (90s, 30m, 2h); training can be resumed.",
        show_default=False,
    ),
]


def flags(values: dict[str, Any]) -> dict[str, Any]:
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


def deadline(text: str | None) -> float | None:
    """`90`, `90s`, `30m` or `2h` from now, as a time of `time.monotonic`. UsageError for anything else."""
    if text is None:
        return None
    try:
        value = float(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--max-time {text}: not a duration", hint="for example 90s, 30m or 2h")
    return time.monotonic() + value


def select_device(device: str) -> "torch.device":
    """The device of --device; under torchrun, one GPU per process. DeviceError if it is not available."""
    from ..devices import resolve_device

    selected = resolve_device(device)
    if selected.type == "cuda" and selected.index is None and "LOCAL_RANK" in os.environ:
        return resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
    return selected


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
