"""How far a run is, on stderr; and signals held back while a result is written."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

EVERY = 10.0  # seconds between two plain lines of progress


@contextmanager
def unbroken() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back until the block has ended: what is in hand is finished."""
    noted: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    handlers = {kind: signal.signal(kind, lambda number, _frame: noted.append(number)) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
    if noted:
        signal.raise_signal(noted[0])


class Progress:
    """A bar on a terminal, a plain line now and then elsewhere; nothing for a single job or with `off`."""

    def __init__(self, verb: str, total: int, mode: str) -> None:
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")
        self.verb, self.total, self.done = verb, total, 0
        self.shown = mode == "on" or (mode == "auto" and total > 1)
        self.bar = mode == "on" or terminal
        self.begun = time.monotonic()
        self.last = 0.0 if self.bar else self.begun

    def step(self) -> None:
        """One more job is done."""
        self.done += 1
        now = time.monotonic()
        if not self.shown or (now - self.last < (0.1 if self.bar else EVERY) and self.done < self.total):
            return
        self.last = now
        if self.bar:
            draw(self._state(now), share=self.done / max(self.total, 1))
        elif self.done < self.total:
            print(self._state(now), file=sys.stderr, flush=True)

    def wipe(self) -> None:
        """Clear the bar's line so that another can be printed; the next step draws it again."""
        if self.shown and self.bar:
            self.last = 0.0
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _state(self, now: float) -> str:
        rate = self.done / max(now - self.begun, 1e-9)
        left = (self.total - self.done) / rate
        return f"{self.verb}: {self.done} of {self.total}, {rate:.1f}/s, {clock(left)} left"


def draw(text: str, *, share: float | None = None) -> None:
    """A text in the place of the terminal's last line, behind a bar for a `share` in [0, 1] if there is room.

    It is cut to the terminal's width: of a line that wraps the next one would clear the end alone.
    """
    room = _columns() - 1
    cells = min(24, room - len(text) - 3)
    if share is not None and cells >= 8:
        filled = int(cells * share)
        text = f"[{'#' * filled}{'.' * (cells - filled)}] {text}"
    print(f"\r\x1b[K{text[:room]}", end="", file=sys.stderr, flush=True)


def clock(seconds: float) -> str:
    """`0:07`, `12:05` or `1:00:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):  # no terminal, or a stream without a file
        return 80
