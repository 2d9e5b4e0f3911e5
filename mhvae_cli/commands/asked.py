"""What the user asks of a verb: its options, whichever they are, so that no verb has to list them again."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typer


@dataclass(frozen=True)
class Asked:
    """The options, `--seed` and so on, that have a value other than their default, as plain JSON values."""

    options: Mapping[str, Any] = field(default_factory=dict)


_ASKED: ContextVar[Asked] = ContextVar("asked")


@contextmanager
def noted(context: "typer.Context") -> Iterator[None]:
    """Keep what a verb is called with for `asked`, while it runs."""
    options = {}
    for parameter in context.command.params:
        value = _plain(context.params.get(parameter.name or ""))
        if parameter.param_type_name == "option" and value != _plain(parameter.get_default(context)):
            options[max(parameter.opts, key=len)] = value
    token = _ASKED.set(Asked(options))
    try:
        yield
    finally:
        _ASKED.reset(token)


def asked() -> Asked:
    """What the verb that runs was called with; nothing if none was called from the command line."""
    return _ASKED.get(Asked())


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value] or None
    return str(value) if isinstance(value, Path) else value
