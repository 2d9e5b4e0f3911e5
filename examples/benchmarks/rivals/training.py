"""The loop that trains a rival for so many minutes or images, and goes on where it was cut.

What rivals and ours share: the images and their augmentation (`Data`), the batch size, an exponential moving
average of the weights, and the choice of the best of `VALIDATIONS` validations by Dice - HD / 256, smoothed
as `mhvae_cli.training.loop` does it. Time is that of batches, steps and validations, not of saving.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mhvae_cli.checkpoints.tensors import read_metadata
from mhvae_cli.config import AugmentConfig
from mhvae_cli.evaluation.metrics import dice, hausdorff
from mhvae_cli.filesystem import place, staging, write_atomic
from mhvae_cli.training.datasets import Batch, MaskedImages
from mhvae_cli.training.distributed import catch_stop_signals
from mhvae_cli.training.loop import SMOOTHED, Diverged, order, swap_weights

from .nets import Rival

VALIDATIONS = 10
EMA = 0.995
CLIP = 1.0
SAVE_EVERY = 50.0
"""Seconds of training after which its state is saved."""
STATE, BEST, DONE = "state.safetensors", "best.safetensors", "trained.json"
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """How long a model is trained: `minutes`, or as many `images`, counted each time they are shown."""

    minutes: float | None = None
    images: int | None = None

    def progress(self, seconds: float, seen: int) -> float:
        """From 0 to 1."""
        if self.images is not None:
            return min(1.0, seen / self.images)
        assert self.minutes is not None
        return min(1.0, seconds / 60 / self.minutes)

    def __str__(self) -> str:
        return f"{self.images} images" if self.images is not None else f"{self.minutes:g} min"


@dataclass(frozen=True)
class Data:
    """The training and validation images, and how they are shown."""

    train: MaskedImages
    val: MaskedImages
    augment: AugmentConfig
    batch_size: int
    seed: int
    workers: int

    def indices(self, step: int) -> tuple[list[int], int]:
        """The images of a step's batch, and its epoch."""
        steps = max(1, len(self.train) // self.batch_size)
        epoch = step // steps
        return order(len(self.train), self.batch_size, seed=self.seed, epoch=epoch)[step % steps], epoch


@dataclass
class Trained:
    """The progress of a training; `images` counts each time one is shown."""

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    recent: list[float] = field(default_factory=list)
    validations: int = 0


class Stopped(Exception):
    """A signal ended the training; its state is saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Timer:
    """Seconds of training: those before a cut included, those while it is `paused` not."""

    def __init__(self, before: float) -> None:
        self.start = time.monotonic() - before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Files are written in nobody's time."""
        begun = time.monotonic()
        yield
        self.start += time.monotonic() - begun


def trained(out: Path) -> Trained | None:
    """What the finished training in `out` took; None if it is not finished."""
    path = out / DONE
    return Trained(**json.loads(path.read_text())) if path.exists() else None


def finish(out: Path, counters: Trained) -> None:
    """Mark the training in `out` as finished, and remove its state."""
    write_atomic(out / DONE, json.dumps(asdict(counters)).encode())
    (out / STATE).unlink(missing_ok=True)


def best_weights(out: Path) -> dict[str, Tensor]:
    return load_file(out / BEST)


def train(
    net: nn.Module,
    rival: Rival,
    data: Data,
    budget: Budget,
    out: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tell: Tell,
) -> Trained:
    """Train, or go on with the training in `out`. Raises Stopped after a signal, and Diverged."""
    net = net.to(device, memory_format=torch.channels_last)
    optimiser = rival.optimiser(net.parameters())
    base = [group["lr"] for group in optimiser.param_groups]
    resumed = (out / STATE).exists()
    if not resumed and hasattr(net, "prepare"):
        net.prepare(data.train, data.augment, data.seed)
    ema = {name: value.detach().clone() for name, value in net.state_dict().items()}
    counters = _restore(out / STATE, net, ema, optimiser) if resumed else Trained()
    if resumed:
        tell(f"goes on after {counters.steps} steps, {counters.seconds / 60:.1f} min")
    out.mkdir(parents=True, exist_ok=True)
    clock, saved = Timer(counters.seconds), counters.seconds
    with catch_stop_signals() as caught, ThreadPoolExecutor(1) as pool:
        pending = [pool.submit(_batch, data, counters.steps)]
        while (progress := budget.progress(counters.seconds, counters.images)) < 1:
            for group, rate in zip(optimiser.param_groups, base, strict=True):
                group["lr"] = rate * rival.schedule(progress)
            pending.append(pool.submit(_batch, data, counters.steps + 1))
            _step(net, pending.pop(0).result(), optimiser, device, dtype, counters.steps)
            counters.steps += 1
            counters.images += data.batch_size
            _average(ema, net, counters.steps)
            counters.seconds = clock.seconds
            progress = budget.progress(counters.seconds, counters.images)
            if progress * VALIDATIONS >= counters.validations + 1:
                counters.validations = int(progress * VALIDATIONS)
                score = _validate(net, ema, data.val, dtype)
                counters.seconds = clock.seconds
                tell(f"{counters.steps} steps, {counters.seconds / 60:.1f} min: score {score:.4f}")
                with clock.paused():
                    _choose(counters, score, ema, out)
            if caught or counters.seconds - saved >= SAVE_EVERY:
                saved = counters.seconds
                with clock.paused():
                    _save(out / STATE, net, ema, optimiser, counters)
            if caught:
                raise Stopped(caught[0])
    finish(out, counters)
    return counters


def score_of(found: np.ndarray, true: np.ndarray) -> float:
    """Mean Dice - HD / 256 of masks bool (N, S, S), as in `mhvae_cli.training.validation`."""
    scores = []
    for mask, truth in zip(found, true, strict=True):
        side = truth.shape[-1]
        one_empty = mask.any() != truth.any()
        distance = side * 2**0.5 if one_empty else hausdorff(mask, truth)
        scores.append(dice(mask, truth) - distance / side)
    return float(np.mean(scores))


def _batch(data: Data, step: int) -> Batch:
    indices, epoch = data.indices(step)
    return data.train.batch(indices, data.augment, seed=data.seed, epoch=epoch, dims=(0, 0))


def _step(
    net: Any,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
    dtype: torch.dtype,
    step: int,
) -> None:
    net.train()
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        loss = net.loss(batch)
    if not math.isfinite(float(loss.detach())):
        raise Diverged(f"the loss is not finite in step {step + 1}")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(net.parameters(), CLIP)
    optimiser.step()


@torch.no_grad()
def _average(ema: Mapping[str, Tensor], net: nn.Module, steps: int) -> None:
    decay = min(EMA, (1 + steps) / (10 + steps))
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            ema[name].lerp_(value, 1 - decay)
        else:
            ema[name].copy_(value)


def _validate(net: Any, ema: Mapping[str, Tensor], val: MaskedImages, dtype: torch.dtype) -> float:
    device = next(net.parameters()).device
    with swap_weights(net, ema):
        net.eval()
        scores = []
        for start in range(0, len(val), 16):
            indices = range(start, min(start + 16, len(val)))
            true = val.masks[list(indices)].numpy() > 127
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                found = net.segment(val.plain(indices).to(device), true.shape[1:])
            scores += [score_of(found[i : i + 1], true[i : i + 1]) for i in range(len(true))]
    return float(np.mean(scores))


def _choose(counters: Trained, score: float, ema: Mapping[str, Tensor], out: Path) -> None:
    """Keep the weights if they are the best so far by the smoothed score, but at most their own."""
    counters.recent = [*counters.recent, score][-SMOOTHED:]
    smoothed = min(score, sum(counters.recent) / len(counters.recent))
    if smoothed > counters.best or not (out / BEST).exists():
        counters.best = smoothed
        _write(out / BEST, ema, {})


def _save(
    path: Path, net: nn.Module, ema: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, counters: Trained
) -> None:
    tensors = {f"model.{name}": value for name, value in net.state_dict().items()}
    tensors |= {f"ema.{name}": value for name, value in ema.items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{i}.{k}": v for k, v in moments.items() if isinstance(v, Tensor)}
    _write(path, tensors, {"counters": json.dumps(asdict(counters))})


def _write(path: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> None:
    """Write tensors and texts to a file, atomically and without a copy of them in memory."""
    beside = staging(path)
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, beside, texts)
        place(beside, path)
    finally:
        if beside.exists():
            os.unlink(beside)


def _restore(
    path: Path, net: nn.Module, ema: Mapping[str, Tensor], optimiser: torch.optim.Optimizer
) -> Trained:
    """Load the state of a training; its counters."""
    tensors = load_file(path)
    net.load_state_dict({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
    for name, value in ema.items():
        value.copy_(tensors[f"ema.{name}"])
    state = optimiser.state_dict()
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if key.startswith("optimiser."):
            _, i, name = key.split(".")
            like = parameters[int(i)] if value.ndim else value
            state["state"].setdefault(int(i), {})[name] = torch.empty_like(like).copy_(value)
    optimiser.load_state_dict(state)
    return Trained(**json.loads(read_metadata(path)["counters"]))
