"""The table and the files of a folder agree, whoever kills a run, shares the folder or fills the disk."""

import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.run_folders import Fork, crowd, rows, runs, whole

from mhvae_cli.errors import OutputError
from mhvae_cli.runs.results import Table

Mhvae = Callable[..., Any]
SKIP = ("--existing", "skip")
pytestmark = pytest.mark.usefixtures("three_scans")


def killed_at(step: int, folder: str, args: tuple[object, ...]) -> bool:
    """Run the command, and kill it just before its `step`-th operation on a folder; whether it was."""
    left, place, write = [step], os.path.abspath(folder), os.write

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, values: tuple[Any, ...]) -> None:
        if event in ("open", "os.rename", "os.remove", "os.truncate"):
            touched = values[0]
            if isinstance(touched, int) or os.path.abspath(os.fspath(touched)).startswith(place):
                count()

    def first() -> None:
        sys.addaudithook(hook)
        os.write = lambda file, data: (count(), write(file, data))[1]

    return Fork(*args, first=first).wait()[0] == -signal.SIGKILL


ONE = ("segment", "scans/a.png", "-j", 0, "-q", "--device", "cpu", "-o")


def what_is_right(mhvae: Mhvae) -> bytes:
    """The mask that the command makes of scans/a.png."""
    assert mhvae(*ONE, "right/").code == 0
    return Path("right/a.png").read_bytes()


def has_one_true_row(right: bytes) -> None:
    """There is one row; if it says ok, it is of the file that is there; and no staged file is left."""
    (row,) = rows()
    assert row["status"] != "ok" or Path(row["output"]).read_bytes() == right
    assert not [path for path in Path("m").iterdir() if path.name.startswith(".")]


def test_wherever_a_run_is_killed_the_next_goes_on(mhvae: Mhvae) -> None:
    right = what_is_right(mhvae)
    for step in range(1, 200):
        shutil.rmtree("m", ignore_errors=True)
        was_killed = killed_at(step, "m", (*ONE, "m/"))
        assert mhvae(*ONE, "m/", *SKIP).code == 0
        has_one_true_row(right)
        assert whole() and runs()[-1]["status"] == "ended"
        if not was_killed:
            break
    assert 15 < step < 199


def test_wherever_an_overwriting_run_is_killed_the_old_file_is_stale(mhvae: Mhvae) -> None:
    right, ends = what_is_right(mhvae), []
    shutil.copy("scans/a.png", "first.png")
    for step in range(1, 200):
        shutil.rmtree("m", ignore_errors=True)
        shutil.copy("scans/b.png", "scans/a.png")  # what is there was made from another input
        assert mhvae(*ONE, "m/").code == 0
        old = Path("m/a.png").read_bytes()
        assert old != right
        shutil.copy("first.png", "scans/a.png")
        was_killed = killed_at(step, "m", (*ONE, "m/", "--existing", "overwrite"))
        stays = Path("m/a.png").exists() and Path("m/a.png").read_bytes() == old
        ends.append(mhvae(*ONE, "m/", *SKIP).code)
        assert ends[-1] == (7 if stays else 0)
        has_one_true_row(right)
        assert len(list(Path("m").glob("*.png"))) == 1
        assert mhvae(*ONE, "m/", "--existing", "overwrite").code == 0 and whole()
        if not was_killed:
            break
    assert 15 < step < 199 and set(ends) == {0, 7}
    assert ends == sorted(ends, reverse=True)  # once the old file is gone, it stays gone


def test_killed_at_random_moments() -> None:
    crowd(57)
    rng = np.random.default_rng(0)
    args = ("segment", "scans", "-o", "m", "-j", 2, "-q", *SKIP)
    for number, most in enumerate((1, 3, 10, 20, 30, 35, 40), 1):
        run = Fork(*args)
        while not Path("m/results.csv").exists() or len(rows()) < most or len(runs()) < number:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.005))
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    assert Fork(*args).wait() == (0, "") and len(rows()) == 60 and whole()
    told = [run["status"] for run in runs()]
    assert len(told) == 8 and told.count("running") >= 3 and told[-1] == "ended"


def test_two_at_once_in_one_folder() -> None:
    """Two shards, and a third process that takes the same work as the first."""
    crowd(57)
    args = ("segment", "scans", "-o", "m", "-q", "-j", 2, "--existing", "overwrite", "--shard")
    started = [Fork(*args, part) for part in ("1/2", "2/2", "1/2")]
    assert [run.wait() for run in started] == [(0, "")] * 3
    assert len(rows()) == 60 and whole() and len(runs()) == 3
    counts = sorted(run["counts"]["ok"] for run in runs() if run["status"] == "ended")
    twice = counts[1]
    assert counts == sorted([twice, twice, 60 - twice])


def append(folder: str, worker: int) -> None:
    """Rows to a table that is opened anew now and then, each time with one more column."""
    for part in range(5):
        columns = ("input", "page", "output", *(f"column{i}" for i in range(part)), f"own{worker}")
        table = Table(Path(folder, "t.csv"), columns)
        for number in range(20):
            table.add({"input": f"{worker}-{part}", "page": number, "output": "x", f"own{worker}": number})
        table.close()


def test_no_row_is_lost_while_others_change_the_table(here: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        list(pool.map(append, [str(here)] * 4, range(4)))
    with Path("t.csv").open(newline="") as file:
        found = list(csv.DictReader(file, strict=True))
    assert len(found) == 400 == len({(row["input"], row["page"]) for row in found})
    assert all(row["page"] == row[f"own{row['input'][0]}"] and None not in row.values() for row in found)


def test_of_two_rows_for_one_thing_the_last_stays(here: Path) -> None:
    first, second = (Table(Path("t.csv"), ("a", "b", "c", "d")) for _ in range(2))
    for table, value in ((first, 1), (second, 2), (first, 3)):
        table.add({"a": "x", "b": 0, "c": "y", "d": value})
        table.add({"a": "z", "b": 0, "c": str(value)})
    first.close()
    second.close()
    assert Path("t.csv").read_text() == "a,b,c,d\nz,0,1,\nz,0,2,\nx,0,y,3\nz,0,3,\n"


def test_a_row_whose_files_find_no_place_leaves_no_trace(here: Path) -> None:
    table = Table(Path("t.csv"), ("a", "b", "c"))
    table.add({"a": 1})
    with pytest.raises(OutputError, match="no place"), table.appending() as append_row:
        append_row({"a": 2})
        raise OutputError("no place")
    assert Path("t.csv").read_text() == "a,b,c\n1,,\n"


NAMES = [
    "cr\r.png",
    "lf\n.png",
    "crlf\r\n.png",
    'quote",\n.png',
    "=1+1.png",
    "+a.png",
    "-a.png",
    "@a.png",
    "\ta.png",
]


def test_any_name_is_one_cell_of_one_row(mhvae: Mhvae) -> None:
    """For readers of CSV in general; and a spreadsheet is given no formula, but a path to the same file."""
    os.mkdir("odd")
    for name in NAMES:
        shutil.copy("scans/a.png", f"odd/{name}")
    os.chdir("odd")
    command = (
        "segment",
        *(name for name in NAMES if name[0] != "-"),
        "-o",
        "m",
        "-q",
        "--json",
        "--",
        "-a.png",
    )
    ended = mhvae(*command)
    assert ended.code == 0
    assert [json.loads(line)["input"] for line in ended.lines] == [*NAMES[:6], *NAMES[7:], NAMES[6]]
    text = Path("m/results.csv").read_bytes()
    assert [row["input"].removeprefix("./") for row in rows()] == [*NAMES[:6], *NAMES[7:], NAMES[6]]
    for row in rows():
        assert row["status"] == "ok" and os.path.samefile(row["input"], row["input"].removeprefix("./"))
        assert not row["input"].startswith(tuple("=+-@\t\r")) and Path(row["output"]).is_file()
        assert Path("m", row["input"].removeprefix("./")).samefile(row["output"])
    again = mhvae("segment", *command[1:-4], "--existing", "skip", *command[-4:])
    assert again.code == 0 and {json.loads(line)["status"] for line in again.lines} == {"skipped"}
    assert Path("m/results.csv").read_bytes() == text
    here = mhvae("segment", "=1+1.png", "-o", "=mask.png", "--existing", "overwrite")
    assert here.code == 0 and here.lines == ["=mask.png"]


def test_a_row_cut_off_within_a_name_is_no_row(here: Path) -> None:
    table = Table(Path("t.csv"), ("a", "b", "c"))
    table.add({"a": "whole\nname", "b": -1.5, "c": "-2"})
    whole = Path("t.csv").read_bytes()
    for cut in ('"torn', '"torn\n', '"torn\nna', '"to""rn\nname\n",1'):
        for opened in ("before", "after") if cut[-1] != "\n" else ("after",):
            Path("t.csv").write_bytes(whole)
            table = Table(Path("t.csv"), ("a", "b", "c"))
            Path("t.csv").write_bytes(whole + cut.encode())
            (table if opened == "before" else Table(Path("t.csv"), ("a", "b", "c"))).add({"a": "next"})
            with Path("t.csv").open(newline="") as file:
                found = list(csv.reader(file, strict=True))
            assert found == [["a", "b", "c"], ["whole\nname", "-1.5", "-2"], ["next", "", ""]]


@pytest.fixture
def small_disk(here: Path) -> Iterator[Path]:
    """A file system of 100 kB, where this process may mount one."""
    (here / "disk").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", here / "disk"], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting needs root")
    yield here / "disk"
    subprocess.run(["umount", here / "disk"], check=True)


def test_a_disk_that_fills_up(mhvae: Mhvae, small_disk: Path) -> None:
    crowd(57)
    ended = mhvae("segment", "scans", "-o", "disk", "-q")
    assert ended.code == 7 and len(ended.stderr.splitlines()) <= 2
    assert "no space left on device" in ended.stderr.splitlines()[0]
    assert 0 < len(rows("disk")) < 60 and whole("disk")
    os.remove("disk/mhvae-run.json")
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    assert mhvae("segment", "scans", "-o", "disk", "-q", *SKIP).code == 0
    assert len(rows("disk")) == 60 and whole("disk")


def test_a_table_that_cannot_grow() -> None:
    crowd(57)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    run = Fork(
        *("segment", "scans", "-o", "m", "-q"),
        first=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)),
    )
    assert run.wait() == (7, "error: m/results.csv: no space left on device\n")
    assert 0 < len(rows()) < 60 and whole()


@pytest.fixture
def closed(here: Path) -> Iterator[Path]:
    """A folder that this process may not write into, root though it may be."""
    (here / "m").mkdir()
    (here / "m").chmod(0o500)
    if os.geteuid():
        yield here / "m"
        return
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", here / "m"]).returncode:
        pytest.skip("root may write anywhere")
    yield here / "m"
    subprocess.run(["umount", here / "m"], check=True)


def test_a_folder_that_may_not_be_written(mhvae: Mhvae, closed: Path) -> None:
    ended = mhvae("segment", "scans", "-o", "m", "-q")
    assert ended.code == 7 and ended.stderr.startswith("error: m/results.csv: ")
    assert "read-only" in ended.stderr or "permission denied" in ended.stderr
    assert len(ended.stderr.splitlines()) <= 2 and not os.listdir("m")
