"""Jobs stream through threads in order, in bounded memory, in batches that fit."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.run_folders import crowd, rows, runs, states
from support.shortages import SHORT

from mhvae_cli.errors import DeviceError, InputError
from mhvae_cli.runs.inputs import Item
from mhvae_cli.runs.streaming import Halving, stream

Mhvae = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("three_scans")


def out_of_memory(most: int, seen: list[int], real: Any, error: Exception) -> Any:
    def locate(self: object, batch: np.ndarray, *more: Any, **how: Any) -> Any:
        seen.append(len(batch))
        if len(batch) > most:
            raise error
        return real(self, batch, *more, **how)

    return locate


@pytest.mark.parametrize("kind", SHORT)
def test_out_of_memory_halves_the_batch(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from mhvae_cli.inference.networks import Networks

    crowd(10)
    assert mhvae("segment", "scans", "-o", "right", "-b", 8).code == 0
    seen: list[int] = []
    for name in ("posterior", "examine"):
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

    names = ("posterior", "examine")
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


def test_a_bug_is_no_lack_of_memory() -> None:
    def broken(batch: list[int]) -> list[int]:
        raise RuntimeError("shapes differ")

    sizes: list[int] = []
    rows = Halving(broken, sizes.append)([1, 2])
    assert [str(row) for row in rows] == ["shapes differ"] * 2 and sizes == []
    with pytest.raises(DeviceError):
        Halving(lambda batch: (_ for _ in ()).throw(SHORT["cuda"]), lambda size: None)([1, 2])


def break_for(size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """A function that takes an array first has a bug with those of one size."""
    module, _, name = f"mhvae_cli.{place}".rpartition(".")
    real = getattr(import_module(module), name)

    def broken(array: np.ndarray, *args: Any, **kwargs: Any) -> Any:
        if array.shape[:2] == size:
            raise IndexError("index 7 is\nout of bounds")
        return real(array, *args, **kwargs)

    for loaded in list(sys.modules.values()):
        if getattr(loaded, name, None) is real:
            monkeypatch.setattr(loaded, name, broken)


@pytest.mark.parametrize(
    ("place", "options"),
    [
        ("images.transforms.to_square", ("segment",)),
        ("images.encode.encode_png", ("segment",)),
        ("images.transforms.to_square", ("reconstruct", "--no-refine")),
        ("images.encode.encode_png", ("reconstruct", "--no-refine")),
        ("images.transforms.to_square", ("warp", "--handles")),
        ("images.render.number_points", ("warp", "--handles")),
    ],
)
def test_a_bug_costs_the_row_of_its_input(
    mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, place: str, options: tuple[str, ...]
) -> None:
    """Loading and processing: the others are written, the bug is one line, its traceback on request."""
    verb, *more = options
    broken = np.zeros((30, 41), np.uint8)
    Image.fromarray(broken).save("scans/b.png")
    break_for(broken.shape, monkeypatch, place)
    ended = mhvae(verb, "scans", "-o", "m", *more)
    assert ended.code == 3 and states() == {"a": "ok", "b": "failed", "c": "ok"}
    line = "internal error: IndexError: index 7 is out of bounds"
    assert f"error: scans/b.png: {line}\n" in ended.stderr and "Traceback" not in ended.stderr
    assert [row["error"] for row in rows()] == ["", line, ""]
    ended = mhvae(verb, "scans/b.png", "-o", "n.png", *more, "-v")
    assert ended.code == 1 and "Traceback" in ended.stderr and not Path("n.png").exists()


def test_a_bug_in_a_batch_costs_the_row_of_one(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.inference.networks import Networks

    real, wrong = Networks.posterior, []

    def locate(self: Networks, batch: np.ndarray, **how: Any) -> Any:
        wrong.append(batch[1]) if not wrong else None
        if any(np.array_equal(each, wrong[0]) for each in batch):
            raise ZeroDivisionError
        return real(self, batch, **how)

    monkeypatch.setattr(Networks, "posterior", locate)
    ended = mhvae("segment", "scans", "-o", "m", "-b", 3)
    assert ended.code == 3 and states() == {"a": "ok", "b": "failed", "c": "ok"}


def test_stream_keeps_order_and_bounds_what_it_holds() -> None:
    held, most = set[int](), 0

    def load(number: Number) -> tuple[np.ndarray, int]:
        nonlocal most
        job = number.value
        held.add(job)
        most = max(most, len(held))
        if job % 10 == 7:
            raise InputError(f"{job}")
        return np.full((1, 2, 2), job, np.float32), job * job

    def run(batch: list[np.ndarray]) -> list[Any]:
        assert len(batch) <= 4
        return [InputError("11") if array[0, 0, 0] == 11 else array[0, :1, 0] for array in batch]

    def finish(job: Number, kept: int, row: np.ndarray) -> tuple[int, int, float]:
        return job.value, kept, float(row[0])

    for workers in (0, 3):
        held.clear()
        results = []
        for result in stream(
            [Number(value) for value in range(100)],
            load=load,
            run=run,
            finish=finish,
            batch_size=4,
            workers=workers,
        ):
            held.discard(len(results))
            results.append(result)
        faults = [index for index, result in enumerate(results) if isinstance(result, InputError)]
        assert faults == sorted([11, *range(7, 100, 10)])
        assert all(r == (i, i * i, float(i)) for i, r in enumerate(results) if i not in faults)
    assert most <= 4 * 4


@dataclass(frozen=True)
class Number:
    """A job that is called as its item."""

    value: int

    @property
    def item(self) -> Item:
        return Item(str(self.value), b"", "")


def test_stream_stops_early_and_passes_device_errors_on() -> None:
    loaded: list[int] = []

    def load(job: Number) -> tuple[np.ndarray, None]:
        loaded.append(job.value)
        return np.zeros((1, 1, 1), np.float32), None

    def run(batch: list[np.ndarray]) -> np.ndarray:
        return np.stack(batch)[:, 0, 0]

    def finish(job: Number, kept: None, row: np.ndarray) -> int:
        if job.value == 5:
            raise SHORT["cuda"]
        return job.value

    jobs = [Number(value) for value in range(1000)]
    results = stream(jobs, load=load, run=run, finish=finish, batch_size=2, workers=2)
    assert next(results) == 0
    results.close()
    assert len(loaded) < 20
    with pytest.raises(type(SHORT["cuda"])):
        list(stream(jobs, load=load, run=run, finish=finish, batch_size=2, workers=2))
