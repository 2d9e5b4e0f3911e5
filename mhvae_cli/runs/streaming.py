"""The loop of every image verb: threads read and encode files while the network works on the batch between.

What is in memory at any time is bounded by the batch size alone, and results come in the order of the jobs.
"""

import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, ParamSpec, Protocol, TypeVar

from ..errors import DeviceError, InputError, out_of_memory_kind
from .inputs import Item


class Named(Protocol):
    """What a job has for messages."""

    @property
    def item(self) -> Item: ...


Job = TypeVar("Job", bound=Named)
Input = TypeVar("Input")
Kept = TypeVar("Kept")
Row = TypeVar("Row")
Result = TypeVar("Result")
Returned = TypeVar("Returned")
P = ParamSpec("P")
Entry = tuple[Kept, Row | InputError | MemoryError] | InputError


def stream(
    jobs: Sequence[Job],
    *,
    load: Callable[[Job], tuple[Input, Kept]],
    run: Callable[[list[Input]], Sequence[Row | InputError | MemoryError]],
    finish: Callable[[Job, Kept, Row], Result],
    batch_size: int,
    workers: int,
    halved: Callable[[int], None] = lambda _size: None,
) -> Generator[Result | InputError]:
    """One result a job, in order, or the InputError that stood in its way; other faults are raised.

    `load` (job -> what the network needs of it, and what to keep for later) and `finish` (job, kept, the
    network's row) run in `workers` threads and may raise InputError; `run` (the inputs of a batch -> a row
    each, or an InputError) in a thread of its own, a batch behind the loader. One job, or `workers` = 0,
    needs no threads. Where there is no memory for a batch, `run` gets fewer at a time (see `Halving`), and
    `halved` hears how many. Close the generator to stop early.
    """
    halving = Halving(run, halved)
    threads = workers > 0 and len(jobs) > 1
    pool: Executor = ThreadPoolExecutor(workers, "mhvae-files") if threads else _Inline()
    network: Executor = ThreadPoolExecutor(1, "mhvae-network") if threads else _Inline()
    waiting = iter(jobs)
    running: deque[tuple[list[Job], Future[list[Entry[Kept, Row]]]]] = deque()
    finishing: list[Future[Result | InputError]] = []

    def start() -> None:
        if chunk := list(islice(waiting, batch_size)):
            loads = [pool.submit(load, job) for job in chunk]
            running.append((chunk, network.submit(_batch, loads, halving)))

    try:
        start()
        if threads:
            start()  # the network never waits for a file to be read while there are more
        while running or finishing:
            ready, finishing = finishing, []
            if running:
                chunk, rows = running.popleft()
                finishing = [
                    pool.submit(_finish, finish, job, row)
                    for job, row in zip(chunk, rows.result(), strict=True)
                ]
                start()
            for future in ready:
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        network.shutdown(cancel_futures=True)
        pool.shutdown()


def _batch(
    loads: list[Future[tuple[Input, Kept]]], run: Callable[[list[Input]], Sequence[Row]]
) -> list[tuple[Kept, Row] | InputError]:
    """(kept, row) or InputError for each load; the network sees those that could be read."""
    loaded: list[tuple[Input, Kept] | InputError] = []
    for future in loads:
        try:
            loaded.append(future.result())
        except InputError as error:
            loaded.append(error)
    inputs = [entry[0] for entry in loaded if not isinstance(entry, InputError)]
    rows = iter(run(inputs) if inputs else ())
    return [entry if isinstance(entry, InputError) else (entry[1], next(rows)) for entry in loaded]


def _finish(
    finish: Callable[[Job, Kept, Row], Result],
    job: Job,
    entry: Entry[Kept, Row],
) -> Result | InputError:
    if isinstance(entry, InputError):
        return entry
    kept, row = entry
    if isinstance(row, InputError):
        return row
    if isinstance(row, MemoryError):
        name = job.item.name
        return InputError(f"{name}: {row}", hint="end other programs, or take a machine with more memory")
    try:
        return finish(job, kept, row)
    except InputError as error:
        return error


class Halving(Generic[Input, Row]):
    """Calls `run` with as many inputs at once as there is memory for, and gives a row for each.

    Where there is none for a batch, its halves are tried, and no later batch is larger; `told` hears of that.
    Rows do not depend on it more than they do on the size of a batch. One input that is too much by itself
    has a MemoryError for a row; DeviceError if it is the device's memory, which is the same for all.
    """

    def __init__(self, run: Callable[[list[Input]], Sequence[Row]], told: Callable[[int], None]) -> None:
        self.run, self.told = run, told
        self.most: int | None = None

    def __call__(self, inputs: list[Input]) -> list[Row | MemoryError]:
        """A row an input, in order."""
        rows: list[Row | MemoryError] = []
        while len(rows) < len(inputs):
            part = inputs[len(rows) : len(rows) + (self.most or len(inputs))]
            found, lack = self._tried(part)
            if lack is None:
                rows.extend(found)
                continue
            _release()
            if len(part) > 1:
                self.most = len(part) // 2
                self.told(self.most)
            elif lack == "host":
                rows.append(MemoryError("not enough memory for this one"))
            else:
                raise DeviceError("the device has not enough memory, even for one", hint="--device cpu")
        return rows

    def _tried(self, part: list[Input]) -> tuple[Sequence[Row], str | None]:
        """The rows, or which memory they lack. What the failed call held is free when this has returned."""
        try:
            return self.run(part), None
        except (MemoryError, RuntimeError) as error:
            lack = out_of_memory_kind(error)
            if lack is None:
                raise
            return (), lack


def _release() -> None:
    """Give back what torch keeps of the device's memory for later."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()


class _Inline(Executor):
    """An executor that works at once, in the caller's thread."""

    def submit(self, fn: Callable[P, Returned], /, *args: P.args, **kwargs: P.kwargs) -> Future[Returned]:
        future: Future[Returned] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
