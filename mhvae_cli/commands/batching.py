"""The loop of every image verb: threads read and encode files while the network works on the batch between.

What is in memory at any time is bounded by the batch size alone, and results come in the order of the jobs.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from ..errors import InputError

Job = TypeVar("Job")
Input = TypeVar("Input")
Kept = TypeVar("Kept")
Result = TypeVar("Result")


def stream(
    jobs: Sequence[Job],
    *,
    load: Callable[[Job], tuple[Input, Kept]],
    run: Callable[[list[Input]], Sequence[Any]],
    finish: Callable[[Job, Kept, Any], Result],
    batch_size: int,
    workers: int,
) -> Generator[Result | InputError]:
    """One result a job, in order, or the InputError that stood in its way; other faults are raised.

    `load` (job -> what the network needs of it, and what to keep for later) and `finish` (job, kept, the
    network's row) run in `workers` threads and may raise InputError; `run` (the inputs of a batch -> a row
    each, or an InputError) in a thread of its own, a batch behind the loader. One job, or `workers` = 0,
    needs no threads. Close the generator to stop early.
    """
    threads = workers > 0 and len(jobs) > 1
    pool: Executor = ThreadPoolExecutor(workers, "mhvae-files") if threads else _Inline()
    network: Executor = ThreadPoolExecutor(1, "mhvae-network") if threads else _Inline()
    waiting, running, finishing = iter(jobs), deque[tuple[list[Job], Future[Any]]](), list[Future[Any]]()

    def start() -> None:
        if chunk := list(islice(waiting, batch_size)):
            loads = [pool.submit(load, job) for job in chunk]
            running.append((chunk, network.submit(_batch, loads, run)))

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


def _batch(loads: list[Future[tuple[Any, Any]]], run: Callable[[list[Any]], Sequence[Any]]) -> list[Any]:
    """(kept, row) or InputError for each load; the network sees those that could be read."""
    loaded: list[Any] = []
    for future in loads:
        try:
            loaded.append(future.result())
        except InputError as error:
            loaded.append(error)
    inputs = [entry[0] for entry in loaded if not isinstance(entry, InputError)]
    rows = iter(run(inputs) if inputs else ())
    return [entry if isinstance(entry, InputError) else (entry[1], next(rows)) for entry in loaded]


def _finish(finish: Callable[[Job, Any, Any], Result], job: Job, entry: Any) -> Result | InputError:
    if isinstance(entry, InputError):
        return entry
    kept, row = entry
    if isinstance(row, InputError):
        return row
    try:
        return finish(job, kept, row)
    except InputError as error:
        return error


class _Inline(Executor):
    """An executor that works at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
