"""Jobs stream through threads in order, in bounded memory, in batches that fit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.run_folders import crowd, rows, runs, states
from support.shortages import SHORT

from mhvae_cli.errors import DeviceError, InputError
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

    with pytest.raises(RuntimeError, match="shapes"):
        Halving(broken, print)([1, 2])
    with pytest.raises(DeviceError):
        Halving(lambda batch: (_ for _ in ()).throw(SHORT["cuda"]), lambda size: None)([1, 2])


def test_stream_keeps_order_and_bounds_what_it_holds() -> None:
    held, most = set[int](), 0

    def load(job: int) -> tuple[np.ndarray, int]:
        nonlocal most
        held.add(job)
        most = max(most, len(held))
        if job % 10 == 7:
            raise InputError(f"{job}")
        return np.full((1, 2, 2), job, np.float32), job * job

    def run(batch: list[np.ndarray]) -> list[Any]:
        assert len(batch) <= 4
        return [InputError("11") if array[0, 0, 0] == 11 else array[0, :1, 0] for array in batch]

    def finish(job: int, kept: int, row: np.ndarray) -> tuple[int, int, float]:
        return job, kept, float(row[0])

    for workers in (0, 3):
        held.clear()
        results = []
        for result in stream(range(100), load=load, run=run, finish=finish, batch_size=4, workers=workers):
            held.discard(len(results))
            results.append(result)
        faults = [index for index, result in enumerate(results) if isinstance(result, InputError)]
        assert faults == sorted([11, *range(7, 100, 10)])
        assert all(r == (i, i * i, float(i)) for i, r in enumerate(results) if i not in faults)
    assert most <= 4 * 4


def test_stream_stops_early_and_passes_bugs_on() -> None:
    loaded: list[int] = []

    def load(job: int) -> tuple[np.ndarray, None]:
        loaded.append(job)
        return np.zeros((1, 1, 1), np.float32), None

    def run(batch: list[np.ndarray]) -> np.ndarray:
        return np.stack(batch)[:, 0, 0]

    def finish(job: int, kept: None, row: np.ndarray) -> int:
        if job == 5:
            raise ZeroDivisionError
        return job

    results = stream(range(1000), load=load, run=run, finish=finish, batch_size=2, workers=2)
    assert next(results) == 0
    results.close()
    assert len(loaded) < 20
    with pytest.raises(ZeroDivisionError):
        list(stream(range(1000), load=load, run=run, finish=finish, batch_size=2, workers=2))
