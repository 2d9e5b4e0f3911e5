"""The benchmark on few images: sets within sets, one row per training, and what is done is not done again."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.scripts import benchmark

from mhvae_cli.training.datasets import Sample, discover
from mhvae_cli.training.loop import Outcome
from mhvae_cli.training.phantoms import write_phantoms


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with benchmark("few_images") as module:
        yield module


def test_a_smaller_set_is_a_part_of_a_larger_one(bench: ModuleType) -> None:
    samples = [Sample(f"{n:02}", Path(), None, f"patient{n // 2}", None) for n in range(20)]
    small, large = ({sample.id for sample in bench.drawn(samples, count)} for count in (6, 12))
    assert len(small) == 6 and len(large) == 12 and small < large
    assert len({int(name) // 2 for name in small}) == 3  # whole patients
    assert small != {f"{n:02}" for n in range(6)}


def test_an_interrupted_benchmark_goes_on(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_phantoms(tmp_path / "heads", "fetal-head", 12, size=(48, 64))
    begun: list[tuple[str, int]] = []

    def train(samples: list[Sample], start: str, out: Path, args: Namespace) -> Outcome:
        assert not {sample.fold for sample in samples} & {3}
        begun.append((start, len(samples)))
        if len(begun) == 3:
            raise KeyboardInterrupt
        return Outcome(True, 1)

    def scores(model: Path, test: list[Sample], device: str) -> tuple[float, float]:
        assert {sample.fold for sample in test} == {3}
        return 0.9 - 0.1 * len(begun), 10.0

    monkeypatch.setattr(bench, "train", train)
    monkeypatch.setattr(bench, "scores", scores)
    data = [
        "--data",
        str(tmp_path / "heads"),
        "skin-lesion",
        "--counts",
        "4",
        "6",
        "--starts",
        "imagenet",
        "other",
    ]
    monkeypatch.setattr(sys, "argv", ["few_images.py", str(tmp_path / "out"), *data])
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    bench.main()
    expected = [("imagenet", 6), ("skin-lesion", 6), ("imagenet", 4), ("skin-lesion", 4)]
    assert [pair for number, pair in enumerate(begun) if number != 2] == expected
    rows = bench.read_csv(tmp_path / "out" / "few_images.csv")
    assert [(row["start"], row["images"], row["dice"]) for row in rows] == [
        ("imagenet", "6", "0.8000"),
        ("other", "6", "0.7000"),
        ("imagenet", "4", "0.5000"),
        ("other", "4", "0.4000"),
    ]
    assert bench.draw(rows).shape[2] == 3 and (tmp_path / "out" / "few_images.png").stat().st_size > 0
    assert "imagenet" in capsys.readouterr().out
    assert len(discover(tmp_path / "heads")) == 12
