"""--shard: a part of the inputs that depends on no other input, by a number or by a scheduler's task."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Mhvae = Callable[..., Any]
NAMES = ("MHVAE_SHARD", "RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS")
ARRAY = {"ID": "7", "COUNT": "4", "MIN": "3", "STEP": "2"}


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *(f"SLURM_ARRAY_TASK_{part}" for part in ARRAY)):
        monkeypatch.delenv(name, raising=False)


def scans(count: int, folder: str = "scans") -> None:
    Path(folder).mkdir(parents=True)
    for number in range(count):
        Path(folder, f"{number}.png").touch()


def planned(mhvae: Mhvae, shard: str, *args: str) -> list[str]:
    ended = mhvae("segment", *args, "-o", "m", "--dry-run", "--shard", shard)
    assert ended.code == 0, ended.stderr
    return ended.lines


def parts(mhvae: Mhvae, *args: str, count: int = 3) -> dict[str, int]:
    """The shard of each output; all of them are in exactly one."""
    numbers = range(1, count + 1)
    found = [(line, part) for part in numbers for line in planned(mhvae, f"{part}/{count}", *args)]
    assert len(found) == len(dict(found))
    return dict(found)


def test_shards_share_the_work(mhvae: Mhvae, here: Path) -> None:
    scans(60)
    found = parts(mhvae, "scans")
    assert sorted(found) == sorted(f"m/{number}.png" for number in range(60))
    assert min(Counter(found.values()).values()) >= 12


def test_a_file_added_between_two_starts_moves_no_other(mhvae: Mhvae, here: Path) -> None:
    scans(12)
    before = parts(mhvae, "scans")
    Path("scans/00.png").touch()
    Path("scans/5b.png").touch()
    assert parts(mhvae, "scans").items() > before.items()


def test_neither_does_a_folder_that_was_moved(mhvae: Mhvae, here: Path) -> None:
    scans(12, "scans/x")
    before = parts(mhvae, "scans", "-r")
    assert {name: parts(mhvae, "scans/x")[name.replace("/x/", "/")] for name in before} != before
    shutil.move("scans", "elsewhere")
    assert parts(mhvae, "elsewhere", "-r") == before
    assert parts(mhvae, f"{here}/elsewhere", "-r") == before


def test_results_of_two_images_are_shared_by_their_names(mhvae: Mhvae, here: Path) -> None:
    scans(4)

    def pairs() -> dict[str, str]:
        args = ("swap-style", "scans", "-o", "m", "--dry-run", "--shard")
        return {line: part for part in ("1/2", "2/2") for line in mhvae(*args, part).lines}

    before = pairs()
    assert len(before) == 24 and set(before.values()) == {"1/2", "2/2"}
    Path("scans/00.png").touch()
    assert pairs().items() > before.items()


def test_samples_take_turns(mhvae: Mhvae, here: Path) -> None:
    args = ("sample", "-n", 6, "--layout", "flat", "--out", "set", "--dry-run", "--model", "nowhere")
    lines = mhvae(*args, "--shard", "2/3").lines
    assert [line for line in lines if line.endswith("1.png")] == ["set/sample_s0_000001.png"]
    assert [line for line in lines if line.endswith("4.png")] == ["set/sample_s0_000004.png"]
    assert not any(line.endswith(("0.png", "2.png", "3.png", "5.png")) for line in lines)


@pytest.mark.parametrize(
    ("environment", "shard", "said"),
    [
        ({"RANK": "1", "WORLD_SIZE": "3"}, "2/3", "RANK and WORLD_SIZE"),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, "3/4", "SLURM_PROCID and SLURM_NTASKS"),
        ({f"SLURM_ARRAY_TASK_{part}": value for part, value in ARRAY.items()}, "3/4", "SLURM_ARRAY_TASK_ID"),
        ({"MHVAE_SHARD": "5/6"}, "5/6", "MHVAE_SHARD"),
    ],
)
def test_auto_asks_the_scheduler(
    mhvae: Mhvae,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    shard: str,
    said: str,
) -> None:
    scans(12)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = mhvae("segment", "scans", "-o", "m", "--dry-run", "--shard", "auto")
    assert ended.code == 0 and ended.lines == planned(mhvae, shard, "scans")
    assert ended.stderr.startswith(f"--shard auto: {shard}, from {said}") and ended.stderr.count("\n") == 1
    assert not mhvae("segment", "scans", "-o", "m", "--dry-run", "--shard", "auto", "-q").stderr


def test_auto_takes_the_first_of_several(mhvae: Mhvae, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans(3)
    found = []
    for names, values in (
        (("RANK", "WORLD_SIZE"), "01"),
        (("SLURM_PROCID", "SLURM_NTASKS"), "02"),
        ([f"SLURM_ARRAY_TASK_{part}" for part in ARRAY], "1311"),
        (("MHVAE_SHARD",), ("2/4",)),
    ):
        for name, value in zip(names, values, strict=True):
            monkeypatch.setenv(name, value)
        ended = mhvae("segment", "scans", "-o", "m", "--dry-run", "--shard", "auto")
        found.append(ended.stderr.split()[2])
    assert found == ["1/1,", "1/2,", "1/3,", "2/4,"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "not in a job"),
        ({"MHVAE_SHARD": "3/2"}, "MHVAE_SHARD 3/2"),
        ({"MHVAE_SHARD": "auto"}, "MHVAE_SHARD auto"),
        ({"RANK": "0"}, "WORLD_SIZE"),
        ({"SLURM_PROCID": "x", "SLURM_NTASKS": "2"}, "SLURM_PROCID"),
        ({f"SLURM_ARRAY_TASK_{part}": "1" for part in ("ID", "COUNT", "MIN")}, "SLURM_ARRAY_TASK_STEP"),
        ({f"SLURM_ARRAY_TASK_{part}": v for part, v in (ARRAY | {"ID": "6"}).items()}, "gaps"),
        ({f"SLURM_ARRAY_TASK_{part}": v for part, v in (ARRAY | {"ID": "11"}).items()}, "gaps"),
    ],
)
def test_auto_guesses_nothing(
    mhvae: Mhvae, here: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    scans(1)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ended = mhvae("segment", "scans", "-o", "m", "--shard", "auto")
    first, *rest = ended.stderr.splitlines()
    assert ended.code == 2 and not ended.lines and not Path("m").exists()
    assert first.startswith("error: ") and said in first and len(rest) == 1 and rest[0].startswith("hint: ")
