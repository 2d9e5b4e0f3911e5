"""One fit loop for both trainings: schedule, EMA, exact resume, signals, log.

Everything random in a batch is keyed on (seed, epoch, sample), so a run's place is its step alone, and N
processes see the batches that one would.
"""

import csv
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoint import load_tensors, read_metadata, save_state
from .config import TrainConfig
from .errors import MhvaeError, OutputError, UsageError
from .files import write_atomic

STATE = "state.safetensors"


class Diverged(MhvaeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Run:
    """Where and how one training runs; `identity` is what a resumed run must share with the first."""

    out: Path
    config: TrainConfig
    identity: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    resume: bool = False
    max_time: float | None = None
    workers: int = 2


@dataclass
class Place:
    """How far a run has come; `sums` are the epoch's loss parts so far, `best` the best validation score."""

    step: int = 0
    best: float = -math.inf
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


class Task(Protocol):
    """What is trained. `module` maps a batch and the run's progress (0-1) to named loss parts, "loss" first."""

    module: nn.Module

    def __len__(self) -> int: ...

    def batch(self, indices: list[int], epoch: int) -> Any: ...

    def validate(self, ema: Mapping[str, Tensor], epoch: int) -> dict[str, float]: ...

    def keep(self, ema: Mapping[str, Tensor], figures: Mapping[str, float]) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `finished`, or stopped by `signal` or the clock."""

    finished: bool
    epoch: int
    signal: int | None = None


def fit(task: Task, run: Run, *, say: Callable[[dict[str, Any]], None]) -> Outcome:
    """Train until the last epoch, a signal or `max_time`; the state is on disk whenever this returns.

    `say` receives a dict after each step and each epoch. Raises Diverged if the loss becomes NaN or infinite.
    """
    config, rank, world = run.config, *_group()
    if config.batch_size % world:
        raise UsageError(f"a batch of {config.batch_size} does not divide among {world} processes")
    steps = max(1, len(task) // config.batch_size)
    module = task.module.to(run.device)
    trained = nn.parallel.DistributedDataParallel(module) if world > 1 else module
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(_decay_groups(module, config.weight_decay), lr=config.lr)
    scaler = torch.amp.GradScaler(run.device.type, enabled=run.dtype == torch.float16)
    ema = {name: value.detach().clone() for name, value in module.state_dict().items()}
    place = Place()
    if run.resume:
        place = _restore(run, module, optimizer, ema)
    total, began, spent = steps * config.epochs, time.monotonic(), place.seconds

    with _signals() as caught, ThreadPoolExecutor(max(1, run.workers)) as pool:
        batches = _batches(task, run, pool, place.step, total, steps, rank, world)
        while place.step < total:
            for group in optimizer.param_groups:
                group["lr"] = config.lr * schedule(place.step / total, config.lr_warmup)
            module.train()
            with torch.autocast(run.device.type, run.dtype, enabled=run.dtype != torch.float32):
                parts = trained(next(batches), place.step / total)
            loss = parts["loss"]
            if not bool(torch.isfinite(loss.detach())):
                where = f"epoch {place.step // steps + 1}, step {place.step}"
                raise Diverged(f"the loss is {float(loss)} at {where}", hint="a smaller --lr may help")
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, config.clip)
            scaler.step(optimizer)
            scaler.update()
            place.step += 1
            _update_ema(ema, module, min(config.ema, (1 + place.step) / (10 + place.step)))
            for name, value in parts.items():
                place.sums[name] = place.sums.get(name, 0.0) + float(value.detach())
            place.seconds = spent + time.monotonic() - began
            epoch = -(-place.step // steps)
            if rank == 0:
                say({"step": place.step, "of": total, "epoch": epoch, "seconds": place.seconds})
            late = run.max_time is not None and time.monotonic() - began > run.max_time
            stop = _agreed(bool(caught) or late, run.device)
            if place.step % steps == 0:
                place.sums = _averaged(place.sums, run.device)
                _close_epoch(task, run, place, ema, epoch, steps, say, rank)
            if (stop or place.step % steps == 0) and rank == 0:
                _save(run, place, module, optimizer, ema)
            if stop and place.step < total:
                return Outcome(False, epoch, caught[0] if caught else None)
    return Outcome(True, config.epochs)


def schedule(progress: float, warmup: float) -> float:
    """The learning rate's factor: a linear rise over `warmup`, then half a cosine down to 0.01."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def order(count: int, batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """The epoch's batches of indices: a permutation, its rest left out (repeated if there are too few)."""
    indices = np.random.default_rng([seed, epoch]).permutation(count)
    if count < batch_size:
        indices = np.resize(indices, batch_size)
    usable = len(indices) // batch_size * batch_size
    return indices[:usable].reshape(-1, batch_size).tolist()


def check_out(run: Run) -> None:
    """Refuse the folder of another run, or one to resume that holds none."""
    state = run.out / STATE
    if not run.resume:
        if run.out.exists() and (not run.out.is_dir() or any(run.out.iterdir())):
            hint = "--resume goes on with it" if state.exists() else "name a new folder"
            raise OutputError(f"{run.out}: exists and is not empty", hint=hint)
        return
    if not state.exists():
        raise UsageError(f"{run.out}: nothing to resume", hint="leave out --resume to begin a run")
    before = json.loads(read_metadata(state)["identity"])
    changed = [key for key in {**before, **run.identity} if before.get(key) != run.identity.get(key)]
    if changed:
        raise OutputError(
            f"{run.out}: another run: {', '.join(sorted(changed))} differ",
            hint="resume with the options it was begun with",
        )


def _batches(
    task: Task, run: Run, pool: ThreadPoolExecutor, step: int, total: int, steps: int, rank: int, world: int
) -> Iterator[Any]:
    """This process's share of every batch from `step` on, a few made ahead by the pool's threads."""
    waiting: list[Future[Any]] = []
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
    run: Run,
    place: Place,
    ema: Mapping[str, Tensor],
    epoch: int,
    steps: int,
    say: Callable[[dict[str, Any]], None],
    rank: int,
) -> None:
    if rank == 0:
        figures = task.validate(ema, epoch)
        row = {"epoch": epoch, "seconds": round(place.seconds, 1)}
        row |= {name: value / steps for name, value in place.sums.items()} | figures
        _log(run.out / "log.csv", row)
        if figures["score"] > place.best:
            place.best = figures["score"]
            task.keep(ema, {"epoch": epoch, **figures})
        say({"log": row, "best": place.best, "of": run.config.epochs})
    place.sums = {}


def _log(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row, the whole file replaced at once; rows of epochs that are run again are dropped."""
    old = []
    if path.exists():
        with path.open(newline="") as file:
            old = [r for r in csv.DictReader(file) if int(r["epoch"]) < row["epoch"]]
    names = list(row)
    lines = [names, *([r.get(n, "") for n in names] for r in old)]
    lines.append([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()])
    write_atomic(path, "".join(",".join(map(str, line)) + "\n" for line in lines).encode())


def _save(
    run: Run, place: Place, module: nn.Module, optimizer: torch.optim.Optimizer, ema: Mapping[str, Tensor]
) -> None:
    tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in ema.items()}
    for i, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
    where = {**vars(place), "best": None if math.isinf(place.best) else place.best}
    texts = {"place": json.dumps(where), "identity": json.dumps(dict(run.identity))}
    save_state(run.out / STATE, tensors, texts)


def _restore(
    run: Run, module: nn.Module, optimizer: torch.optim.Optimizer, ema: dict[str, Tensor]
) -> Place:
    path = run.out / STATE
    tensors = load_tensors(path)
    module.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    for name in ema:
        ema[name].copy_(tensors[f"ema.{name}"])
    state = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            state["state"].setdefault(int(i), {})[name] = value
    optimizer.load_state_dict(state)
    place = json.loads(read_metadata(path)["place"])
    return Place(**{**place, "best": -math.inf if place["best"] is None else place["best"]})


@torch.no_grad()
def _update_ema(ema: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            ema[name].lerp_(value, 1 - decay)
        else:
            ema[name].copy_(value)


def _decay_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only, not on biases and norms."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; a second one acts as it always did."""
    caught: list[int] = []
    old: dict[int, Any] = {}

    def catch(number: int, _frame: Any) -> None:
        caught.append(number)
        signal.signal(number, old[number])

    for number in (signal.SIGINT, signal.SIGTERM):
        old[number] = signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _group() -> tuple[int, int]:
    """(rank, world) of the process group; one is joined if torchrun started this process."""
    dist = torch.distributed
    if "RANK" in os.environ and dist.is_available() and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _agreed(stop: bool, device: torch.device) -> bool:
    """Whether any process of the group wants to stop."""
    if not torch.distributed.is_initialized():
        return stop
    flag = torch.tensor(float(stop), device=device)
    torch.distributed.all_reduce(flag)
    return bool(flag)


def _averaged(sums: dict[str, float], device: torch.device) -> dict[str, float]:
    """Each sum's mean over the processes of the group."""
    if not torch.distributed.is_initialized():
        return sums
    values = torch.tensor(list(sums.values()), device=device)
    torch.distributed.all_reduce(values)
    return dict(zip(sums, (values / torch.distributed.get_world_size()).tolist(), strict=True))
