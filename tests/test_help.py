"""The interface as it was last reviewed: a change of a verb's help or options shows in a diff.

`UPDATE_HELP=1 python -m pytest tests/test_help.py` writes tests/help/*.txt. The pages have what `--help`
shows, without its layout, which depends on the terminal and on the versions of Typer and rich.
"""

import inspect
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from mhvae_cli.cli import VERBS

FOLDER = Path(__file__).with_name("help")


def functions() -> dict[str, Callable[..., Any]]:
    """Every verb's function by its name; those of a group, as `models list`, each by its own."""
    found: dict[str, Callable[..., Any]] = {}
    for verb in VERBS:
        name = verb.replace("-", "_")
        module = import_module(f"mhvae_cli.commands.{name}")
        found[verb] = getattr(module, name)
        for inner in module.app.registered_commands if hasattr(module, "app") else ():
            found[f"{verb} {inner.name or inner.callback.__name__}"] = inner.callback
    return found


FUNCTIONS = functions()


def page_of(function: Callable[..., Any]) -> str:
    """The docstring, then a paragraph for each argument and option: names, type, default and so on, help."""
    hints = get_type_hints(function, include_extras=True)
    paragraphs = [inspect.cleandoc(function.__doc__ or "")]
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info, *_ = get_args(hints[name])
        flags = [each for each in (info.default, *(info.param_decls or ())) if isinstance(each, str)]
        names = ", ".join(flags) or info.metavar or name.upper()
        choices = [
            arg for part in (kind, *get_args(kind)) if get_origin(part) is Literal for arg in get_args(part)
        ]
        shown = "|".join(choices) or info.metavar or getattr(kind, "__name__", str(kind))
        default = info.show_default if isinstance(info.show_default, str) else repr(parameter.default)
        facts = ["required" if parameter.default is inspect.Parameter.empty else f"default: {default}"]
        facts += [str(each) for each in (info.envvar, info.rich_help_panel) if each]
        paragraphs.append(f"{names}  {shown}  ({'; '.join(facts)})\n    {info.help or ''}".rstrip())
    return "\n\n".join(paragraphs).rstrip() + "\n"


def path_of(verb: str) -> Path:
    return FOLDER / f"{verb.replace(' ', '-')}.txt"


@pytest.mark.parametrize("verb", FUNCTIONS)
def test_the_interface_is_as_reviewed(verb: str) -> None:
    page = page_of(FUNCTIONS[verb])
    if os.environ.get("UPDATE_HELP") == "1":
        FOLDER.mkdir(exist_ok=True)
        path_of(verb).write_text(page)
    assert page == path_of(verb).read_text(), "if it is meant to change: UPDATE_HELP=1"


def test_no_page_is_left_over() -> None:
    assert {path.name for path in FOLDER.glob("*.txt")} == {path_of(verb).name for verb in FUNCTIONS}
