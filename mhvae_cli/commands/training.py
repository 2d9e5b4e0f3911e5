"""What the training verbs share: their options, progress on stderr, and a run's end as an exit code."""

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .outputs import say
from .progress import clock, draw

if TYPE_CHECKING:
    import torch

    from ..training.loop import Outcome

EVERY = 30.0
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


class Teller:
    """Says on stderr how a run goes: a line an epoch; in between a bar on a terminal, else a line at times.

    A context manager: the bar is gone when it ends.
    """

    def __init__(self, *, quiet: bool, progress: str) -> None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
        self.quiet = quiet or not _first()
        self.bar = progress == "on" or (progress == "auto" and terminal)
        self.shown = progress != "off"
        self.begun: tuple[float, int] | None = None
        self.last = time.monotonic()

    def __enter__(self) -> "Teller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar and self.begun and not self.quiet:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event of `training.fit`."""
        if self.quiet:
            return
        if "phase" in event:
            self.begun = None
            self._line(event["phase"])
        elif "log" in event:
            self._line(self._epoch(event))
        elif self.shown:
            self._step(event)

    def _step(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        self.begun = self.begun or (now, event["step"])
        if now - self.last < (0.2 if self.bar else EVERY):
            return
        self.last = now
        rate = (event["step"] - self.begun[1]) / max(now - self.begun[0], 1e-9)
        left = f", {clock((event['of'] - event['step']) / rate)} left" if rate else ""
        where = f"epoch {event['epoch']}: step {event['step']} of {event['of']}"
        text = f"{where}, loss {event['loss']:.4g}{left}"
        if self.bar:
            draw(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _epoch(self, event: dict[str, Any]) -> str:
        row = event["log"]
        figures = [
            f"{name} {value:.4g}"
            for name, value in row.items()
            if isinstance(value, float) and name not in ("seconds", "score")
        ]
        best = " (best)" if row["score"] >= event["best"] else ""
        return f"epoch {row['epoch']} of {event['of']}, {clock(row['seconds'])}: {', '.join(figures)}{best}"

    def _line(self, text: str) -> None:
        print(("\r\x1b[K" if self.bar else "") + text, file=sys.stderr, flush=True)


def end(outcome: "Outcome", out: Path, *, quiet: bool, again: str = "--resume") -> None:
    """The run's folder on stdout, or how it was stopped on stderr; exits 130 or 143 if by a signal."""
    if _first():
        if outcome.finished:
            say(str(out))
        elif not quiet:
            where = f" in epoch {outcome.epoch}" if outcome.epoch else ""
            print(f"stopped{where}; {again} goes on from here", file=sys.stderr, flush=True)
    if outcome.signal is not None:
        raise typer.Exit(128 + outcome.signal)


def _first() -> bool:
    """Whether this process is the one that speaks, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"
