"""All terminal output: payload on stdout; errors, notes and progress on stderr."""

import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from ..errors import OutputError, os_error_text
from ..resources import is_rank_zero

LINE_INTERVAL = 10.0
"""Seconds between two plain progress lines."""
TRAINING_LINE_INTERVAL = 30.0
"""Seconds between two plain progress lines during training."""
CLEAR_LINE = "\r\x1b[K"
"""Moves the cursor of a terminal to the start of its line, and clears the line."""
STOP_SECONDS = 3.0
"""How long a command may take to end once it is stopped."""


def stop(number: int, _frame: object) -> NoReturn:
    """The command's handler of SIGINT and SIGTERM."""
    end_soon(128 + number)
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def end_soon(code: int) -> None:
    """End the process after STOP_SECONDS, if it has not ended by then.

    A thread that is blocked in a dead mount would be waited for for ever. Files are whole at any time.
    """
    timer = threading.Timer(STOP_SECONDS, os._exit, [code])
    timer.daemon = True
    timer.start()


def end_if_blocked() -> None:
    """Also end the process if SIGINT or SIGTERM waits for STOP_SECONDS because the main thread is blocked.

    Only the main thread runs handlers, and it may itself be blocked in a dead mount.
    """
    if not hasattr(signal, "sigpending"):  # Windows
        return
    kinds = {signal.SIGINT, signal.SIGTERM}

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, kinds)  # or what waits would not be shown here
        since: float | None = None
        while since is None or time.monotonic() - since < STOP_SECONDS:
            time.sleep(STOP_SECONDS / 6)
            waiting = kinds & signal.sigpending()
            since = (since or time.monotonic()) if waiting else None
        end_soon(128 + min(waiting))
        print_note("stopped: a file or folder does not answer")

    threading.Thread(target=watch, name="mhvae-stop", daemon=True).start()


CONTROLS = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]")
"""What a terminal obeys instead of showing it: control characters, line separators and text directions."""


@contextmanager
def defer_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the end of the block, so that it is never interrupted."""
    received: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)

    def defer(number: int, _frame: object) -> None:
        received.append(number)
        if handlers[number] is stop:
            end_soon(128 + number)

    handlers = {int(kind): signal.signal(kind, defer) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
    if received:
        signal.raise_signal(received[0])


class Progress:
    """A progress bar on a terminal, occasional lines elsewhere; nothing for a single job or with `off`."""

    def __init__(self, verb: str, total: int, mode: str) -> None:
        self.verb, self.total, self.done = verb, total, 0
        self.shown = mode == "on" or (mode == "auto" and total > 1)
        self.bar = mode == "on" or _has_terminal()
        self.begun = time.monotonic()
        self.last = 0.0 if self.bar else self.begun

    def step(self) -> None:
        """Count one more finished job."""
        self.done += 1
        now = time.monotonic()
        too_early = now - self.last < (0.1 if self.bar else LINE_INTERVAL)
        if not self.shown or (too_early and self.done < self.total):
            return
        self.last = now
        if self.bar:
            draw_status(self._state(now), share=self.done / max(self.total, 1))
        elif self.done < self.total:
            print(self._state(now), file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Clear the line of the bar, so that another line can be printed; the next step redraws the bar."""
        if self.shown and self.bar:
            self.last = 0.0
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def _state(self, now: float) -> str:
        rate = self.done / max(now - self.begun, 1e-9)
        left = (self.total - self.done) / rate
        return f"{self.verb}: {self.done} of {self.total}, {rate:.1f}/s, {format_duration(left)} left"


def draw_status(text: str, *, share: float | None = None) -> None:
    """Replace the last line of the terminal by a text, after a bar for a `share` in [0, 1] if it fits.

    It is cut to the width of the terminal, because only the last part of a wrapped line could be cleared.
    """
    width = _columns() - 1
    cells = min(24, width - len(text) - 3)
    if share is not None and cells >= 8:
        filled = int(cells * share)
        text = f"[{'#' * filled}{'.' * (cells - filled)}] {text}"
    print(f"{CLEAR_LINE}{text[:width]}", end="", file=sys.stderr, flush=True)


def format_duration(seconds: float) -> str:
    """`0:07`, `12:05` or `1:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _has_terminal() -> bool:
    """Whether stderr is a terminal that can redraw a line, and not the log of a CI job."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):  # no terminal, or a stream without a file descriptor
        return 80


def visible(text: str) -> str:
    """The text with escapes, such as \\x1b, for all that a terminal would obey: names come from others."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def write_line(text: str) -> None:
    """Write a line of payload to stdout and flush it: as it is, but `visible` on a terminal.

    Raises BrokenPipeError for a closed pipe, else OutputError.
    """
    if sys.stdout.isatty():
        text = "\t".join(map(visible, text.split("\t")))
    write_bytes((text + "\n").encode(errors="surrogateescape"))


def write_bytes(data: bytes) -> None:
    """Write bytes of payload to stdout and flush them; errors as in `write_line`."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"stdout: {os_error_text(error)}") from error


def open_file(path: Path) -> None:
    """Open a file in the desktop's default program."""
    import typer

    typer.launch(str(path))


def command_line() -> str:
    """The command as typed, for model cards, without --resume and with ~ for the home directory."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    home = os.path.expanduser("~").rstrip("/")
    text = shlex.join(["mhvae", *arguments])
    return re.sub(rf"(?<![^\s='\"]){re.escape(home)}(?=[/'\"\s]|$)", "~", text) if home else text


def print_error(error: Exception) -> None:
    """Print an error to stderr: `error: ...`, and a `hint: ...` line if it has a hint."""
    hint = getattr(error, "hint", None)
    print_note(f"error: {visible(str(error))}" + (f"\nhint: {visible(hint)}" if hint else ""))


def print_cause(error: Exception) -> None:
    """Print the traceback of an error's cause to stderr."""
    if error.__cause__ is not None:
        print_note("".join(traceback.format_exception(error.__cause__)).rstrip())


def print_warning(text: str) -> None:
    """Print `warning: ...` to stderr."""
    print_note(f"warning: {visible(text)}")


def print_note(text: str) -> None:
    """Print lines to stderr."""
    print("\n".join(map(visible, text.split("\n"))), file=sys.stderr, flush=True)


class TrainingProgress:
    """Training progress on stderr: a line per epoch; between epochs a status line or occasional plain lines.

    A callback for `training.loop.fit`, and a context manager that clears the status line at the end.
    """

    def __init__(self, *, quiet: bool, progress: str) -> None:
        self.quiet = quiet or not is_rank_zero()
        self.bar = progress == "on" or (progress == "auto" and _has_terminal())
        self.shown = progress != "off"
        self.started: tuple[float, int] | None = None
        self.last = time.monotonic()

    def __enter__(self) -> "TrainingProgress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar and self.started and not self.quiet:
            print(CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def __call__(self, event: dict[str, Any]) -> None:
        """Show an event: a warning, a phase, a step or the end of an epoch."""
        if "warning" in event:
            print_warning(event["warning"])
        if self.quiet or "warning" in event:
            return
        if "phase" in event:
            self.started = None
            self._print_line(event["phase"])
        elif "log" in event:
            self._print_line(self._epoch_text(event))
        elif self.shown:
            self._show_step(event)

    def _show_step(self, event: dict[str, Any]) -> None:
        now = time.monotonic()
        self.started = self.started or (now, event["step"])
        if now - self.last < (0.2 if self.bar else TRAINING_LINE_INTERVAL):
            return
        self.last = now
        rate = (event["step"] - self.started[1]) / max(now - self.started[0], 1e-9)
        left = f", {format_duration((event['of'] - event['step']) / rate)} left" if rate else ""
        position = f"epoch {event['epoch']}: step {event['step']} of {event['of']}"
        text = f"{position}, loss {event['loss']:.4g}{left}"
        if self.bar:
            draw_status(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _epoch_text(self, event: dict[str, Any]) -> str:
        row = event["log"]
        metrics = [
            f"{name} {value:.4g}"
            for name, value in row.items()
            if isinstance(value, float) and name not in ("seconds", "score", "smoothed")
        ]
        best = " (best)" if event["best"] else ""
        took = format_duration(row["seconds"])
        return f"epoch {row['epoch']} of {event['of']}, {took}: {', '.join(metrics)}{best}"

    def _print_line(self, text: str) -> None:
        print((CLEAR_LINE if self.bar else "") + visible(text), file=sys.stderr, flush=True)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on a terminal, tab-separated padded columns elsewhere, and nothing without rows."""
    if not rows:
        return
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, padding=0)
        for index, name in enumerate(head):
            table.add_column(visible(name), justify="right" if index else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(visible, row))
        Console(markup=False, emoji=False).print(table)  # a folder may be named [red]
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in [head, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        write_line("\t".join(cells).rstrip())
    write_line("")
