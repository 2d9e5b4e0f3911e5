"""What a terminal is shown, and what is told elsewhere."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.pictures import picture
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


def started(command: list[str], **options: Any) -> "subprocess.Popen[str]":
    """The command with this package, its output piped."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "PYTHONPATH": paths}
    return subprocess.Popen(command, stdout=-1, stderr=-1, text=True, env=env, **options)


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
    with started(command) as process:
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


DEAD = """
import ctypes
from mhvae_cli.cli import main
from mhvae_cli.runs import console, inputs
console.STOP_SECONDS = 0.6
libc = ctypes.CDLL(None)
stack = ctypes.create_string_buffer(2**16)

def block(path):  # until another process ends: only SIGKILL interrupts that, as in a dead mount
    print("blocked", flush=True)
    top = ctypes.c_void_p(ctypes.addressof(stack) + len(stack))
    vfork, share_memory, child_ends = 0x4000, 0x100, 17
    libc.clone(ctypes.cast(libc.sleep, ctypes.c_void_p), top, vfork | share_memory | child_ends, 20)

inputs.check_regular = block
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such a call")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("three_scans")
def test_a_stop_ends_a_command_that_is_blocked_itself(number: signal.Signals) -> None:
    command = [sys.executable, "-c", DEAD, "segment", "scans/a.png", "-o", "m"]
    with started(command, start_new_session=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "blocked\n"
            time.sleep(0.2)
            process.send_signal(number)
            code = process.wait(timeout=10)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # what it waits for, too
        assert process.stderr is not None and "stopped" in process.stderr.read()
    assert code == 128 + number


HOSTILE = "a\x1b]0;title\x07\x1b[2J\r\x9bm\u202eb\nerror: c\x7f.png"
SHOWN = r"a\x1b]0;title\x07\x1b[2J\r\x9bm\u202eb\nerror: c\x7f.png"


def controls(text: str) -> str:
    """What a terminal would obey, but for the ends of lines."""
    return "".join(char for char in text if not char.isprintable() and char != "\n")


def test_names_on_stderr_are_escaped_and_keep_to_one_line(
    mhvae: Callable[..., Any], here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(HOSTILE).write_bytes(b"no image")
    common = (HOSTILE, "-o", "m/", "-m", tiny_model, "-v")
    ended = mhvae("segment", *common)
    assert ended.code == 4 and not controls(ended.stderr)
    assert f"error: {SHOWN}: not an image" in ended.stderr.splitlines()[1]
    assert mhvae("segment", f"{HOSTILE}{HOSTILE}", "--shard", HOSTILE).stderr.count("\n") == 2
    assert mhvae(HOSTILE).stderr.splitlines()[0].startswith("error: No such command")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(HOSTILE)

    monkeypatch.setenv("MHVAE_DEBUG", "1")
    monkeypatch.setattr("mhvae_cli.commands.segment.find_inputs", fail)
    ended = mhvae("segment", *common)
    assert ended.code == 1 and not controls(ended.stderr) and "Traceback" in ended.stderr
    on_one_line = SHOWN.replace(r"\r", " ").replace(r"\n", " ")
    assert f"internal error: RuntimeError: {on_one_line}" in ended.stderr


def test_names_on_stdout_are_escaped_on_a_terminal_alone(
    mhvae: Callable[..., Any], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(here / HOSTILE)
    command = ("segment", HOSTILE, "-o", "m/", "--dry-run")
    path = f"m/{HOSTILE}"
    assert mhvae(*command).stdout == f"{path}\n".encode()
    (line,) = mhvae(*command, "--json").lines
    assert json.loads(line)["output"] == path and not controls(line)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as screen:
        monkeypatch.setattr(sys, "stdout", screen)
        console.write_line(path)
        console.show_table([HOSTILE, "n"], [[HOSTILE, "1"]])
        monkeypatch.undo()
        shown = os.read(master, 4096).decode()
    os.close(master)
    assert f"m/{SHOWN}" in shown and not controls(
        shown.replace("\r\n", "\n").replace("\x1b[1m", "").replace("\x1b[0m", "")
    )
