"""How a verb was called: the options given, and which of them change results."""

import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

NEUTRAL = object()
"""Marks the annotation of an option that does not change results, or whose effect is already visible in the
name, sources or record of a result. Unmarked options count, so that a stale result is never taken as done."""


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


def current() -> Invocation:
    """The invocation of the running verb; empty if it was not called from the command line."""
    return _CURRENT.get(Invocation())


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value] or None
    return str(value) if isinstance(value, Path) else value
