"""The errors that users can encounter, each with its exit code on the command line.

Every message is one line that names the root cause; `hint` is one more line that says what to do.
"""

from typing import Literal


class MhvaeError(Exception):
    """Base class of every error that the user can fix. `exit_code` is the exit status of the process."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(MhvaeError):
    """Invalid options or configuration (exit 2)."""

    exit_code = 2


class InputError(MhvaeError):
    """An input that cannot be used (exit 3 if others could be, 4 if none could)."""

    exit_code = 4


class DeviceError(MhvaeError):
    """A device or dtype that was requested by name and is not available (exit 5)."""

    exit_code = 5


class ModelError(MhvaeError):
    """A model that is missing, damaged, unreachable or of the wrong type (exit 6)."""

    exit_code = 6


class OutputError(MhvaeError):
    """An output that already exists, clashes with another or cannot be written (exit 7)."""

    exit_code = 7


class QualityError(MhvaeError):
    """A quality threshold set by the user was not met (exit 8)."""

    exit_code = 8


def out_of_memory_kind(error: Exception) -> Literal["host", "device"] | None:
    """Which memory ran out; None for any other error."""
    # If the host's allocator fails, torch raises a RuntimeError that only its text tells from others.
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text or "can't allocate memory" in text:
        return "host"
    short = type(error).__name__ == "OutOfMemoryError" or "out of memory" in text
    return "device" if short else None


def os_error_text(error: OSError) -> str:
    """The system's message for a failed call, in lower case as in all of this package's messages."""
    return (error.strerror or str(error)).lower()
