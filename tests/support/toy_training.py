"""A toy to train: its task, its run, its log, and what two runs have in common."""

import csv
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mhvae_cli.checkpoints.tensors import load_tensors, save_state
from mhvae_cli.config import TrainConfig
from mhvae_cli.training.state import STATE, TrainingRun
from mhvae_cli.vae.encoder import BatchNorm2d

COUNT, BATCH = 13, 4  # three steps an epoch, one sample left over
CONFIG = TrainConfig(epochs=4, batch_size=BATCH, lr=0.02, ema=0.8, clip=0.5)


class Toy(nn.Module):
    """A convolution, a batch norm, a linear layer; `spoil(step)` is added to the loss."""

    def __init__(self, spoil: Callable[[int], Tensor | float] = lambda _step: 0.0) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = BatchNorm2d(8)
        self.last = nn.Linear(8, 1)
        self.spoil, self.calls = spoil, 0
        self.to(memory_format=torch.channels_last)

    def forward(self, batch: tuple[Tensor, Tensor], progress: float) -> dict[str, Tensor]:
        image, goal = batch
        found = self.last(torch.relu(self.norm(self.conv(image))).mean((2, 3)))[:, 0]
        self.calls += 1
        miss = (found - goal).square().mean()
        return {"loss": miss + 0.1 * progress + self.spoil(self.calls), "miss": miss}


class ToyTask:
    """Images keyed on (sample, epoch); the kept model is the EMA weights on disk."""

    def __init__(self, out: Path, spoil: Callable[[int], Tensor | float] = lambda _step: 0.0) -> None:
        self.module, self.out = Toy(spoil), out

    def __len__(self) -> int:
        return COUNT

    def batch(self, indices: list[int], epoch: int) -> tuple[Tensor, Tensor]:
        draws = [torch.Generator().manual_seed(1000 * epoch + i) for i in indices]
        images = torch.stack([torch.randn(3, 6, 6, generator=g) for g in draws])
        return images.to(memory_format=torch.channels_last), images.mean((1, 2, 3)) * 5

    def validate(self, ema: Mapping[str, Tensor], epoch: int) -> dict[str, float]:
        return {"val": float(ema["last.bias"]), "score": -((epoch - 2.4) ** 2)}  # epoch 2 is the best

    def save_model(self, ema: Mapping[str, Tensor], figures: Mapping[str, float]) -> None:
        save_state(self.out / "kept.safetensors", ema, {"epoch": str(figures["epoch"])})


def toy_run(out: Path, **changes: Any) -> TrainingRun:
    settings = {"config": CONFIG, "identity": {"kind": "toy"}, "device": torch.device("cpu")}
    return TrainingRun(out, **{**settings, "dtype": torch.float32, **changes})


def quiet(_event: dict[str, Any]) -> None:
    pass


def signal_at(step: int, number: int = signal.SIGTERM) -> Callable[[dict[str, Any]], None]:
    def say(event: dict[str, Any]) -> None:
        if event.get("step") == step:
            signal.raise_signal(number)

    return say


def log_of(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def same_run(one: Path, other: Path) -> None:
    for name in (STATE, "kept.safetensors"):
        first, second = load_tensors(one / name), load_tensors(other / name)
        assert first.keys() == second.keys()
        different = [key for key in first if not torch.equal(first[key], second[key])]
        assert not different, f"{name}: {different}"
    assert log_of(one) == log_of(other)
