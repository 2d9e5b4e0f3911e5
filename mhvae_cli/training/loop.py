"""The training loop of both models: learning-rate schedule, EMA, exact resuming, signals, log.

All randomness in a batch is keyed on (seed, epoch, sample). A run is therefore resumed from its step count
alone, and several processes see the same batches as one.
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

from ..config import FitConfig
from ..errors import QualityError, UsageError
from ..filesystem import write_atomic
from .distributed import any_rank, catch_stop_signals, mean_over_ranks, process_group
from .state import TrainerState, TrainingRun, save, start_or_resume

DIVERGED_HINT = "try a smaller --lr"
SMOOTHED = 3
"""Number of validations whose mean score decides which is the best."""
Callback = Callable[[dict[str, Any]], None]
"""Receives the events of a run: {"phase"}, {"warning"}, {"step", "of", "epoch", "loss"}, and {"log", "best",
"of"}, where "best" is whether the model of this validation is the best so far."""


class Diverged(QualityError):
    """The loss or a validation metric is NaN or infinite (exit 8)."""


class Task(Protocol):
    """What is trained: a loss, its data, its validation and its model folder."""

    @property
    def module(self) -> nn.Module:
        """Maps a batch and the progress of the run (0 to 1) to scalar loss terms; "loss" is their total."""

    def __len__(self) -> int:
        """The number of training images."""

    def batch(self, indices: list[int], epoch: int) -> object:
        """The batch of these training images; called from worker threads."""

    def validate(self, ema: Mapping[str, Tensor], epoch: int) -> dict[str, float]:
        """Validation metrics of the EMA weights; their "score" is higher for better ones."""

    def save_model(self, ema: Mapping[str, Tensor], metrics: Mapping[str, float]) -> None:
        """Write the model folder; called after each validation that is the best so far."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `finished`, or stopped by `signal`, or (None) by the deadline."""

    finished: bool
    epoch: int
    signal: int | None = None


def fit(task: Task, run: TrainingRun, *, callback: Callback) -> Outcome:
    """Train until the last epoch, until validation stops improving, a signal or the deadline; the training
    state is saved before returning.

    `callback` receives an event after each step and each validation. Raises Diverged if the loss, the
    gradient or a validation metric is not finite; the state of the last validation and the best model are
    kept.
    """
    with process_group(run.device) as (rank, world):
        if run.config.batch_size % world:
            raise UsageError(f"batch size {run.config.batch_size} is not divisible by {world} processes")
        state = start_or_resume(task.module, run)
        counters = state.counters
        if rank == 0 and not run.resume:
            save(run, state)  # report an output folder that is not writable before the first epoch
        module = DistributedDataParallel(state.module) if world > 1 else state.module
        steps = max(1, len(task) // run.config.batch_size)
        total, started = steps * run.config.epochs, time.monotonic() - counters.seconds
        if _has_converged(run, state):
            return Outcome(True, counters.step // steps)
        with catch_stop_signals() as caught, ThreadPoolExecutor(max(1, run.workers)) as pool:
            for batch in _batches(task, run, pool, counters.step, total, steps, rank, world):
                losses = _step(run, state, module, batch, counters.step / total)
                counters.step += 1
                epoch = -(-counters.step // steps)
                due = counters.step % (steps * run.config.validate_every) == 0 or counters.step == total
                _check_finite(losses, f"epoch {epoch}, step {counters.step}", run.device)
                _update_ema(state, run.config.ema)
                for name, value in losses.items():
                    counters.sums[name] = counters.sums.get(name, 0.0) + value
                counters.seconds = time.monotonic() - started
                if rank == 0:
                    callback({"step": counters.step, "of": total, "epoch": epoch, "loss": losses["loss"]})
                late = run.deadline is not None and time.monotonic() >= run.deadline
                stop = any_rank(bool(caught) or late, run.device)
                if stop or due:
                    counters.sums = mean_over_ranks(counters.sums, run.device)
                if due and rank == 0:
                    _end_epoch(task, run, state, epoch, steps, callback)
                if due:
                    counters.sums = {}
                if not (stop or due):
                    continue
                if rank == 0:
                    save(run, state)
                # The other ranks wait here: none returns before the state is on disk.
                if any_rank(due and _has_converged(run, state), run.device):
                    return Outcome(True, epoch)
                if stop and counters.step < total:
                    return Outcome(False, epoch, caught[0] if caught else None)
    return Outcome(True, run.config.epochs)


def _has_converged(run: TrainingRun, state: TrainerState) -> bool:
    """Whether `patience` validations in turn were not better."""
    return 0 < run.config.patience <= state.counters.stale


def seconds_per_step(task: Task, run: TrainingRun) -> float:
    """The time of a training step, measured on the second of two that change nothing."""
    module = task.module.to(run.device).train()
    size = min(len(task), run.config.batch_size)
    with swap_weights(module, module.state_dict()):
        for epoch in range(2):
            started = time.monotonic()
            with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
                loss = module(task.batch(list(range(size)), epoch), 0.0)["loss"]
            loss.backward()
            module.zero_grad(set_to_none=True)
    return time.monotonic() - started


@contextmanager
def swap_weights(module: nn.Module, state: Mapping[str, Tensor]) -> Iterator[None]:
    """Temporarily replace the weights of a module."""
    original = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(state)
    try:
        yield
    finally:
        module.load_state_dict(original)


def sheet_due(epoch: int, config: FitConfig) -> bool:
    """Whether to write a contact sheet at this validation: the first, the last and about ten in between."""
    number, count = (math.ceil(each / config.validate_every) for each in (epoch, config.epochs))
    return number % max(1, count // 10) == 0 or number in (1, count)


def schedule(progress: float, warmup: float) -> float:
    """The learning-rate factor: linear warm-up over the fraction `warmup`, then cosine decay to 0.01."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def order(count: int, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The shuffled indices of an epoch's batches, without an incomplete last batch.

    With fewer samples than `batch_size`, they are repeated to fill a single batch.
    """
    indices = np.random.default_rng([seed, epoch]).permutation(count)
    if count < batch_size:
        indices = np.resize(indices, batch_size)
    usable = len(indices) // batch_size * batch_size
    return indices[:usable].reshape(-1, batch_size).tolist()


def _step(
    run: TrainingRun, state: TrainerState, module: nn.Module, batch: object, progress: float
) -> dict[str, float]:
    """Take an optimizer step and return the loss terms; without a step {} if they are not finite."""
    config, optimizer, scaler = run.config, state.optimizer, state.scaler
    for group in optimizer.param_groups:
        group["lr"] = config.lr * schedule(progress, config.lr_warmup)
    module.train()
    with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
        losses = module(batch, progress)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(losses["loss"]).backward()
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(state.module.parameters(), config.clip)
    # An infinite gradient is normal in float16: the scaler skips the step and lowers its scale.
    values = {name: float(value.detach()) for name, value in losses.items()}
    if not all(map(math.isfinite, [*values.values(), 0.0 if scaler.is_enabled() else float(norm)])):
        return {}
    scaler.step(optimizer)
    scaler.update()
    return values


def _check_finite(losses: Mapping[str, float], where: str, device: torch.device) -> None:
    if any_rank(not losses, device):
        raise Diverged(f"the loss is not finite in {where}", hint=DIVERGED_HINT)


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
    """This rank's part of every batch from `step` on, prefetched by the threads of `pool`."""
    pending: list[Future[object]] = []
    submitted, orders = step, {}
    while step < total:
        while submitted < total and len(pending) <= run.workers:
            epoch = submitted // steps
            if epoch not in orders:
                orders = {epoch: order(len(task), run.config.batch_size, seed=run.config.seed, epoch=epoch)}
            indices = orders[epoch][submitted % steps][rank::world]
            pending.append(pool.submit(task.batch, indices, epoch))
            submitted += 1
        yield pending.pop(0).result()
        step += 1


def _end_epoch(
    task: Task, run: TrainingRun, state: TrainerState, epoch: int, steps: int, callback: Callback
) -> None:
    """Validate, append to log.csv, and save the model if it is the best so far by the smoothed score.

    That is the mean score of the last validations, but at most the model's own: a lucky one is not the best.
    """
    counters = state.counters
    metrics = task.validate(state.ema, epoch)
    if not all(map(math.isfinite, metrics.values())):
        raise Diverged(f"a validation metric is not finite in epoch {epoch}", hint=DIVERGED_HINT)
    row = {"epoch": epoch, "seconds": round(counters.seconds, 1)}
    count = counters.step % (steps * run.config.validate_every) or steps * run.config.validate_every
    row |= {name: value / count for name, value in counters.sums.items()} | metrics
    counters.recent = [*counters.recent, metrics["score"]][-SMOOTHED:]
    row["smoothed"] = min(metrics["score"], sum(counters.recent) / len(counters.recent))
    _log(run.out / "log.csv", row)
    counters.stale += 1
    if best := row["smoothed"] > counters.best:
        counters.best, counters.stale = row["smoothed"], 0
        task.save_model(state.ema, {"epoch": epoch, **metrics})
    callback({"log": row, "best": best, "of": run.config.epochs})


def _log(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a CSV file atomically, without earlier rows of this or a later epoch."""
    old = []
    if path.exists():
        with path.open(newline="") as file:
            old = [r for r in csv.DictReader(file) if int(r["epoch"]) < row["epoch"]]
    names = list(row)
    lines = [names, *([r.get(n, "") for n in names] for r in old)]
    lines.append([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()])
    write_atomic(path, "".join(",".join(map(str, line)) + "\n" for line in lines).encode())


@torch.no_grad()
def _update_ema(state: TrainerState, max_decay: float) -> None:
    """Update the exponential moving average of the weights; its decay increases over the first steps."""
    decay = min(max_decay, (1 + state.counters.step) / (10 + state.counters.step))
    for name, value in state.module.state_dict().items():
        if value.is_floating_point():
            state.ema[name].lerp_(value, 1 - decay)
        else:
            state.ema[name].copy_(value)
