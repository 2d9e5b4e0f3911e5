"""The options that verbs share: the same name and the same meaning everywhere."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
ExistingChoice = Literal["error", "skip", "overwrite"]
OnErrorChoice = Literal["continue", "stop"]
ProgressChoice = Literal["auto", "on", "off"]
SolverChoice = Literal["dpm++2m", "dpm++2m-sde", "unipc", "heun", "euler-maruyama"]
PictureFormat = Literal["png", "tiff"]

DEFAULT_MODEL = "fetal-head"


def _option(*names: str, panel: str | None = None, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


_MODEL, _FILES, _RUN = "Model and device", "Which inputs", "How it runs"
_MADE = "How pictures are made"

Inputs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUTS",
        help="Images: files, folders, quoted globs, - for an image on stdin. Each page of a TIFF is one.",
        show_default=False,
    ),
]
Out = Annotated[
    str | None,
    _option(
        "--out",
        "-o",
        metavar="PATH",
        help="A folder if it is one, ends in / or there is more than one output, else a file; - is stdout."
        " Parents are made.",
        show_default="the current folder",
    ),
]

Model = Annotated[
    str,
    _option(
        "--model",
        "-m",
        metavar="REF",
        envvar="MHVAE_MODEL",
        help="A bundled name, a folder, or ORG/NAME or ORG/NAME@REVISION on the Hub.",
        panel=_MODEL,
    ),
]
Device = Annotated[
    str,
    _option(
        "--device",
        metavar="auto|cpu|cuda[:N]|mps",
        envvar="MHVAE_DEVICE",
        help="Where to compute. One asked for by name never falls back.",
        panel=_MODEL,
    ),
]
Dtype = Annotated[
    DtypeChoice,
    _option(
        "--dtype",
        envvar="MHVAE_DTYPE",
        help="Number type of the network: auto is bfloat16 where it is fast, else float32.",
        panel=_MODEL,
    ),
]
BatchSize = Annotated[
    int,
    _option(
        "--batch-size",
        "-b",
        min=1,
        metavar="N",
        envvar="MHVAE_BATCH_SIZE",
        help="Images a network call.",
        panel=_MODEL,
    ),
]
Deterministic = Annotated[
    bool,
    _option(
        "--deterministic",
        help="The same bits on every run and at every batch size, if slower.",
        panel=_MODEL,
    ),
]
Offline = Annotated[
    bool,
    _option(
        "--offline",
        envvar="MHVAE_OFFLINE",
        help="Never ask the network for a model.",
        panel=_MODEL,
    ),
]

FromFile = Annotated[
    str | None,
    _option(
        "--from-file",
        metavar="LIST",
        help="Also take the inputs that this file names, one a line; - reads the list from stdin.",
        panel=_FILES,
        show_default=False,
    ),
]
Recursive = Annotated[
    bool, _option("--recursive", "-r", help="Enter sub-folders, and keep them.", panel=_FILES)
]
Shard = Annotated[
    str | None,
    _option(
        "--shard",
        metavar="I/N",
        help="Only every N-th input, from the I-th (1 to N): N such runs share the work.",
        panel=_FILES,
        show_default=False,
    ),
]

Workers = Annotated[
    int | None,
    _option(
        "--workers",
        "-j",
        min=0,
        metavar="N",
        envvar="MHVAE_WORKERS",
        help="Threads that read and encode files; 0 does all in one thread.",
        panel=_RUN,
        show_default="the cores, at most 8",
    ),
]
Existing = Annotated[
    ExistingChoice,
    _option(
        "--existing", help="What to do about outputs that exist; error stops before any work.", panel=_RUN
    ),
]
OnError = Annotated[
    OnErrorChoice,
    _option("--on-error", help="What to do after an input that cannot be used.", panel=_RUN),
]
Seed = Annotated[
    int, _option("--seed", metavar="N", envvar="MHVAE_SEED", help="Seed of all that is random.", panel=_RUN)
]
Json = Annotated[bool, _option("--json", help="Print JSON lines on stdout.", panel=_RUN)]
DryRun = Annotated[bool, _option("--dry-run", help="List what would be written, and stop.", panel=_RUN)]
Quiet = Annotated[bool, _option("--quiet", "-q", help="Errors only.", panel=_RUN)]
Verbose = Annotated[bool, _option("--verbose", "-v", help="Say more on stderr.", panel=_RUN)]
Progress = Annotated[
    ProgressChoice,
    _option(
        "--progress",
        envvar="MHVAE_PROGRESS",
        help="A bar: auto is on a terminal only, with a plain line now and then elsewhere.",
        panel=_RUN,
    ),
]

NoRefine = Annotated[
    bool, _option("--no-refine", help="Leave the VAE's own, blurry picture: no cDDPM is needed.", panel=_MADE)
]
Steps = Annotated[
    int,
    _option("--steps", min=1, metavar="N", help="Evaluations of the cDDPM's network a picture.", panel=_MADE),
]
Solver = Annotated[
    SolverChoice,
    _option("--solver", help="euler-maruyama is the paper's, and wants some 1000 steps.", panel=_MADE),
]
Strength = Annotated[
    float | None,
    _option(
        "--strength",
        min=0.002,
        max=1.0,
        metavar="T",
        help="How much the cDDPM draws anew: 1 is all that the VAE's picture leaves open, as in the paper; "
        "less keeps the VAE's coarse tones. By default the model's own.",
        panel=_MADE,
        show_default=False,
    ),
]
MinDice = Annotated[
    float | None,
    _option(
        "--min-dice",
        min=0.0,
        max=1.0,
        metavar="D",
        help="Exit with 8 if a picture's object, segmented again, agrees less with the mask asked for.",
        panel=_MADE,
        show_default=False,
    ),
]
Tries = Annotated[
    int,
    _option(
        "--tries",
        min=1,
        metavar="N",
        help="Draw a picture below --min-dice again, up to N in all, and keep the best.",
        panel=_MADE,
    ),
]
SaveLatents = Annotated[
    bool,
    _option(
        "--save-latents",
        help="Also write each picture's code, NAME.safetensors (an input in an image's place) and NAME.json.",
        panel=_MADE,
    ),
]
MadeFormat = Annotated[
    PictureFormat | None,
    _option(
        "--format",
        help="Of pictures and masks.",
        panel=_MADE,
        show_default="what --out ends in, else png",
    ),
]
Sheet = Annotated[
    Path | None,
    _option(
        "--sheet",
        metavar="FILE",
        help="Also write one PNG of the first results: input, mask, the VAE's picture, the refined one.",
        panel=_MADE,
        show_default=False,
    ),
]
Show = Annotated[
    bool, _option("--show", help="Open the sheet, which needs no --sheet then, to look at.", panel=_MADE)
]
