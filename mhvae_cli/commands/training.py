"""What the training verbs share: their options, progress on stderr, and how a run's end becomes an exit code."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError

if TYPE_CHECKING:
    from ..training import Outcome

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
RunFolder = Annotated[
    Path, typer.Option("--out", "-o", metavar="RUN/", help="The run's folder; it ends as a model folder.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="JSON with model, train, card, pretrained; flags win over it.",
        show_default=False,
    ),
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, metavar="N", show_default="the preset's")]
TrainBatch = Annotated[
    int | None,
    typer.Option("--batch-size", "-b", min=1, metavar="N", help="Images a step.", show_default="the preset's"),
]
LearningRate = Annotated[
    float | None, typer.Option("--lr", metavar="X", help="Peak learning rate.", show_default="the preset's")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, to the bit.")]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time", metavar="T", help="Stop after 90s, 30m or 2h, ready to resume.", show_default=False
    ),
]


def seconds(text: str | None) -> float | None:
    """`90`, `90s`, `30m` or `2h` in seconds. UsageError for anything else."""
    if text is None:
        return None
    try:
        value = float(text[:-1]) * UNITS[text[-1]] if text[-1:] in UNITS else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--max-time {text!r} is no time", hint="90s, 30m or 2h")
    return value


def command_line() -> str:
    """The command as typed, for the model card, the home directory not in it."""
    return shlex.join(["mhvae", *sys.argv[1:]]).replace(os.path.expanduser("~"), "~")


class Teller:
    """Says on stderr how a run goes: a line an epoch, between them a bar on a terminal or now and then a line."""

    def __init__(self, *, quiet: bool, progress: str) -> None:
        self.quiet = quiet or os.environ.get("RANK", "0") != "0"
        self.bar = progress == "on" or (
            progress == "auto" and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        )
        self.shown = progress != "off"
        self.begun: tuple[float, int] | None = None
        self.last = time.monotonic()

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event of `training.fit`."""
        if self.quiet:
            return
        if "phase" in event:
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
        left = (event["of"] - event["step"]) / rate if rate else 0.0
        text = f"epoch {event['epoch']}: step {event['step']} of {event['of']}, {_clock(left)} left"
        if self.bar:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
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
        return f"epoch {row['epoch']} of {event['of']}, {_clock(row['seconds'])}: {', '.join(figures)}{best}"

    def _line(self, text: str) -> None:
        print(("\r\x1b[K" if self.bar else "") + text, file=sys.stderr, flush=True)


def end(outcome: "Outcome", out: Path, *, quiet: bool) -> None:
    """Tell how the run ended; exits 130 or 143 if a signal stopped it."""
    if os.environ.get("RANK", "0") == "0":
        if outcome.finished:
            print(out, flush=True)
        elif not quiet:
            print(f"stopped in epoch {outcome.epoch}; --resume goes on from here", file=sys.stderr, flush=True)
    if outcome.signal is not None:
        raise typer.Exit(128 + outcome.signal)


def _clock(duration: float) -> str:
    minutes, rest = divmod(round(duration), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
