"""One training in several processes, as torchrun starts them, and the signals that stop it."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist

from ..errors import MhvaeError

PATIENCE = timedelta(hours=4)
"""How long other processes wait while the first one validates and writes."""


@contextmanager
def group(device: torch.device) -> Iterator[tuple[int, int]]:
    """(rank, world) of the process group, joined for a while if torchrun started this process.

    MhvaeError if another process ends before its time: that one's own message says why.
    """
    if not dist.is_available() or ("RANK" not in os.environ and not dist.is_initialized()):
        yield 0, 1
        return
    if dist.is_initialized():
        yield dist.get_rank(), dist.get_world_size()
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield dist.get_rank(), dist.get_world_size()
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise MhvaeError("another process of this run ended first", hint="its message says why") from error
    finally:
        dist.destroy_process_group()


def agreed(flag: bool, device: torch.device) -> bool:
    """Whether it is true in any process of the group."""
    if not dist.is_initialized():
        return flag
    total = torch.tensor(float(flag), device=device)
    dist.all_reduce(total)
    return bool(total)


def averaged(sums: dict[str, float], device: torch.device) -> dict[str, float]:
    """Each number's mean over the processes of the group."""
    if not dist.is_initialized():
        return sums
    values = torch.tensor(list(sums.values()), device=device, dtype=torch.float64)
    dist.all_reduce(values)
    return dict(zip(sums, (values / dist.get_world_size()).tolist(), strict=True))


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM; a second one has its usual effect."""
    caught: list[int] = []
    old: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        signal.signal(number, old[signal.Signals(number)])

    for number in (signal.SIGINT, signal.SIGTERM):
        old[number] = signal.signal(number, catch)
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
