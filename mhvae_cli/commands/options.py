"""The options shared by verbs, with the same name and meaning in each."""

import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any

import typer

from ..runs import settings
from ..runs.invocation import NEUTRAL

MODEL_PANEL, INPUT_PANEL, RUN_PANEL = "Model and device", "Input selection", "Run control"


def option(*names: str, panel: str | None = None, **kwargs: Any) -> Any:
    """A Typer option in a panel of the help."""
    return typer.Option(*names, rich_help_panel=panel, **kwargs)


def complete_model(incomplete: str) -> list[str]:
    """Shell completions for --model; without a match the shell completes folders."""
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
        help="Images: files, folders, quoted globs, or - for an image on stdin. Each page of a TIFF file and"
        " each frame of a DICOM file counts as one image.",
        show_default=False,
    ),
]

Out = Annotated[
    str | None,
    option(
        "--out",
        "-o",
        metavar="PATH",
        help="Output path; - is stdout. It is a folder if it exists as one, ends in /, or there are several"
        " outputs; otherwise a file. Parent folders are created.",
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
        help="A bundled or imported model, a model folder, or ORG/NAME or ORG/NAME@REVISION on the Hub.",
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
        help="Compute device. A device given by name never falls back to another.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

Dtype = Annotated[
    settings.Dtype,
    option(
        "--dtype",
        envvar="MHVAE_DTYPE",
        help="Floating-point type of the network; auto is bfloat16 where that is fast, else float32.",
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
        help="CPU threads for computation. When several runs share a machine, 1 per run is fastest.",
        panel=MODEL_PANEL,
        show_default="OMP_NUM_THREADS, else the available cores",
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
        help="Images per forward pass.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

Deterministic = Annotated[
    bool,
    option(
        "--deterministic",
        help="Give bit-identical results on every run and at every batch size; slower.",
        panel=MODEL_PANEL,
    ),
    NEUTRAL,
]

Offline = Annotated[
    bool,
    option("--offline", envvar="MHVAE_OFFLINE", help="Never download a model.", panel=MODEL_PANEL),
    NEUTRAL,
]

FromFile = Annotated[
    str | None,
    option(
        "--from-file",
        metavar="LIST",
        help="Also read input paths from this file, one per line; - reads them from stdin.",
        panel=INPUT_PANEL,
        show_default=False,
    ),
    NEUTRAL,
]

FromFile0 = Annotated[
    str | None,
    option(
        "--from-file0",
        metavar="LIST",
        help="The same for paths that end in NUL, as written by find -print0: for names with line breaks.",
        panel=INPUT_PANEL,
        show_default=False,
    ),
    NEUTRAL,
]

Recursive = Annotated[
    bool,
    option("--recursive", "-r", help="Include (linked) subfolders; keep structure.", panel=INPUT_PANEL),
    NEUTRAL,
]

Window = Annotated[
    str,
    option(
        "--window",
        metavar="auto|full|LO,HI",
        help="Values shown as black and white in 16-bit, float and DICOM images: auto is the window stored in"
        " the DICOM file, else the 0.1 and 99.9 percentiles; full is the full range of the data type.",
        panel=INPUT_PANEL,
    ),
]

Shard = Annotated[
    str | None,
    option(
        "--shard",
        metavar="I/N|auto",
        help="Process only part I of N of the inputs (1 to N), to split the work over N runs. The part of an"
        " input depends only on its path within the operand, that of a sample on its number. auto stands for"
        " MHVAE_SHARD or the number of this task of SLURM or torchrun.",
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
        help="Threads that read and encode files; 0 uses a single thread for everything.",
        panel=RUN_PANEL,
        show_default="same as --threads, at most 8",
    ),
    NEUTRAL,
]

Existing = Annotated[
    settings.Existing,
    option(
        "--existing",
        help="What to do with existing outputs: error stops before any work, overwrite replaces them, skip"
        " keeps them. With skip, the exit code is 7 if an output is stale: made from a different input, model"
        " or options, or not listed in results.csv. Device, dtype and batch size do not matter.",
        panel=RUN_PANEL,
    ),
    NEUTRAL,
]

ExistingFile = Annotated[
    settings.Existing,
    option(
        "--existing",
        help="What to do with an existing file: error stops before any work, skip keeps it, overwrite"
        " replaces it.",
        panel=RUN_PANEL,
    ),
    NEUTRAL,
]

OnError = Annotated[
    settings.OnError,
    option("--on-error", help="What to do after an unusable input.", panel=RUN_PANEL),
    NEUTRAL,
]

Seed = Annotated[
    int,
    option("--seed", metavar="N", envvar="MHVAE_SEED", help="Random seed.", panel=RUN_PANEL),
]

AsJson = Annotated[bool, option("--json", help="Print JSON lines on stdout.", panel=RUN_PANEL), NEUTRAL]

DryRun = Annotated[
    bool,
    option("--dry-run", help="List the files that would be written, and exit.", panel=RUN_PANEL),
    NEUTRAL,
]

Quiet = Annotated[bool, option("--quiet", "-q", help="Print errors only.", panel=RUN_PANEL), NEUTRAL]

Verbose = Annotated[
    bool, option("--verbose", "-v", help="Print more details on stderr.", panel=RUN_PANEL), NEUTRAL
]

Progress = Annotated[
    settings.Progress,
    option(
        "--progress",
        envvar="MHVAE_PROGRESS",
        help="Progress bar; auto shows it on a terminal, and occasional plain lines elsewhere.",
        panel=RUN_PANEL,
    ),
    NEUTRAL,
]


Verb = Callable[..., None]


def with_settings(
    kind: type[Any],
    *,
    types: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
) -> Callable[[Verb], Verb]:
    """Add to a verb the options for the fields of `kind`; the verb receives them as keyword `settings`.

    The option for a field `as_json` is the annotation `AsJson` in `types`, by default those of this module.
    --out and --model precede the verb's own options, all others follow. Fields in `without` have no option
    and keep their defaults.
    """
    annotations = globals() if types is None else types
    shared = {each.name: each for each in fields(kind) if each.name not in without}
    leading = [name for name in ("out", "model") if name in shared]
    # The fields that `kind` adds to its base class precede the inherited ones.
    added = vars(kind)["__annotations__"]
    trailing = sorted((name for name in shared if name not in leading), key=lambda name: name not in added)

    def shared_parameter(name: str) -> inspect.Parameter:
        annotation = annotations[name.title().replace("_", "")]
        keyword = inspect.Parameter.KEYWORD_ONLY
        return inspect.Parameter(name, keyword, default=shared[name].default, annotation=annotation)

    def decorate(verb: Verb) -> Verb:
        hints = typing.get_type_hints(verb, include_extras=True)
        signature = inspect.signature(verb)
        own = [
            each.replace(annotation=hints[each.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for each in signature.parameters.values()
            if each.name != "settings"
        ]
        inputs = [each for each in own if each.name == "inputs"]
        others = [each for each in own if each.name != "inputs"]
        parameters = [*inputs, *map(shared_parameter, leading), *others, *map(shared_parameter, trailing)]

        @wraps(verb)
        def command(**values: Any) -> None:
            settings = kind(**{name: values.pop(name) for name in shared})
            verb(**values, settings=settings)

        command.__annotations__ = {each.name: each.annotation for each in parameters}
        vars(command)["__signature__"] = signature.replace(parameters=parameters)
        return command

    return decorate
