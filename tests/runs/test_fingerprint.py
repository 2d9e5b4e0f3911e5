"""A night's work: runs that are killed, go on, share a folder, and run out of disk, memory or inputs."""

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
import torch
from PIL import Image

from mhvae_cli.errors import DeviceError, OutputError
from mhvae_cli.runs.results import Table
from mhvae_cli.runs.streaming import Halving

Mhvae = Callable[..., Any]
ROOT = Path(__file__).parents[2]
SKIP = ("--existing", "skip")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path, phantom_folder: Path) -> Path:
    """Three phantoms in scans/ of the current folder, and the tiny model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHVAE_MODEL", str(tiny_model))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    (tmp_path / "scans").mkdir()
    for name, image in zip("abc", sorted((phantom_folder / "images").iterdir()), strict=False):
        shutil.copy(image, tmp_path / "scans" / f"{name}.png")
    return tmp_path


def rows(folder: str = "m") -> list[dict[str, str]]:
    with Path(folder, "results.csv").open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def states(folder: str = "m") -> dict[str, str]:
    found = [(Path(row["input"]).stem, row["status"]) for row in rows(folder)]
    assert len(found) == len(dict(found))
    return dict(found)


def runs(folder: str = "m") -> list[dict[str, Any]]:
    return json.loads(Path(folder, "mhvae-run.json").read_text())["runs"]


def whole(folder: str = "m") -> bool:
    """Every picture can be read, has one row that says ok, and nothing else is there."""
    names = {path.name for path in Path(folder).iterdir()} - {"results.csv", "mhvae-run.json"}
    for name in names:
        with Image.open(Path(folder, name)) as image:
            image.load()
    told = [Path(row["output"]).name for row in rows(folder)]
    return sorted(told) == sorted(names) and all(row["status"] == "ok" for row in rows(folder))


class Fork:
    """The command in a fork of this process, whose torch is warm; `first` runs there before it."""

    def __init__(self, *args: object, first: Callable[[], None] = lambda: None) -> None:
        reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            self.said = os.fdopen(reading, "rb")
            return
        try:
            from typer.testing import CliRunner

            from mhvae_cli.cli import app

            # OpenMP's other threads are not forked, and would be waited for in vain.
            os.environ["MHVAE_THREADS"] = "1"
            first()
            ended = CliRunner().invoke(app, [str(arg) for arg in args])
            os.write(writing, ended.stderr.encode())
            os._exit(ended.exit_code)
        finally:
            os._exit(99)

    def wait(self) -> tuple[int, str]:
        """The exit code, or the signal as a negative number, and stderr."""
        with self.said:
            text = self.said.read().decode()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), text


# What counts as done


def test_skip_leaves_only_what_the_same_input_model_and_options_made(
    mhvae: Mhvae, here: Path, tiny_model: Path
) -> None:
    assert mhvae("segment", "scans", "-o", "m").code == 0
    before = {path: path.read_bytes() for path in Path("m").glob("*.png")}
    assert mhvae("segment", "scans", "-o", "m", *SKIP).code == 0

    shutil.copy("scans/a.png", "scans/b.png")
    ended = mhvae("segment", "scans", "-o", "m", "--json", *SKIP)
    told = {Path(line["input"]).stem: line for line in map(json.loads, ended.lines)}
    assert ended.code == 7 and {name: line["status"] for name, line in told.items()} == {
        "a": "skipped",
        "b": "stale",
        "c": "skipped",
    }
    assert told["b"]["error"] == "made from another input"
    first, second = ended.stderr.splitlines()[:2]
    assert first == "error: m/b.png: stale: made from another input" and "--existing overwrite" in second
    assert states() == {"a": "ok", "b": "stale", "c": "ok"} and rows()[1]["area_px"]

    ended = mhvae("segment", "scans/a.png", "-o", "m/", "--spacing", "0.2", *SKIP)
    assert ended.code == 7 and "m/a.png: stale: made with other options" in ended.stderr
    shutil.copytree(tiny_model, "other")
    config = json.loads(Path("other/config.json").read_text())
    Path("other/config.json").write_text(json.dumps(config | {"name": "other"}))
    ended = mhvae("segment", "scans", "-o", "m", "-m", "other", *SKIP)
    assert ended.code == 7 and "a.png: stale (and 2 more): made by another model" in ended.stderr
    assert states() == dict.fromkeys("abc", "stale")
    assert {path: path.read_bytes() for path in Path("m").glob("*.png")} == before

    Path("m/c.png").unlink()
    ended = mhvae("segment", "scans", "-o", "m", *SKIP)  # what was stale for others is right for this one
    assert ended.code == 7 and ended.lines == ["m/c.png"] and states() == {"a": "ok", "b": "stale", "c": "ok"}
    assert mhvae("segment", "scans", "-o", "m", "--existing", "overwrite").code == 0 and whole()
    assert np.array_equal(np.array(Image.open("m/a.png")), np.array(Image.open("m/b.png")))


def test_how_it_runs_and_what_it_is_called_do_not_count(
    mhvae: Mhvae, here: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mhvae("segment", "scans", "-o", "m").code == 0
    for options in (["-b", 1, "-j", 0], ["--dtype", "bfloat16"], ["--device", "cpu"], ["-m", tiny_model]):
        assert mhvae("segment", "scans", "-o", "m", *options, *SKIP).code == 0
    assert mhvae("segment", here / "scans", "-o", here / "m", *SKIP).code == 0
    monkeypatch.chdir("m")
    assert mhvae("segment", "../scans", *SKIP).code == 0 and whole(".")


def test_what_no_table_tells_of_is_stale(mhvae: Mhvae) -> None:
    Path("m").mkdir()
    Path("m/a.png").write_bytes(b"mine")
    dry = mhvae("segment", "scans", "-o", "m", "--dry-run", *SKIP)
    assert dry.code == 7 and dry.lines == ["m/b.png", "m/c.png"] and "m/a.png: stale" in dry.stderr
    ended = mhvae("segment", "scans", "-o", "m", *SKIP)
    assert ended.code == 7 and ended.lines == dry.lines and Path("m/a.png").read_bytes() == b"mine"
    assert states() == {"a": "stale", "b": "ok", "c": "ok"}
    assert mhvae("segment", "scans", "-o", "m", *SKIP).code == 7 and len(rows()) == 3
    assert mhvae("segment", "scans/a.png", "-o", "one.png").code == 0
    assert mhvae("segment", "scans/a.png", "-o", "one.png", *SKIP).code == 7


def test_a_row_of_the_spacings_counts_and_the_others_do_not(mhvae: Mhvae) -> None:
    given = ("--spacing-csv", "mm.csv")
    Path("mm.csv").write_text("filename,spacing\na.png,0.1\nb.png,0.2\n")
    assert mhvae("segment", "scans", "-o", "m", *given).code == 0
    Path("mm.csv").write_text("filename,spacing\nz.png,9\na.png,0.1\nb.png,0.3\n")
    assert mhvae("segment", "scans", "-o", "m", *given, *SKIP).code == 7
    assert states() == {"a": "ok", "b": "stale", "c": "ok"}


def test_pages_of_one_file_are_told_apart(mhvae: Mhvae) -> None:
    images = [Image.open(f"scans/{name}.png") for name in "abc"]
    images[0].save("s.tif", save_all=True, append_images=images[1:])
    assert mhvae("segment", "s.tif", "-o", "m").code == 0
    assert len({row["made_by"] for row in rows()}) == 3
    assert mhvae("segment", "s.tif", "-o", "m", *SKIP).code == 0


@pytest.mark.parametrize(
    ("args", "changed"),
    [
        (["reconstruct", "scans"], ["--seed", 1]),
        (["swap-style", "scans"], ["--mix", 0.5]),
        (["warp", "scans/a.png", "scans/b.png", "--rotate", 20], ["--about", "image"]),
        (["interpolate", "scans/a.png", "scans/b.png", "--gif"], ["--solver", "heun"]),
        (["sample", "-n", 2, "--codes", "prior"], ["--size", "20x30"]),
    ],
)
def test_made_pictures_are_done_or_stale(mhvae: Mhvae, args: list[Any], changed: list[Any]) -> None:
    verb = (*args, "-o", "m/", "-q", *([] if "--solver" in changed else ["--no-refine"]), "--steps", 1)
    common = (*verb, *(["-m", os.environ["MHVAE_MODEL"]]))
    if "--solver" in changed:
        common = tuple(word for word in (*common, "--no-refine"))
    assert mhvae(*common).code == 0
    before = {path: path.stat().st_mtime_ns for path in Path("m").rglob("*.png")}
    assert mhvae(*common, *SKIP).code == 0
    ended = mhvae(*common, *changed, *SKIP)
    assert ended.code == 7 and "stale (and" in ended.stderr and "with other options" in ended.stderr
    assert {path: path.stat().st_mtime_ns for path in Path("m").rglob("*.png")} == before
    if args[0] == "sample":
        assert mhvae(*(3 if word == 2 else word for word in common), *SKIP).code == 0  # a set grows
    if args[0] == "interpolate":
        Path("m/a__to-b_1.png").unlink()
        ended = mhvae(*common, *changed, *SKIP)
        assert (
            ended.code == 7 and len(ended.stderr.splitlines()) == 2
        )  # an album needs all, and some are stale


# mhvae-run.json


def test_the_account_of_runs(
    mhvae: Mhvae, here: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setenv("HOME", str(here))
    shutil.copytree(tiny_model, "model")
    shutil.move("scans", "jane-doe")
    Path("jane-doe/b.png").write_bytes(b"")
    Path("mm.csv").write_text("filename,spacing\na.png,0.1\n")
    assert mhvae("segment", "jane-doe", "-o", here / "m", "-b", 2, "--spacing-csv", here / "mm.csv").code == 3
    assert (
        mhvae("segment", "jane-doe/a.png", "-o", "m/", "-m", here / "model", "--window", "full", *SKIP).code
        == 7
    )
    text = Path("m/mhvae-run.json").read_text()
    assert str(here) not in text and "jane" not in text and "a.png" not in text
    first, second = runs()
    assert first["options"] == {"--out": "~/m", "--batch-size": 2, "--spacing-csv": "~/mm.csv"} | {
        name: value for name, value in first["options"].items() if name in ("--model", "--dtype")
    }
    assert first["counts"] == {
        "inputs": 3,
        "ok": 2,
        "skipped": 0,
        "stale": 0,
        "failed": 1,
        "missed": 0,
        "warned": 0,
    }
    assert (first["verb"], first["status"], first["exit_code"]) == ("segment", "ended", 3)
    assert (first["device"], first["dtype"], first["model"], first["seed"]) == ("cpu", "float32", "tiny", 0)
    assert first["model_sha256"][:8] == rows()[0]["made_by"].split("-")[1] and first["threads"] >= 1
    assert first["versions"]["torch"] == torch.__version__ and first["begun"] <= first["ended"]
    assert second["exit_code"] == 7 and second["counts"]["stale"] == 1 and second["model"] == "~/model"
    assert (
        mhvae("segment", "jane-doe/a.png", "-o", "one.png").code == 0 and not Path("mhvae-run.json").exists()
    )
    Path("m/mhvae-run.json").write_text("{}")
    ended = mhvae("segment", "jane-doe/c.png", "-o", "m/", "--existing", "overwrite")
    assert ended.code == 7 and "m/mhvae-run.json: not a run manifest" in ended.stderr


# Killed, and gone on with


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


@pytest.mark.parametrize("existing", ["error", "overwrite"])
def test_wherever_a_run_is_killed_the_next_goes_on(mhvae: Mhvae, existing: str) -> None:
    shutil.copy("scans/a.png", "first.png")
    args = ("segment", "scans/a.png", "-j", 0, "-q", "--device", "cpu", "-o")
    assert mhvae(*args, "right/").code == 0
    right = {path.name: path.read_bytes() for path in Path("right").glob("*.png")}
    for step in range(1, 200):
        shutil.rmtree("m", ignore_errors=True)
        if existing == "overwrite":  # what is there was made from another input
            shutil.copy("scans/b.png", "scans/a.png")
            assert mhvae(*args, "m/").code == 0
            shutil.copy("first.png", "scans/a.png")
        was_killed = killed_at(step, "m", (*args, "m/", "--existing", existing))
        assert mhvae(*args, "m/", *SKIP).code in (0, 7)
        for row in rows():
            if row["status"] == "ok":  # a row is of the file that is there
                assert Path(row["output"]).read_bytes() == right[Path(row["output"]).name]
        if existing == "error":
            assert whole() and len(rows()) == 1 and runs()[-1]["status"] == "ended"
        else:
            assert len(rows()) == 1 == len(list(Path("m").glob("*.png")))
            assert mhvae(*args, "m/", "--existing", "overwrite").code == 0 and whole()
        assert not [path for path in Path("m").iterdir() if path.name.startswith(".")]
        if not was_killed:
            break
    assert 15 < step < 199


def crowd(count: int) -> None:
    """That many inputs, no two with the same bytes."""
    pixels = np.array(Image.open("scans/a.png"))
    for number in range(count):
        pixels[0, :2] = divmod(number, 256)
        Image.fromarray(pixels).save(f"scans/n{number:03}.png")


def test_killed_at_random_moments() -> None:
    crowd(57)
    rng = np.random.default_rng(0)
    args = ("segment", "scans", "-o", "m", "-j", 2, "-q", *SKIP)
    for most in (1, 3, 10, 20, 30, 35, 40):
        run = Fork(*args)
        while not Path("m/results.csv").exists() or len(rows()) < most:
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
    assert all(run["status"] == "ended" and run["counts"]["ok"] == 30 for run in runs())


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


# No disk, no right, no input, no memory


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


def test_an_input_that_vanishes(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.commands import segment

    gather = segment.gather

    def gone(*args: Any, **how: Any) -> Any:
        found = gather(*args, **how)
        os.remove("scans/b.png")
        return found

    monkeypatch.setattr(segment, "gather", gone)
    ended = mhvae("segment", "scans", "-o", "m", "-q")
    assert ended.code == 3 and ended.stderr == "error: scans/b.png: no such file or directory\n"
    assert states() == {"a": "ok", "b": "failed", "c": "ok"} and ended.lines == ["m/a.png", "m/c.png"]


def test_an_output_whose_input_vanishes_is_left_alone(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.runs.fingerprint import RunFingerprint

    assert mhvae("segment", "scans", "-o", "m", "-q").code == 0
    why_stale, before = RunFingerprint.why_stale, Path("m/b.png").read_bytes()

    def gone(*args: Any) -> Any:
        os.remove("scans/b.png")
        return why_stale(*args)

    monkeypatch.setattr(RunFingerprint, "why_stale", gone)
    ended = mhvae("segment", "scans", "-o", "m", "-q", *SKIP)
    assert ended.code == 3 and ended.stderr == "error: scans/b.png: no such file or directory\n"
    assert Path("m/b.png").read_bytes() == before and states()["b"] == "failed"


def out_of_memory(most: int, seen: list[int], real: Any, error: Exception) -> Any:
    def locate(self: object, batch: np.ndarray, *more: Any, **how: Any) -> Any:
        seen.append(len(batch))
        if len(batch) > most:
            raise error
        return real(self, batch, *more, **how)

    return locate


SHORT = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: not enough memory: you tried to"
        " allocate 1 bytes."
    ),
    "python": MemoryError(),
}


@pytest.mark.parametrize("kind", SHORT)
def test_out_of_memory_halves_the_batch(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from mhvae_cli.inference.networks import Networks

    crowd(10)
    assert mhvae("segment", "scans", "-o", "right", "-b", 8).code == 0
    seen: list[int] = []
    for name in ("locate", "examine"):
        if hasattr(Networks, name):
            real = getattr(Networks, name)
            monkeypatch.setattr(Networks, name, out_of_memory(3, seen, real, SHORT[kind]))
    ended = mhvae("segment", "scans", "-o", "m", "-b", 8, "-j", 2)
    assert ended.code == 0 and len(rows()) == 13
    assert seen[:4] == [8, 4, 2, 2] and max(seen[2:]) == 2
    assert ended.stderr.count("warning: out of memory") == 1 and runs()[0]["batch_halved_to"] == 2
    for path in Path("right").glob("*.png"):
        assert path.read_bytes() == Path("m", path.name).read_bytes()


def test_out_of_memory_for_one_alone(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.inference.networks import Networks

    names = [name for name in ("locate", "examine") if hasattr(Networks, name)]
    real = {name: getattr(Networks, name) for name in names}
    for name in names:
        monkeypatch.setattr(Networks, name, out_of_memory(0, [], real[name], SHORT["cuda"]))
    ended = mhvae("segment", "scans", "-o", "m", "-q")
    assert ended.code == 5 and ended.stderr.startswith("error: not enough device memory")
    assert rows() == [] and (runs()[0]["exit_code"], runs()[0]["status"]) == (5, "ended")
    for name in names:
        monkeypatch.setattr(Networks, name, out_of_memory(0, [], real[name], SHORT["cpu"]))
    ended = mhvae("segment", "scans", "-o", "m", "-q")
    assert ended.code == 4 and ended.stderr.startswith("error: scans/a.png: not enough memory")
    assert states() == dict.fromkeys("abc", "failed")


def test_made_pictures_out_of_memory(
    mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, tiny_refined: Path
) -> None:
    """One of many that are made is too much by itself: it fails alone."""
    from mhvae_cli.inference import synthesis as generation

    real = generation.make

    def make(networks: Any, drafts: list[Any], **how: Any) -> Any:
        if len(drafts) > 1 or drafts[0].like.name.endswith("b.png"):
            raise MemoryError
        return real(networks, drafts, **how)

    monkeypatch.setattr(generation, "make", make)
    monkeypatch.setattr(
        "mhvae_cli.inference.networks.Networks.single_image_batches", property(lambda self: False)
    )
    ended = mhvae("reconstruct", "scans", "-o", "m", "-m", tiny_refined, "--steps", 1)
    assert ended.code == 3 and states() == {"a": "ok", "b": "failed", "c": "ok"}
    assert "error: scans/b.png: not enough memory" in ended.stderr


def test_a_model_that_finds_no_room(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SHORT["cuda"]

    monkeypatch.setattr("mhvae_cli.inference.networks.Networks.load", full)
    ended = mhvae("segment", "scans", "-o", "m")
    assert (
        ended.code == 5 and ended.stderr.splitlines()[0] == "error: out of memory" and not Path("m").exists()
    )


def test_a_bug_is_no_lack_of_memory() -> None:
    def broken(batch: list[int]) -> list[int]:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes"):
        Halving(broken, print)([1, 2])
    with pytest.raises(DeviceError):
        Halving(lambda batch: (_ for _ in ()).throw(SHORT["cuda"]), lambda size: None)([1, 2])
