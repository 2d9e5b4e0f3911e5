"""The main loop of every image verb: threads read and encode files while the network processes a batch.

Memory use is bounded by the batch size, and results are yielded in the order of the jobs.
"""

import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, ParamSpec, Protocol, TypeVar

from ..errors import DeviceError, InputError, MhvaeError, input_error, out_of_memory_kind
from .inputs import Item


class Named(Protocol):
    """A job, with an item to name in messages."""

    @property
    def item(self) -> Item: ...


Job = TypeVar("Job", bound=Named)
Input = TypeVar("Input")
Kept = TypeVar("Kept")
Row = TypeVar("Row")
Result = TypeVar("Result")
Returned = TypeVar("Returned")
P = ParamSpec("P")
Entry = tuple[Kept, Row | Exception] | Exception


def stream(
    jobs: Sequence[Job],
    *,
    load: Callable[[Job], tuple[Input, Kept]],
    run: Callable[[list[Input]], Sequence[Row | Exception]],
    finish: Callable[[Job, Kept, Row], Result],
    batch_size: int,
    workers: int,
    halved: Callable[[int], None] = lambda _size: None,
) -> Generator[Result | InputError]:
    """Yield one result per job, in order, or the InputError that is due to it (see `errors.input_error`).

    `load` (job -> network input, data to keep) and `finish` (job, kept data, output row) run in `workers`
    threads; `run` (the inputs of a batch -> one row or exception each) runs in a thread of its own, one batch
    behind the loader. A single job, or `workers` = 0, uses no threads. If a batch fails or does not fit in
    memory, `run` gets smaller ones (see `Halving`), and `halved` is called with the new batch size. Close the
    generator to stop early; it does not wait for its threads, as they may be blocked in a dead mount.
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
            start()  # one batch ahead, so that the network does not wait for files
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
        network.shutdown(wait=False, cancel_futures=True)


def _batch(
    loads: list[Future[tuple[Input, Kept]]], run: Callable[[list[Input]], Sequence[Row | Exception]]
) -> list[Entry[Kept, Row]]:
    """(kept, row) or an exception for each load; the network processes those that loaded."""
    loaded: list[tuple[Input, Kept] | Exception] = []
    for future in loads:
        try:
            loaded.append(future.result())
        except Exception as error:
            loaded.append(error)
    inputs = [entry[0] for entry in loaded if not isinstance(entry, Exception)]
    rows = iter(run(inputs) if inputs else ())
    return [entry if isinstance(entry, Exception) else (entry[1], next(rows)) for entry in loaded]


def _finish(
    finish: Callable[[Job, Kept, Row], Result],
    job: Job,
    entry: Entry[Kept, Row],
) -> Result | InputError:
    name = job.item.name
    if isinstance(entry, Exception):
        return input_error(entry, name)
    kept, row = entry
    if isinstance(row, Exception):
        return input_error(row, name)
    try:
        return finish(job, kept, row)
    except Exception as error:
        return input_error(error, name)


class Halving(Generic[Input, Row]):
    """Calls `run` on batches that fit in memory, and returns one row per input.

    A batch that does not fit is halved, later batches are not larger than that, and `halved` is called with
    the new size; the inputs of a batch that fails otherwise are processed one by one. Rows depend on this no
    more than on the batch size. The row of a single input that does not fit or fails is the exception; if
    device memory is short, which affects every input, a DeviceError is raised.
    """

    def __init__(
        self, run: Callable[[list[Input]], Sequence[Row | Exception]], halved: Callable[[int], None]
    ) -> None:
        self.run, self.halved = run, halved
        self.limit: int | None = None

    def __call__(self, inputs: list[Input]) -> list[Row | Exception]:
        """One row per input, in order."""
        rows: list[Row | Exception] = []
        while len(rows) < len(inputs):
            part = inputs[len(rows) : len(rows) + (self.limit or len(inputs))]
            found, shortage = self._try(part)
            if shortage is None:
                rows.extend(found)
                continue
            _release()
            if len(part) > 1:
                self.limit = len(part) // 2
                self.halved(self.limit)
            elif shortage == "host":
                rows.append(MemoryError())
            else:
                raise DeviceError(
                    "not enough device memory, even for a single image", hint="use --device cpu"
                )
        return rows

    def _try(self, part: list[Input]) -> tuple[Sequence[Row | Exception], str | None]:
        """The rows, or which memory is short. Memory of a failed call is released when this returns."""
        try:
            return self.run(part), None
        except MhvaeError:
            raise
        except Exception as error:
            shortage = out_of_memory_kind(error)
            if shortage is not None:
                return (), shortage
            if len(part) == 1:
                return [error], None
        return [row for single in part for row in self([single])], None


def _release() -> None:
    """Release the device memory that torch keeps cached."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()


class _Inline(Executor):
    """An executor that runs immediately, in the calling thread."""

    def submit(self, fn: Callable[P, Returned], /, *args: P.args, **kwargs: P.kwargs) -> Future[Returned]:
        future: Future[Returned] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
