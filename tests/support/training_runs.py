"""Runs of the commands that train: their logs, how they are cut and resumed, and what two have in common."""

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mhvae_cli.checkpoints.tensors import load_tensors
from mhvae_cli.runs import console


def write_json(path: Path, values: Any) -> Path:
    path.write_text(json.dumps(values))
    return path


def log_rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


def same_run(one: Path, other: Path) -> None:
    """All tensors of two runs are the same to the bit, and their logs to the second."""
    names = sorted(path.name for path in one.glob("*.safetensors"))
    assert "state.safetensors" in names
    assert names == sorted(path.name for path in other.glob("*.safetensors"))
    for name in names:
        first, second = load_tensors(one / name), load_tensors(other / name)
        assert first.keys() == second.keys()
        assert not [key for key in first if not torch.equal(first[key], second[key])], name
        if name != "state.safetensors":  # which has the seconds
            assert (one / name).read_bytes() == (other / name).read_bytes(), name
    logs = [[row | {"seconds": ""} for row in log_rows(out)] for out in (one, other)]
    assert logs[0] == logs[1]


def signal_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """This process gets a signal in that step of a training."""
    tell = console.TrainingProgress.__call__

    def told(teller: console.TrainingProgress, event: dict[str, Any]) -> None:
        tell(teller, event)
        if event.get("step") == step:
            signal.raise_signal(number)

    monkeypatch.setattr(console.TrainingProgress, "__call__", told)


def cut_by_a_signal(
    train: Callable[..., Any], data: Path, out: Path, monkeypatch: pytest.MonkeyPatch, step: int, number: int
) -> Any:
    """A run that a signal cuts in its second epoch, resumed; how the second command ended."""
    with monkeypatch.context() as patched:
        signal_at(patched, step, number)
        ended = train(data, out)
    assert (ended.code, ended.lines) == (128 + number, [])
    assert ended.stderr.endswith("stopped in epoch 2; resume with --resume\n")
    ended = train(data, out, "--resume")
    assert (ended.code, ended.lines) == (0, [str(out)])
    return ended


def cut_by_max_time(train: Callable[..., Any], data: Path, out: Path, weights: str) -> None:
    """A run that --max-time cuts before it has any `weights`, resumed."""
    ended = train(data, out, "--max-time", "0.001s")
    assert (ended.code, ended.lines) == (0, []) and "resume with --resume" in ended.stderr
    assert not (out / weights).exists()
    assert train(data, out, "--resume").code == 0


def refused_to_resume(ended: Any, named: str) -> None:
    """One line and a hint name what differs."""
    assert ended.code == 7 and f"cannot resume: {named}" in ended.stderr
    assert len(ended.stderr.splitlines()) == 2
