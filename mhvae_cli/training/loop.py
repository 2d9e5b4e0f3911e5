"""One fit loop for both trainings: schedule, EMA, exact resume, signals, log.

Everything random in a batch is keyed on (seed, epoch, sample), so a run's place is its step alone, and N
processes see the batches that one would.
"""

import csv
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import QualityError, UsageError
from ..filesystem import write_atomic
from .distributed import agreed, averaged, group, stop_signals
from .state import TrainerState, TrainingRun, begin, save

MILDER = "a smaller --lr may help"
Say = Callable[[dict[str, Any]], None]


class Diverged(QualityError):
    """The loss is NaN or infinite (exit 8: neither a bug nor a damaged file)."""


class Task(Protocol):
    """`module` maps a batch and the run's progress (0-1) to named loss parts, "loss" first."""

    @property
    def module(self) -> nn.Module: ...

    def __len__(self) -> int: ...

    def batch(self, indices: list[int], epoch: int) -> object: ...

    def validate(self, ema: Mapping[str, Tensor], epoch: int) -> dict[str, float]: ...

    def keep(self, ema: Mapping[str, Tensor], figures: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `finished`, or stopped by `signal` or the clock."""

    finished: bool
    epoch: int
    signal: int | None = None


def fit(task: Task, run: TrainingRun, *, say: Say) -> Outcome:
    """Train until the last epoch, a signal or the deadline; the state is on disk whenever this returns.

    `say` receives a dict after each step and each epoch. Raises Diverged if the loss or a gradient is NaN or
    infinite: the state of the last whole epoch and the best model stay.
    """
    with group(run.device) as (rank, world):
        if run.config.batch_size % world:
            raise UsageError(f"a batch of {run.config.batch_size} does not divide among {world} processes")
        live = begin(task.module, run)
        place, tell = live.place, say if rank == 0 else _silent
        if rank == 0 and not run.resume:
            save(run, live)  # a folder that cannot be written shows now, not after an epoch
        trained = DistributedDataParallel(live.module) if world > 1 else live.module
        steps = max(1, len(task) // run.config.batch_size)
        total, begun = steps * run.config.epochs, time.monotonic() - place.seconds
        with stop_signals() as caught, ThreadPoolExecutor(max(1, run.workers)) as pool:
            for batch in _batches(task, run, pool, place.step, total, steps, rank, world):
                parts = _step(run, live, trained, batch, place.step / total)
                place.step += 1
                epoch, whole = -(-place.step // steps), place.step % steps == 0
                _check(parts, f"epoch {epoch}, step {place.step}", run.device)
                _update_ema(live, run.config.ema)
                for name, value in parts.items():
                    place.sums[name] = place.sums.get(name, 0.0) + value
                place.seconds = time.monotonic() - begun
                tell({"step": place.step, "of": total, "epoch": epoch, "loss": parts["loss"]})
                late = run.deadline is not None and time.monotonic() >= run.deadline
                stop = agreed(bool(caught) or late, run.device)
                if stop or whole:
                    place.sums = averaged(place.sums, run.device)
                if whole and rank == 0:
                    _close_epoch(task, run, live, epoch, steps, tell)
                if whole:
                    place.sums = {}
                if (stop or whole) and rank == 0:
                    save(run, live)
                if stop and place.step < total:
                    return Outcome(False, epoch, caught[0] if caught else None)
    return Outcome(True, run.config.epochs)


def _silent(_event: dict[str, Any]) -> None:
    pass


@contextmanager
def weights(module: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Temporarily replace the module's weights."""
    own = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(state)
    try:
        yield
    finally:
        module.load_state_dict(own)


def sheet_due(epoch: int, epochs: int) -> bool:
    """Whether a contact sheet is made after this epoch: the first, the last and about ten in between."""
    return epoch % max(1, epochs // 10) == 0 or epoch in (1, epochs)


def schedule(progress: float, warmup: float) -> float:
    """The learning rate's factor: a linear rise over `warmup`, then half a cosine down to 0.01."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def order(count: int, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The epoch's batches of indices: a permutation without an incomplete batch (repeated if too short)."""
    indices = np.random.default_rng([seed, epoch]).permutation(count)
    if count < batch_size:
        indices = np.resize(indices, batch_size)
    usable = len(indices) // batch_size * batch_size
    return indices[:usable].reshape(-1, batch_size).tolist()


def _step(
    run: TrainingRun, live: TrainerState, trained: nn.Module, batch: object, progress: float
) -> dict[str, float]:
    """One step of the optimiser: the loss parts, {} if they or the gradient are not finite (no step then)."""
    config, optimizer, scaler = run.config, live.optimizer, live.scaler
    for parameters in optimizer.param_groups:
        parameters["lr"] = config.lr * schedule(progress, config.lr_warmup)
    trained.train()
    with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
        parts = trained(batch, progress)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(parts["loss"]).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(live.module.parameters(), config.clip)
    # In float16 a gradient overflows now and then: the scaler then leaves the step out.
    values = {name: float(value.detach()) for name, value in parts.items()}
    if not all(map(math.isfinite, [*values.values(), 0.0 if scaler.is_enabled() else float(norm)])):
        return {}
    scaler.step(optimizer)
    scaler.update()
    return values


def _check(parts: Mapping[str, float], where: str, device: torch.device) -> None:
    if agreed(not parts, device):
        raise Diverged(f"the loss is not a number any more in {where}", hint=MILDER)


def _batches(
    task: Task,
    run: TrainingRun,
    pool: ThreadPoolExecutor,
    step: int,
    total: int,
    steps: int,
    rank: int,
    world: int,
) -> Iterator[object]:
    """This process's share of every batch from `step` on, a few prepared ahead by the threads."""
    waiting: list[Future[object]] = []
    ahead, plans = step, {}
    while step < total:
        while ahead < total and len(waiting) <= run.workers:
            epoch = ahead // steps
            if epoch not in plans:
                plans = {epoch: order(len(task), run.config.batch_size, seed=run.config.seed, epoch=epoch)}
            share = plans[epoch][ahead % steps][rank::world]
            waiting.append(pool.submit(task.batch, share, epoch))
            ahead += 1
        yield waiting.pop(0).result()
        step += 1


def _close_epoch(
    task: Task,
    run: TrainingRun,
    live: TrainerState,
    epoch: int,
    steps: int,
    say: Say,
) -> None:
    place = live.place
    figures = task.validate(live.ema, epoch)
    if not all(map(math.isfinite, figures.values())):
        raise Diverged(f"validation gives no numbers any more in epoch {epoch}", hint=MILDER)
    row = {"epoch": epoch, "seconds": round(place.seconds, 1)}
    row |= {name: value / steps for name, value in place.sums.items()} | figures
    _log(run.out / "log.csv", row)
    if figures["score"] > place.best:
        place.best = figures["score"]
        task.keep(live.ema, {"epoch": epoch, **figures})
    say({"log": row, "best": place.best, "of": run.config.epochs})


def _log(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row, replacing the file atomically; rows of repeated epochs are dropped."""
    old = []
    if path.exists():
        with path.open(newline="") as file:
            old = [r for r in csv.DictReader(file) if int(r["epoch"]) < row["epoch"]]
    names = list(row)
    lines = [names, *([r.get(n, "") for n in names] for r in old)]
    lines.append([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()])
    write_atomic(path, "".join(",".join(map(str, line)) + "\n" for line in lines).encode())


@torch.no_grad()
def _update_ema(live: TrainerState, most: float) -> None:
    """The running mean of the weights; with a shorter memory in the first steps."""
    decay = min(most, (1 + live.place.step) / (10 + live.place.step))
    for name, value in live.module.state_dict().items():
        if value.is_floating_point():
            live.ema[name].lerp_(value, 1 - decay)
        else:
            live.ema[name].copy_(value)
