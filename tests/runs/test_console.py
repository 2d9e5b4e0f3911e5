"""What a terminal is shown, and what is told elsewhere."""

import os
import pty
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image
from support.run_folders import rows, runs, states

from mhvae_cli.runs import console
from mhvae_cli.runs.console import Progress

ROOT = Path(__file__).parents[2]


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


BLOCKED = """
import os, sys
from mhvae_cli import filesystem
filesystem.check_regular = os.stat  # now a FIFO is opened, and its reader blocks as in a dead mount
from mhvae_cli.cli import main
main()
"""


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, "0"), (signal.SIGTERM, "2")])
@pytest.mark.usefixtures("three_scans")
def test_a_stop_ends_a_command_whose_thread_is_blocked(number: signal.Signals, workers: str) -> None:
    """In seconds, and what is finished stays whole; a dead network mount blocks in the same way."""
    os.mkfifo("scans/z.png")
    command = [sys.executable, "-c", BLOCKED, "segment", "scans", "-o", "m", "-b", "1", "-j", workers]
    command += ["--report", "m/page.html"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    ) as process:
        try:
            assert process.stdout is not None
            written = process.stdout.readline().strip()
            time.sleep(0.5)
            process.send_signal(number)
            begun = time.monotonic()
            _, errors = process.communicate(timeout=20)
            took = time.monotonic() - begun
        finally:
            process.kill()
    assert process.returncode == 128 + number and took < 5, errors
    assert "stopped" in errors and "Traceback" not in errors
    assert set(states().values()) == {"ok"} and written in [row["output"] for row in rows()]
    assert runs()[0]["status"] == "ended" and Path("m/page.html").read_text().endswith("</html>\n")
    assert not [path for path in Path("m").iterdir() if path.name.startswith(".")]
    for row in rows():
        with Image.open(row["output"]) as mask:
            mask.load()
