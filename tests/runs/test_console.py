"""What a terminal is shown, and what is told elsewhere."""

import os
import pty
import sys
import termios

import pytest

from mhvae_cli.runs import console
from mhvae_cli.runs.console import Progress


class Screen:
    """A terminal's stderr."""

    def __init__(self, *, terminal: bool) -> None:
        self.terminal, self.text = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(
    ("terminal", "environment", "mode", "bar"),
    [
        (True, {}, "auto", True),
        (True, {"TERM": "dumb"}, "auto", False),
        (True, {"CI": "1"}, "auto", False),
        (False, {}, "auto", False),
        (False, {}, "on", True),
        (True, {}, "off", False),
    ],
)
def test_the_bar(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], mode: str, bar: bool
) -> None:
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    for name in ("TERM", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mhvae_cli.runs.console.LINE_INTERVAL", 0.0)
    progress = Progress("segment", 3, mode)
    for _ in range(3):
        progress.step()
    assert ("\r" in screen.text) == bar
    assert ("segment: 1 of 3" in screen.text) == (mode != "off")


@pytest.mark.parametrize("columns", [24, 40, 60, 100])
def test_the_bar_never_wraps(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """On a real terminal of that width; a line that wraps would leave its beginning behind."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    with os.fdopen(slave, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        progress = Progress("reconstruct", 12345, "auto")
        progress.begun -= 3600
        progress.step()
        progress.clear()
        progress.done = 6000
        progress.step()
        text = ""
        while "6001" not in text:
            text += os.read(master, 4096).decode()
    os.close(master)
    drawn = [part for part in text.split("\r\x1b[K") if part]
    assert len(drawn) == 2 and all(len(line) < columns for line in drawn)
    assert ("1:03:" in drawn[1]) == (columns >= 60) and ("[##" in drawn[1]) == (columns >= 60)


def test_the_command_is_told_without_the_home_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    typed = "mhvae train-vae --data /home/ann/scans --out=/home/ann --resume --config /home/anna/c"
    monkeypatch.setattr(sys, "argv", [*typed.split(), "--reference", "/home/ann/my mask.png"])
    told = console.command_line()
    assert told.startswith("mhvae train-vae --data ~/scans --out=~ --config /home/anna/c --reference ")
    assert "/home/ann/" not in told and "my mask.png" in told
    monkeypatch.setenv("HOME", "/")
    assert "--data /home/ann/scans" in console.command_line()
