"""Limits on what a download from the Hub, or from a mirror of it, may take: bytes and time."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import ModelError, UsageError
from ..resources import parse_duration

TIMEOUT = "MHVAE_HUB_TIMEOUT"
DEFAULT_TIMEOUT = "1h"
METADATA_SECONDS = 60.0
"""Maximum time for the list of a model's files."""
METADATA_BYTES = 2**24
"""Maximum size of an answer that is not a file."""
COMPRESSED_BYTES = 2**20
"""Maximum size of a compressed answer, which was not asked for and may unfold to a thousand times as much."""
UNANNOUNCED_BYTES = 2**30
"""Maximum size of a file whose size the Hub does not announce."""
MODEL_BYTES = 2**34
"""Maximum size of a model that the Hub announces."""

Result = TypeVar("Result")


class LimitError(OSError):
    """A download that takes too many bytes or too much time."""


@dataclass
class Limits:
    """The bytes that one response may have, at least METADATA_BYTES, and the `time.monotonic` at which the
    last must have arrived.
    """

    size: int
    deadline: float

    def apply(self, response: Any) -> None:
        """Response hook of the Hub's client: LimitError from the body's iterator once it exceeds a limit."""
        stream = response.stream
        compressed = response.headers.get("content-encoding", "identity") != "identity"
        size = min(self.size, COMPRESSED_BYTES) if compressed else self.size

        class Limited(type(stream)):  # type: ignore[misc]  # the client's own type, whatever its library
            def __init__(self) -> None:
                self.__dict__.update(stream.__dict__)

            def __iter__(_limited) -> Iterator[bytes]:
                received = 0
                for piece in stream:
                    received += len(piece)
                    if received > size:
                        raise LimitError(f"the server sends more than the {size} bytes expected")
                    if time.monotonic() > self.deadline:
                        raise LimitError("it takes too long")
                    yield piece

        response.stream = Limited()


@contextmanager
def limited(session: Any) -> Iterator[Limits]:
    """Limit every response of the Hub's client, at first to the size and time of metadata."""
    seconds = min(METADATA_SECONDS, timeout())
    limits = Limits(METADATA_BYTES, time.monotonic() + seconds)
    hooks = session.event_hooks
    session.event_hooks = {**hooks, "response": [limits.apply, *hooks["response"]]}
    try:
        yield limits
    finally:
        session.event_hooks = hooks


def timeout() -> float:
    """Maximum time of a download in seconds, from MHVAE_HUB_TIMEOUT. UsageError if it is invalid."""
    text = os.environ.get(TIMEOUT) or DEFAULT_TIMEOUT
    seconds = parse_duration(text)
    if seconds is None:
        raise UsageError(f"{TIMEOUT}={text}: not a duration", hint="for example 90s, 30m or 2h")
    return seconds


def within_timeout(call: Callable[[], Result], ref: str) -> Result:
    """The result of `call`, made in a thread; ModelError if it has not ended after `timeout`.

    However slowly a server answers, and whatever the thread is blocked in.
    """
    seconds, future = timeout(), Future[Result]()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="mhvae-hub", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise too_slow(ref) from error


def too_slow(ref: str) -> ModelError:
    """The error for a download that exceeds its time."""
    text = os.environ.get(TIMEOUT) or DEFAULT_TIMEOUT
    hint = f"run the same command again to resume it; {TIMEOUT}=3h allows three hours"
    return ModelError(f"{ref}: the download took longer than {text}", hint=hint)
