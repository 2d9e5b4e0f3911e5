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


class InternalError(InputError):
    """A bug that one input brought to light; its cause is the exception (exit 1 if all inputs failed so)."""

    exit_code = 1


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


def input_error(error: Exception, name: str) -> InputError:
    """An exception raised while the input `name` was processed, as the reason why this input failed.

    Raises the exception itself if it concerns every input: out of device memory, and any error of this
    package but InputError.
    """
    if isinstance(error, InputError):
        return error
    shortage = out_of_memory_kind(error)
    if isinstance(error, MhvaeError) or shortage == "device" or type(error).__name__ == "AcceleratorError":
        raise error
    if shortage == "host":
        hint = "close other programs, or use a machine with more memory"
        return InputError(f"{name}: not enough memory for this image", hint=hint)
    found = InternalError(f"{name}: {internal_error_text(error)}", hint="--verbose shows the traceback")
    found.__cause__ = error
    return found


def internal_error_text(error: Exception) -> str:
    """A bug in one line."""
    return " ".join(f"internal error: {type(error).__name__}: {error}".split())


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


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of a process that an error ends; None if it is unknown."""
    if isinstance(error, MhvaeError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else None
    return 130 if isinstance(error, KeyboardInterrupt) else 141 if isinstance(error, BrokenPipeError) else 1
