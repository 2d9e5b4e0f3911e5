"""The options that verbs share: the same name and the same meaning everywhere."""

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any

import typer

from ..runs import settings
from ..runs.invocation import NEUTRAL

MODEL_PANEL, INPUT_PANEL, RUN_PANEL = "Model and device", "Which inputs", "How it runs"
MEASURE_PANEL = "What is measured"


def option(*names: str, panel: str | None = None, **how: Any) -> Any:
    """A Typer option that stands in a panel of the help."""
    return typer.Option(*names, rich_help_panel=panel, **how)


def complete_model(incomplete: str) -> list[str]:
    """What a shell completes --model with; without a match it goes on with folders."""
    from ..checkpoints.registry import bundled

    return [name for name in bundled() if name.startswith(incomplete)]


def _use_threads(count: int | None) -> int | None:
    from ..resources import use_threads

    use_threads(count)
    return count


Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUTS",
        help="Images: files, folders, quoted globs, - for an image on stdin. Each page of a TIFF and each"
        " frame of a DICOM is one.",
        show_default=False,
    ),
]

Out = Annotated[
    str | None,
    option(
        "--out",
        "-o",
        metavar="PATH",
        help="A folder if it is one, ends in / or there is more than one output, else a file; - is stdout."
        " Parents are made.",
        show_default="the current folder",
    ),
    NEUTRAL,
]

Model = Annotated[
    str,
    option(
        "--model",
        "-m",
        metavar="REF",
        envvar="MHVAE_MODEL",
        autocompletion=complete_model,
        help="A bundled name, a folder, or ORG/NAME or ORG/NAME@REVISION on the Hub.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

Device = Annotated[
    str,
    option(
        "--device",
        metavar="auto|cpu|cuda[:N]|mps",
        envvar="MHVAE_DEVICE",
        help="Where to compute. One asked for by name never falls back.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

Dtype = Annotated[
    settings.Dtype,
    option(
        "--dtype",
        envvar="MHVAE_DTYPE",
        help="Number type of the network: auto is bfloat16 where it is fast, else float32.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

Threads = Annotated[
    int | None,
    option(
        "--threads",
        min=1,
        metavar="N",
        envvar="MHVAE_THREADS",
        callback=_use_threads,
        help="Threads that compute on a CPU. Where several mhvae share one, 1 for each is fastest.",
        panel=MODEL_PANEL,
        show_default="OMP_NUM_THREADS, else the cores it may use",
    ),
    NEUTRAL,
]

BatchSize = Annotated[
    int,
    option(
        "--batch-size",
        "-b",
        min=1,
        metavar="N",
        envvar="MHVAE_BATCH_SIZE",
        help="Images a network call.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

Deterministic = Annotated[
    bool,
    option(
        "--deterministic",
        help="The same bits on every run and at every batch size, if slower.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

Offline = Annotated[
    bool,
    option(
        "--offline",
        envvar="MHVAE_OFFLINE",
        help="Never ask the network for a model.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

FromFile = Annotated[
    str | None,
    option(
        "--from-file",
        metavar="LIST",
        help="Also take the inputs that this file names, one a line; - reads the list from stdin.",
        panel=INPUT_PANEL,
        show_default=False,
    ),
    NEUTRAL,
]

Recursive = Annotated[
    bool, option("--recursive", "-r", help="Enter sub-folders, and keep them.", panel=INPUT_PANEL), NEUTRAL
]

Window = Annotated[
    str,
    option(
        "--window",
        metavar="auto|full|LO,HI",
        help="Numbers that are black and white in 16-bit, float and DICOM images: auto is DICOM's own window,"
        " else the 0.1 and 99.9 percentiles; full the type's whole range.",
        panel=INPUT_PANEL,
    ),
]

Shard = Annotated[
    str | None,
    option(
        "--shard",
        metavar="I/N",
        help="Only every N-th input, from the I-th (1 to N): N such runs share the work.",
        panel=INPUT_PANEL,
        show_default=False,
    ),
    NEUTRAL,
]

Workers = Annotated[
    int | None,
    option(
        "--workers",
        "-j",
        min=0,
        metavar="N",
        envvar="MHVAE_WORKERS",
        help="Threads that read and encode files; 0 does all in one thread.",
        panel=RUN_PANEL,
        show_default="as many as --threads, at most 8",
    ),
    NEUTRAL,
]

Existing = Annotated[
    settings.Existing,
    option(
        "--existing",
        help="What to do about outputs that exist. error stops before any work; overwrite makes them anew;"
        " skip leaves them as they are, and exits with 7 if one is stale: another input, model or other"
        " options made it, or results.csv tells of none. Device, number type and batches do not count.",
        panel=RUN_PANEL,
    ),
    NEUTRAL,
]

ExistingFile = Annotated[
    settings.Existing,
    option(
        "--existing",
        help="What to do about a file that exists: error stops before any work, skip leaves it as it is,"
        " overwrite replaces it.",
        panel=RUN_PANEL,
    ),
    NEUTRAL,
]
OnError = Annotated[
    settings.OnError,
    option("--on-error", help="What to do after an input that cannot be used.", panel=RUN_PANEL),
    NEUTRAL,
]

Seed = Annotated[
    int,
    option("--seed", metavar="N", envvar="MHVAE_SEED", help="Seed of all that is random.", panel=RUN_PANEL),
]

AsJson = Annotated[bool, option("--json", help="Print JSON lines on stdout.", panel=RUN_PANEL), NEUTRAL]

DryRun = Annotated[
    bool, option("--dry-run", help="List what would be written, and stop.", panel=RUN_PANEL), NEUTRAL
]

Quiet = Annotated[bool, option("--quiet", "-q", help="Errors only.", panel=RUN_PANEL), NEUTRAL]

Verbose = Annotated[bool, option("--verbose", "-v", help="Say more on stderr.", panel=RUN_PANEL), NEUTRAL]

Progress = Annotated[
    settings.Progress,
    option(
        "--progress",
        envvar="MHVAE_PROGRESS",
        help="A bar: auto is on a terminal only, with a plain line now and then elsewhere.",
        panel=RUN_PANEL,
    ),
    NEUTRAL,
]

Spacing = Annotated[
    str | None,
    option(
        "--spacing",
        metavar="S|X,Y",
        help="Width and height in mm of every input's pixels, as the file stores them.",
        panel=MEASURE_PANEL,
        show_default="what a DICOM file says, else unknown",
    ),
]


Verb = Callable[..., None]


def with_settings(
    kind: type[settings.RunSettings],
    *,
    types: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
) -> Callable[[Verb], Verb]:
    """Give a verb the options that are the fields of `kind`; the verb gets them as its keyword `settings`.

    The option of a field `as_json` is the annotation `AsJson` in `types`, by default those of this module.
    --out and --model stand before the verb's own options, all others behind them. Fields in `without` keep
    their defaults.
    """
    annotations = globals() if types is None else types
    offered = {each.name: each for each in fields(kind) if each.name not in without}
    own = [name for name in offered if name in vars(kind)["__annotations__"]]
    rest = [name for name in offered if name not in own]
    first = [name for name in offered if name in ("out", "model")]
    behind = [name for name in (own if rest else []) + (rest or own) if name not in first]

    def decorate(verb: Verb) -> Verb:
        def parameter(name: str) -> inspect.Parameter:
            hint = annotations[name.title().replace("_", "")]
            keyword = inspect.Parameter.KEYWORD_ONLY
            return inspect.Parameter(name, keyword, default=offered[name].default, annotation=hint)

        hints = typing.get_type_hints(verb, include_extras=True)
        signature = inspect.signature(verb)
        mine = [
            each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for each in signature.parameters.values()
            if each.name != "settings"
        ]
        inputs = [each for each in mine if each.name == "inputs"]
        others = [each for each in mine if each.name != "inputs"]
        parameters = [*inputs, *map(parameter, first), *others, *map(parameter, behind)]

        @wraps(verb)
        def command(**values: Any) -> None:
            given = kind(**{name: values.pop(name) for name in offered})
            verb(**values, settings=given)

        command.__annotations__ = {each.name: each.annotation for each in parameters}
        vars(command)["__signature__"] = signature.replace(parameters=parameters)
        return command

    return decorate
