"""How many threads and cores a process takes: its affinity, its control groups, the user's own settings."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mhvae_cli import resources as machine

Mhvae = Callable[..., Any]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the tester's, eight cores, no control groups; torch's threads as they were."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "MEMBERSHIP", Path("/nonexistent"))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


@pytest.fixture
def grouped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """grouped("0::/a/b", {"a/cpu.max": "..."}): what /proc/self/cgroup and /sys/fs/cgroup say."""

    def group(membership: str, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / "fs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        (tmp_path / "self").write_text(membership + "\n")
        monkeypatch.setattr(machine, "CGROUPS", tmp_path / "fs")
        monkeypatch.setattr(machine, "MEMBERSHIP", tmp_path / "self")

    return group


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "200000 100000"}, 2),  # docker run --cpus 2, version 2
        ("0::/", {"cpu.max": "250000 100000"}, 2),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "1600000 100000"}, 8),  # more than the affinity
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),  # the outer one binds
        ("0::/not/seen/from/inside", {"cpu.max": "400000 100000"}, 4),  # a container's own view
        ("4:cpu,cpuacct:/d\n0::/", {"cpu,cpuacct/d/cpu.cfs_quota_us": "150000",
          "cpu,cpuacct/d/cpu.cfs_period_us": "50000"}, 3),  # version 1
        ("4:cpu,cpuacct:/d", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ("4:cpuacct,cpu:/d", {"cpu/cpu.cfs_quota_us": "500000", "cpu/cpu.cfs_period_us": "100000"}, 5),
        ("0::/", {"cpu.max": "garbage"}, 8),
        ("0::/", {"cpu.max": "100000 0"}, 8),
    ],
)  # fmt: skip
def test_the_cores_of_a_control_group(
    grouped: Callable[..., None], membership: str, files: dict[str, str], cores: int
) -> None:
    grouped(membership, files)
    assert machine.cores() == cores


def test_the_memory_of_a_control_group(grouped: Callable[..., None]) -> None:
    free = machine.memory()
    assert free is not None and free > 2**28
    grouped("0::/job", {"job/memory.max": str(2**27), "memory.max": "max"})
    assert machine.memory() == 2**27
    grouped("3:memory:/job", {"memory/job/memory.limit_in_bytes": str(2**26)})
    assert machine.memory() == 2**26


def test_a_process_keeps_to_its_affinity() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from mhvae_cli.resources import cores, worker_count; print(cores(), worker_count(None))"
    )
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "1"], done.stderr


def test_threads_and_workers(monkeypatch: pytest.MonkeyPatch, grouped: Callable[..., None]) -> None:
    assert (machine.threads(), machine.worker_count(None), machine.worker_count(0)) == (8, 8, 0)
    for text, threads in (("3", 3), ("4,2", 4), ("0", 8), ("many", 8), ("", 8)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert machine.threads() == machine.worker_count(None) == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    assert (machine.threads(), machine.worker_count(None), machine.worker_count(20)) == (64, 8, 20)


def test_torch_is_told_of_a_quota_and_of_the_user_but_not_over_the_user(
    monkeypatch: pytest.MonkeyPatch, grouped: Callable[..., None]
) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    machine.use_threads(None)
    assert not told and "OMP_NUM_THREADS" not in os.environ  # torch's own number is right
    grouped("0::/", {"cpu.max": "200000 100000"})
    machine.use_threads(None)
    assert told == [2] and os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    machine.use_threads(None)
    assert told == [2] and os.environ["OMP_NUM_THREADS"] == "5"
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    machine.use_threads(3)
    assert told == [2, 3] and os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize("way", ["option", "environment"])
def test_threads_reach_torch_and_every_thread(
    phantom_folder: Path, tiny_model: Path, tmp_path: Path, way: str
) -> None:
    """In a process of its own, torch not imported yet; the network runs in a thread that the verb starts."""
    argv = ["segment", str(phantom_folder / "images"), "-o", f"{tmp_path}/", "-m", str(tiny_model), "-q"]
    argv += ["--threads", "1"] if way == "option" else []
    code = (
        "import sys, threading\nfrom mhvae_cli.cli import app\n"
        f"try: app({argv!r})\nexcept SystemExit as end: print(end.code, file=sys.stderr)\n"
        "import torch\nsay = lambda: print(torch.get_num_threads(), file=sys.stderr)\n"
        "say(); other = threading.Thread(target=say); other.start(); other.join()\n"
    )
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("OMP", "MKL", "MHVAE"))
    }
    environment |= {"OMP_NUM_THREADS": "2"} | ({"MHVAE_THREADS": "1"} if way == "environment" else {})
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stderr.split() == ["0", "1", "1"]
    assert len(list(tmp_path.glob("*.png"))) == 8


@pytest.mark.parametrize(("given", "policy"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_do_not_spin_unless_the_user_says_so(given: str | None, policy: str) -> None:
    code = (
        "import os, sys\nfrom mhvae_cli import cli\nsys.argv = ['mhvae', '-V']\n"
        "try: cli.main()\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.split()[-2:] == [policy, "False"]


def test_what_is_no_number_of_threads(mhvae: Mhvae) -> None:
    for value in ("0", "-2", "all"):
        ended = mhvae("segment", "a.png", "--threads", value)
        assert ended.code == 2 and "--threads" in ended.stderr
