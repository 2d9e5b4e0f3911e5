"""The Typer app: registers the verbs and turns errors into a message, a hint and an exit code."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import takewhile
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from .errors import DeviceError, MhvaeError, UsageError, internal_error_text, out_of_memory_kind
from .runs.console import end_if_blocked, end_soon, print_error, print_note, stop
from .runs.invocation import check_numbers, record

VERBS = {
    "segment": "Segment the object in each image and write its mask.",
    "evaluate": "Score predicted masks against ground truth: Dice, IoU, Hausdorff distance, HD95 and ASSD.",
    "reconstruct": "Reconstruct each image from its latent code, at its original size.",
    "swap-style": "Render each image in the style of another.",
    "interpolate": "Interpolate between two images in style, position or both.",
    "warp": "Move, rotate, scale or deform the object in each image.",
    "sample": "Generate synthetic images with masks, for example as training data.",
    "status": "Show whether a folder of results is whole: which inputs are done, failed or missing.",
    "inspect": "Show a file's provenance, or describe a model.",
    "models": "List, verify, download and transfer models.",
    "doctor": "Show the system configuration and test the compute devices.",
    "train-vae": "Train a segmentation model on a folder of images and masks.",
    "train-cddpm": "Train the diffusion model that sharpens the images of a VAE.",
    "cross-validate": "Run k-fold cross-validation; report the mean and population sd over the folds.",
}
"""The verbs in help order, each with the first paragraph of its docstring. Verb a-b is function a_b of
commands/a_b.py, which is imported on first use."""

BROKEN_PIPE = 128 + 13  # as a shell reports a process killed by SIGPIPE


class _Group(TyperGroup):
    """The outermost error handler: no traceback escapes it, with or without Typer's standalone mode."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run, and exit with the exit code. MHVAE_DEBUG=1 shows the traceback of an internal error."""
        kwargs["standalone_mode"] = False
        words = list(kwargs.get("args") or sys.argv[1:])
        try:
            code = super().main(*args, **kwargs) or 0
            sys.stdout.flush()
        except BrokenPipeError:
            code = BROKEN_PIPE
        except SystemExit as error:  # a signal's code, or 1, which Typer and rich use for a closed pipe
            code = BROKEN_PIPE if error.code == 1 else error.code
        except MhvaeError as error:
            if isinstance(error, UsageError):
                error.hint = _dash_hint(words) or error.hint
            print_error(error)
            code = error.exit_code
        except Exception as error:
            code = _unexpected(error, words)
        if code == BROKEN_PIPE:
            _mute()
        sys.exit(code)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Replace the verb's placeholder with the verb itself."""
        if args[0] in VERBS:
            self.add_command(_load(args[0]), args[0])
        return super().resolve_command(ctx, args)


class _Verb(TyperCommand):
    """A verb whose invocation is recorded for the manifest and the fingerprint of the run."""

    function: Callable[..., object]

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        check_numbers(ctx)
        with record(ctx, self.function):
            return super().invoke(ctx)


app = typer.Typer(
    name="mhvae",
    cls=_Group,
    help="Segment, edit and generate a single object in 2-D medical images.",
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
    if hasattr(module, "app"):  # it has subcommands
        group = typer.main.get_command(module.app)
        group.epilog = _epilog(module.EXAMPLES)
        return group
    single = typer.Typer(add_completion=False)
    single.command(verb, cls=_Verb, epilog=_epilog(module.EXAMPLES))(getattr(module, name))
    command = typer.main.get_command(single)
    vars(command)["function"] = getattr(module, name)
    return command


def _epilog(examples: Sequence[str]) -> str:
    """The examples at the end of a verb's help, one paragraph per line, as Typer expects."""
    return "\n\n".join(["Examples:", *examples])


def _version(wanted: bool) -> None:
    if wanted:
        from .version import version

        typer.echo(f"mhvae {version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Show the version and exit.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    pass


def main() -> None:
    """The `mhvae` command."""
    # read once, when torch is imported: with active waiting, idle threads starve other programs
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # warnings of libraries are not messages of this program
    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # ignored for a shell's background jobs
        signal.signal(signal.SIGINT, stop)
    end_if_blocked()
    try:
        app(prog_name="mhvae")
    except SystemExit as end:
        end_soon(end.code if isinstance(end.code, int) else 0)
        raise


def _dash_hint(words: Sequence[str]) -> str | None:
    """What to do about a file, such as one of a shell's *.png, whose name was taken for an option."""
    before = list(takewhile(lambda word: word != "--", words))
    file = next((word for word in before if word[:1] == "-" and os.path.lexists(word)), None)
    return file and f"if {file} is a file: ./{file}, or after -- as the last of all: -- {file}"


def _unexpected(error: Exception, words: Sequence[str]) -> int:
    """Report a usage error from Typer, or else an internal error; return the exit code."""
    if hasattr(error, "format_message"):
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "mhvae"
        if message := error.format_message().rstrip("."):  # empty where Typer printed the help instead
            print_error(UsageError(message, hint=_dash_hint(words) or f"{path} --help"))
        return UsageError.exit_code
    if os.environ.get("MHVAE_DEBUG") == "1":
        import traceback

        print_note(traceback.format_exc().rstrip())
    if out_of_memory_kind(error):
        print_error(DeviceError("out of memory", hint="close other programs, or use --device cpu"))
        return DeviceError.exit_code
    print_error(MhvaeError(internal_error_text(error), hint="set MHVAE_DEBUG=1 to see the traceback"))
    return 1


def _mute() -> None:
    """Redirect stdout and stderr to the null device, so that Python's final flush cannot fail."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            os.dup2(null, stream.fileno())
        except (OSError, ValueError):  # a stream without a file descriptor, as in tests
            continue
