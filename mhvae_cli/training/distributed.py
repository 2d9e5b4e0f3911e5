"""Training in several processes started by torchrun, and signals that stop training."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist

from ..errors import MhvaeError

TIMEOUT = timedelta(hours=4)
"""How long the other ranks wait while rank 0 validates and writes."""


@contextmanager
def process_group(device: torch.device) -> Iterator[tuple[int, int]]:
    """Join the process group if torchrun started this process; yields (rank, world size).

    Raises MhvaeError if another rank exits early.
    """
    if not dist.is_available() or ("RANK" not in os.environ and not dist.is_initialized()):
        yield 0, 1
        return
    if dist.is_initialized():
        yield dist.get_rank(), dist.get_world_size()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield dist.get_rank(), dist.get_world_size()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        message = "another process of this run exited early"
        raise MhvaeError(message, hint="see the error message of that process") from error
    finally:
        dist.destroy_process_group()


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether `flag` is true on any rank."""
    if not dist.is_initialized():
        return flag
    total = torch.tensor(float(flag), device=device)
    dist.all_reduce(total)
    return bool(total)


def mean_over_ranks(sums: dict[str, float], device: torch.device) -> dict[str, float]:
    """The mean of each value over all ranks."""
    if not dist.is_initialized():
        return sums
    values = torch.tensor(list(sums.values()), device=device, dtype=torch.float64)
    dist.all_reduce(values)
    return dict(zip(sums, (values / dist.get_world_size()).tolist(), strict=True))


@contextmanager
def catch_stop_signals() -> Iterator[list[int]]:
    """Record SIGINT and SIGTERM in the list yielded; a second signal has its default effect."""
    caught: list[int] = []
    handlers: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, handlers[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        handlers[number] = signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
