"""How a verb was called: the options given, which of them change results, and their numbers' limits."""

import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    import typer

NEUTRAL = object()
"""Marks the annotation of an option that does not change results, or whose effect is already visible in the
name, sources or record of a result. Unmarked options count, so that a stale result is never taken as done."""


NUMBERS = {
    "-n": (1, 1_000_000),
    "--seed": (0, 2**63 - 1),
    "--rotate": (-360, 360),
    "--scale": (0.001, 1000),
    "--steps": (1, 100_000),
    "--tries": (1, 10_000),
    "--draws": (1, 10_000),
    "--frames": (2, 10_000),
    "--posterior": (20, 100_000),
    "--batch-size": (1, 65_536),
    "--workers": (0, 1024),
    "--threads": (1, 4096),
}
"""The least and the greatest sensible value of an option; those of others are within MAX_NUMBER of 0."""
MAX_NUMBER = 10**8


@dataclass(frozen=True)
class Invocation:
    """The `options` whose value differs from the default, such as `--seed`, as plain JSON values.

    `changing` is the subset that changes results.
    """

    options: Mapping[str, object] = field(default_factory=dict)
    changing: Mapping[str, object] = field(default_factory=dict)


_CURRENT: ContextVar[Invocation] = ContextVar("invocation")


@contextmanager
def record(context: "typer.Context", verb: Callable[..., object]) -> Iterator[None]:
    """Make the invocation of `verb` available to `current` while the block runs."""
    hints = typing.get_type_hints(verb, include_extras=True)
    options, changing = {}, {}
    for parameter in context.command.params:
        if parameter.param_type_name != "option":
            continue
        value = _plain(context.params.get(parameter.name or ""))
        if value == _plain(parameter.get_default(context)):
            continue
        option = max(parameter.opts, key=len)
        options[option] = value
        if NEUTRAL not in getattr(hints.get(parameter.name or ""), "__metadata__", ()):
            changing[option] = value
    token = _CURRENT.set(Invocation(options, changing))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def check_numbers(context: "typer.Context") -> None:
    """UsageError for an option whose number makes no sense: NaN, infinite, or outside NUMBERS."""
    for parameter in context.command.params:
        option = max(parameter.opts, key=len)
        least, most = NUMBERS.get(option, (-MAX_NUMBER, MAX_NUMBER))
        value = context.params.get(parameter.name or "")
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int | float) and not least <= number <= most:
                raise UsageError(f"{option} {number}: must be {least} to {most}")


def current() -> Invocation:
    """The invocation of the running verb; empty if it was not called from the command line."""
    return _CURRENT.get(Invocation())


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value] or None
    return str(value) if isinstance(value, Path) else value
