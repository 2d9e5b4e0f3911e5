"""The Typer app: registers the verbs, and turns whatever ends a run into two lines and an exit code."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from .errors import DeviceError, MhvaeError, UsageError, out_of_memory_kind
from .runs.console import print_error
from .runs.invocation import record

VERBS = {
    "segment": "Find the object in each image and write its mask.",
    "evaluate": "Score predicted masks against true ones: Dice, IoU, Hausdorff distance, HD95 and ASSD.",
    "reconstruct": "Make each image again from its code, at its own size.",
    "swap-style": "Make each image again in the style of another.",
    "interpolate": "Make the pictures on the way from one image to another, in style, position or both.",
    "warp": "Move, turn, scale or bend the object of each image.",
    "sample": "Draw new pictures and their masks, to train with.",
    "inspect": "Tell how a file was made, or what a model is.",
    "models": "List, check, fetch and carry models.",
    "doctor": "Tell what mhvae finds on this machine, and test its devices.",
    "train-vae": "Train a model on a folder of images and masks.",
    "train-cddpm": "Train the diffusion model that sharpens a VAE's pictures.",
    "cross-validate": "Train on all folds but one and test on that one, in turn; mean +- population sd"
    " over the folds.",
}
"""The verbs in the order of the help, each with its docstring's first paragraph; verb a-b is function a_b of
commands/a_b.py, which is imported when it is asked for."""

BROKEN_PIPE = 128 + 13  # as a shell reports a process that SIGPIPE ended


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
            print_error(error)
            code = error.exit_code
        except Exception as error:
            code = _unexpected(error)
        if code == BROKEN_PIPE:
            _mute()
        sys.exit(code)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put the verb in the place of its line in the help."""
        if args[0] in VERBS:
            self.add_command(_load(args[0]), args[0])
        return super().resolve_command(ctx, args)


class _Verb(TyperCommand):
    """A verb: how it is called is recorded, for the manifest and the fingerprint of the run."""

    function: Callable[..., object]

    def invoke(self, ctx: Any) -> Any:
        """Run it."""
        with record(ctx, self.function):
            return super().invoke(ctx)


app = typer.Typer(
    name="mhvae",
    cls=_Group,
    help="Find, edit and generate one object in 2-D medical images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb, _help in VERBS.items():
    app.command(_verb, help=_help)(lambda: None)


def _load(verb: str) -> Any:
    name = verb.replace("-", "_")
    module = import_module(f".commands.{name}", __package__)
    if hasattr(module, "app"):  # it has verbs of its own
        group = typer.main.get_command(module.app)
        group.epilog = _epilog(module.EXAMPLES)
        return group
    single = typer.Typer(add_completion=False)
    single.command(verb, cls=_Verb, epilog=_epilog(module.EXAMPLES))(getattr(module, name))
    command = typer.main.get_command(single)
    vars(command)["function"] = getattr(module, name)
    return command


def _epilog(examples: Sequence[str]) -> str:
    """The end of a verb's help, a line a paragraph, as Typer splits it."""
    return "\n\n".join(["Examples:", *examples])


def _version(wanted: bool) -> None:
    if wanted:
        from .version import version

        typer.echo(f"mhvae {version()}")
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
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries mutter is no message of this program
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
            print_error(UsageError(message, hint=f"{path} --help"))
        return UsageError.exit_code
    if os.environ.get("MHVAE_DEBUG") == "1":
        import traceback

        traceback.print_exc()
    if out_of_memory_kind(error):
        print_error(DeviceError("out of memory", hint="end other programs, or --device cpu"))
        return DeviceError.exit_code
    print_error(
        MhvaeError(f"internal error: {type(error).__name__}: {error}", hint="MHVAE_DEBUG=1 shows where")
    )
    return 1


def _mute() -> None:
    """Nothing more reaches a closed stdout, not even what Python flushes when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError):  # a stream without a file, as tests have
            continue
