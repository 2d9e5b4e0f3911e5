"""Files are whole or not there, and a lock holds between processes."""

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mhvae_cli.errors import OutputError
from mhvae_cli.filesystem import locked, staging, write_atomic

HOLD = """
import sys, time
from pathlib import Path
from mhvae_cli.filesystem import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(0.5)
"""


def test_a_file_is_written_with_its_parents(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "c.txt", iter([b"one ", b"two"]))
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"one two"
    assert os.listdir(tmp_path / "a" / "b") == ["c.txt"]


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")

    def pieces():  # type: ignore[no-untyped-def]
        yield b"new"
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"a\.txt: no space left on device$"):
        write_atomic(path, pieces())
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.txt"]


def test_nothing_is_put_in_the_place_of_a_device_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "folder", Path(os.devnull)):
        with pytest.raises(OutputError):
            write_atomic(path, b"data")
    assert (tmp_path / "folder").is_dir() and not Path(os.devnull).is_file()


def test_staging_names_are_hidden_and_differ(tmp_path: Path) -> None:
    names = {staging(tmp_path / "a.png", "results.csv-").name for _ in range(100)}
    assert len(names) == 100 and all(name.startswith(".results.csv-") for name in names)


@pytest.mark.skipif(os.name == "nt", reason="fcntl locks")
def test_a_lock_keeps_another_process_out(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        begun = time.monotonic()
        with locked(path):
            assert time.monotonic() - begun > 0.2
    assert other.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="fcntl locks")
def test_the_file_that_is_held_is_the_one_that_lies_there(tmp_path: Path) -> None:
    """Another process may move a new file into the place while this one waits for the old one."""
    path, held = tmp_path / "table.csv", []

    def wait() -> None:
        with locked(path) as file:
            held.append(os.path.samestat(os.fstat(file), os.stat(path)))

    with locked(path):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.1)
        write_atomic(path, b"new")
    thread.join(5)
    assert held == [True]


def test_a_file_is_written_whole_with_its_parents(tmp_path):
    file = tmp_path / "a" / "b" / "mask.png"
    write_atomic(file, b"one")
    write_atomic(file, b"two")
    assert file.read_bytes() == b"two" and os.listdir(file.parent) == ["mask.png"]
    umask = os.umask(0)
    os.umask(umask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    long = tmp_path / ("n" * 251 + ".png")
    write_atomic(long, b"three")
    assert long.read_bytes() == b"three"


@pytest.mark.parametrize("step", ["replace", "write"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step):
    file = tmp_path / "mask.png"
    file.write_bytes(b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def pieces():
        yield b"ne"
        full()

    with monkeypatch.context() as patch:
        if step == "replace":
            patch.setattr(os, "replace", full)
        with pytest.raises(OutputError, match=r"mask\.png: no space left on device"):
            write_atomic(file, b"new" if step == "replace" else pieces())
    assert file.read_bytes() == b"old" and os.listdir(tmp_path) == ["mask.png"]


def test_what_is_no_file_is_not_replaced(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for place in (tmp_path / "folder.png", tmp_path / "file" / "below.png"):
        with pytest.raises(OutputError, match=f"^{place}: "):
            write_atomic(place, b"data")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.png"]
