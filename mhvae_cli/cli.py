"""The Typer app: registers the verbs, and turns whatever ends a run into two lines and an exit code."""

import os
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from .commands.outputs import complain
from .commands.segment import segment
from .errors import MhvaeError, UsageError

BROKEN_PIPE = 128 + 13  # as a shell reports a process that SIGPIPE ended
INTERRUPTED = 130


class _Group(TyperGroup):
    """The edge of the program: no traceback passes it, with or without Typer's standalone mode."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and leave with the exit code. MHVAE_DEBUG=1 shows the traceback of a bug."""
        kwargs["standalone_mode"] = False
        try:
            code = super().main(*args, **kwargs) or 0
            sys.stdout.flush()
        except BrokenPipeError:
            code = BROKEN_PIPE
        except SystemExit as error:  # a signal's code, or the 1 of Typer and rich for a closed pipe
            code = BROKEN_PIPE if error.code == 1 else error.code
        except MhvaeError as error:
            complain(error)
            code = error.exit_code
        except Exception as error:
            code = _unexpected(error)
        if code == BROKEN_PIPE:
            _mute()
        sys.exit(code)


app = typer.Typer(
    name="mhvae",
    cls=_Group,
    help="Find, edit and generate one object in 2-D medical images.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("segment")(segment)


def _version(wanted: bool) -> None:
    if wanted:
        from . import __version__

        typer.echo(f"mhvae {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The `mhvae` command."""
    # torch reads it once, at import: without it spinning threads starve every other program
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, _terminate)
    app(prog_name="mhvae")


def _terminate(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _unexpected(error: Exception) -> int:
    """A usage error of Typer's, else a bug."""
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "mhvae"
        if message := error.format_message().rstrip("."):  # none where Typer has printed the help instead
            complain(UsageError(message, hint=f"{path} --help"))
        return UsageError.exit_code
    if os.environ.get("MHVAE_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    complain(MhvaeError(f"internal error: {type(error).__name__}: {error}", hint="MHVAE_DEBUG=1 shows where"))
    return 1


def _mute() -> None:
    """Nothing more reaches a closed stdout, not even what Python flushes when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError):  # a stream without a file, as tests have
            continue
