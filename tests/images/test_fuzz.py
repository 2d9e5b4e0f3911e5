"""Damaged files of every kind: one run over a folder of them ends well, and costs each its own row only."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.scripts import benchmark


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    """examples/benchmarks/fuzz.py, imported as its neighbours do."""
    with benchmark("fuzz") as module:
        yield module


def test_spoiled_files_cost_their_own_rows(bench: ModuleType, tiny_model: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "files", tmp_path / "masks"
    folder.mkdir()
    cases = bench.write_cases(folder, 110, seed=5)
    assert sum(case.pages > 0 for case in cases) > 15
    command = [
        sys.executable,
        "-m",
        "mhvae_cli",
        "segment",
        str(folder),
        "-o",
        f"{out}/",
        "-m",
        str(tiny_model),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert bench.judge(folder, out, cases, done.returncode, done.stderr) == []


def test_the_judge_sees_what_is_wrong(bench: ModuleType, tmp_path: Path) -> None:
    lost, whole = bench.Case("a.png", "cut", 0), bench.Case("b.png", "whole", 2)
    (tmp_path / "results.csv").write_text("input,status,error,output\nx/b.png,failed,,\n")
    faults = bench.judge(tmp_path, tmp_path, [lost, whole], 1, "Traceback Doe^Jane")
    assert len(faults) == 6
    assert bench.judge(tmp_path, tmp_path / "none", [], 3, "")[0].startswith("no results.csv")
