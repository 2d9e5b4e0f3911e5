"""Where results go, and what they never overwrite."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.pictures import picture

Mhvae = Callable[..., Any]
ROOT = Path(__file__).parents[2]


def test_file_or_folder(mhvae: Mhvae, here: Path) -> None:
    picture(here / "s/a.png")
    picture(here / "s/b.png")
    (here / "there").mkdir()
    (here / "file").write_text("")

    def planned(*args: str) -> list[str]:
        return list(mhvae("segment", *args, "--dry-run").lines)

    assert planned("s/a.png", "-o", "new") == ["new"]
    assert planned("s/a.png", "-o", "new.tif") == ["new.tif"]
    assert planned("s/a.png", "-o", "new/") == ["new/a.png"]
    assert planned("s/a.png", "-o", "there") == ["there/a.png"]
    assert planned("s/a.png", "s/b.png", "-o", "new") == ["new/a.png", "new/b.png"]
    assert planned("s/a.png", "-o", "-") == ["-"]
    assert planned("s/a.png", "-o", "x.out", "--format", "svg") == ["x.out"]
    assert planned("s/a.png", "-o", "m/", "--format", "geojson", "--overlay") == [
        "m/a.geojson",
        "m/a__overlay.png",
    ]
    assert planned("s/a.png", "-o", "x.png", "--overlay") == ["x.png", "x__overlay.png"]
    ended = mhvae("segment", "s", "-o", "file")
    assert ended.code == 7 and "file: is a file, but" in ended.stderr


def test_collisions_stop_before_any_work(mhvae: Mhvae, here: Path) -> None:
    picture(here / "x/Scan.png")
    picture(here / "y/scan.jpg")
    ended = mhvae("segment", "x", "y/scan.jpg", "-o", "m/")
    assert ended.code == 7 and "x/Scan.png" in ended.stderr and "y/scan.jpg" in ended.stderr
    assert not (here / "m").exists()
    assert mhvae("segment", "-r", ".", "-o", "m/", "--dry-run").code == 0


def test_an_input_is_never_overwritten(mhvae: Mhvae, here: Path) -> None:
    before = picture(here / "a.png").read_bytes()
    for args in (["a.png"], ["a.png", "-o", "a.png", "--existing", "overwrite"], ["a.png", "-o", "."]):
        ended = mhvae("segment", *args)
        assert ended.code == 7 and "overwrite an input" in ended.stderr
    assert (here / "a.png").read_bytes() == before and os.listdir(here) == ["a.png"]


def on_terminal(*args: str) -> tuple[int, str]:
    """Exit code and all output of the command with stdin, stdout and stderr on a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "mhvae_cli", *args]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    code = process.wait(timeout=60)
    text = os.read(master, 100_000).decode()
    os.close(slave)
    os.close(master)
    return code, text


def test_terminals_are_refused(here: Path) -> None:
    picture(here / "a.png")
    code, text = on_terminal("segment", "a.png", "-o", "-")
    assert code == 2 and "stdout is a terminal" in text
    code, text = on_terminal("segment", "-")
    assert code == 2 and "stdin" in text and "terminal" in text
