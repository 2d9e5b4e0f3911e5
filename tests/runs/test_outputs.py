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


def test_all_collisions_are_told_of(mhvae: Mhvae, here: Path) -> None:
    for folder in "xyz":
        for name in "abcdefg" if folder != "z" else "a":
            picture(here / folder / f"{name}.png")
    for verb in ("segment", "reconstruct"):  # which writes a mask, too
        end = "" if verb == "segment" else "__recon"
        ended = mhvae(verb, "x", "y", "z", "-o", "m")
        assert ended.code == 7 and ended.stderr.splitlines()[0] == (
            f"error: m/a{end}.png: 3 inputs would write it: x/a.png, y/a.png and z/a.png"
            f" (and 6 more: {', '.join(f'm/{name}{end}.png' for name in 'bcde')}, ...)"
        )
        ended = mhvae(verb, "x/a.png", "x/b.png", "y/a.png", "y/b.png", "-o", "m")
        assert ended.stderr.splitlines()[0] == (
            f"error: m/a{end}.png: two inputs would write it: x/a.png and y/a.png (and 1 more: m/b{end}.png)"
        )
    ended = mhvae("swap-style", "x/a.png", "y/a.png", "x/b.png", "y/b.png", "-o", "m")
    assert ended.code == 7 and "x/a.png and y/a.png: " in ended.stderr
    assert "(and 1 more: x/b.png and y/b.png)" in ended.stderr
    ended = mhvae("segment", "x", "-o", "x", "--existing", "overwrite")
    assert ended.code == 7 and "x/a.png: would overwrite an input (and 6 more: x/b.png, " in ended.stderr


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
