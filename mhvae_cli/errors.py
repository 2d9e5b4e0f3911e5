"""The faults a user can meet, each with the exit code the command line gives it.

Every message is one line that names the first real cause; `hint` is one more line that says what to do.
"""

from typing import Literal


class MhvaeError(Exception):
    """Base of every fault that is the user's to mend. `exit_code` is what the process ends with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(MhvaeError):
    """Options or configuration that make no sense (exit 2)."""

    exit_code = 2


class InputError(MhvaeError):
    """One input that cannot be used (exit 3 when others could be, 4 when none)."""

    exit_code = 4


class DeviceError(MhvaeError):
    """A device or dtype that was asked for by name and is not there (exit 5)."""

    exit_code = 5


class ModelError(MhvaeError):
    """A model that is missing, damaged, unreachable or of the wrong kind (exit 6)."""

    exit_code = 6


class OutputError(MhvaeError):
    """An output that exists, collides or cannot be written (exit 7)."""

    exit_code = 7


class QualityError(MhvaeError):
    """A quality gate that the user asked for was missed (exit 8)."""

    exit_code = 8


def out_of_memory_kind(error: Exception) -> Literal["host", "device"] | None:
    """Which memory is short, by what torch and Python say; None for another fault."""
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text or "can't allocate memory" in text:
        return "host"
    short = type(error).__name__ == "OutOfMemoryError" or "out of memory" in text
    return "device" if short else None


def os_error_text(error: OSError) -> str:
    """What the system says of a failed call, in the lower case of this package's messages."""
    return (error.strerror or str(error)).lower()
