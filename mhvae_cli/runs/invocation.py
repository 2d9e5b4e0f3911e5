"""How a verb was called: the options that were given, and which of them change results."""

import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer

NEUTRAL = object()
"""Stands in the annotation of an option that changes no result, or that the result's name, sources or record
tell of by themselves. An option without it counts, so that nothing is taken for done that may not be."""


@dataclass(frozen=True)
class Invocation:
    """The options, `--seed` and so on, that have a value other than their default, as plain JSON values.

    `changing` are those of them that change results.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    changing: Mapping[str, Any] = field(default_factory=dict)


_CURRENT: ContextVar[Invocation] = ContextVar("invocation")


@contextmanager
def record(context: "typer.Context", verb: Callable[..., object]) -> Iterator[None]:
    """Keep what `verb` is called with for `current`, while it runs."""
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
    """What the verb that runs was called with; nothing if none was called from the command line."""
    return _CURRENT.get(Invocation())


def _plain(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value] or None
    return str(value) if isinstance(value, Path) else value
