"""The options that verbs share: the same name and the same meaning everywhere."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

DtypeChoice = Literal["auto", "float32", "bfloat16", "float16"]
ExistingChoice = Literal["error", "skip", "overwrite"]
OnErrorChoice = Literal["continue", "stop"]
ProgressChoice = Literal["auto", "on", "off"]
QcChoice = Literal["quick", "full", "off"]
MeasureChoice = Literal["fetal-head", "cup-disc"]
SolverChoice = Literal["dpm++2m", "dpm++2m-sde", "unipc", "heun", "euler-maruyama"]
PictureFormat = Literal["png", "tiff"]

DEFAULT_MODEL = "fetal-head"


def _option(*names: str, panel: str | None = None, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


def complete_model(incomplete: str) -> list[str]:
    """What a shell completes --model with; without a match it goes on with folders."""
    from ..checkpoints.registry import bundled

    return [name for name in bundled() if name.startswith(incomplete)]


def _use_threads(count: int | None) -> int | None:
    from ..machine import use_threads

    use_threads(count)
    return count


_MODEL, _FILES, _RUN = "Model and device", "Which inputs", "How it runs"
_MEASURED = "What is measured"
_TRUST = "How far to trust it"
_MADE = "How pictures are made"

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
        autocompletion=complete_model,
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
Threads = Annotated[
    int | None,
    _option(
        "--threads",
        min=1,
        metavar="N",
        envvar="MHVAE_THREADS",
        callback=_use_threads,
        help="Threads that compute on a CPU. Where several mhvae share one, 1 for each is fastest.",
        panel=_MODEL,
        show_default="OMP_NUM_THREADS, else the cores it may use",
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
Window = Annotated[
    str,
    _option(
        "--window",
        metavar="auto|full|LO,HI",
        help="Numbers that are black and white in 16-bit, float and DICOM images: auto is DICOM's own window,"
        " else the 0.1 and 99.9 percentiles; full the type's whole range.",
        panel=_FILES,
    ),
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
        show_default="as many as --threads, at most 8",
    ),
]
Existing = Annotated[
    ExistingChoice,
    _option(
        "--existing",
        help="What to do about outputs that exist. error stops before any work; overwrite makes them anew;"
        " skip leaves them as they are, and exits with 7 if one is stale: another input, model or other"
        " options made it, or results.csv tells of none. Device, number type and batches do not count.",
        panel=_RUN,
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

Measure = Annotated[
    MeasureChoice | None,
    _option(
        "--measure",
        help="fetal-head: head circumference, BPD (outer to outer) and OFD of the ellipse along the skull."
        " cup-disc: vertical and area ratio of the cup that --cup-model finds to the disc of --model.",
        panel=_MEASURED,
        show_default=False,
    ),
]
CupModel = Annotated[
    str | None,
    _option(
        "--cup-model",
        metavar="REF",
        help="The model that finds the cup, for --measure cup-disc; named as --model is.",
        panel=_MEASURED,
        show_default=False,
    ),
]
Spacing = Annotated[
    str | None,
    _option(
        "--spacing",
        metavar="S|X,Y",
        help="Width and height in mm of every input's pixels, as the file stores them.",
        panel=_MEASURED,
        show_default="what a DICOM file says, else unknown",
    ),
]
SpacingCsv = Annotated[
    Path | None,
    _option(
        "--spacing-csv",
        metavar="FILE",
        help="The same by input: columns filename, and spacing or spacing_x and spacing_y. It comes first.",
        panel=_MEASURED,
        show_default=False,
    ),
]
TrustDpi = Annotated[
    bool,
    _option(
        "--trust-dpi",
        help="Take the resolution that a TIFF is labelled with, where nothing else is known.",
        panel=_MEASURED,
    ),
]

Tta = Annotated[
    bool,
    _option(
        "--tta",
        help="Average what is found in the image and in its three mirror images: a little more exact, and the"
        " network takes four times as long. A cup is found in the image alone.",
        panel=_TRUST,
    ),
]
Qc = Annotated[
    QcChoice,
    _option(
        "--qc",
        help="Judge each result by how usual its image is for the model: qc and qc_why in results.csv. full"
        " compares the image with the VAE's own picture of it too, which takes half as long again.",
        panel=_TRUST,
    ),
]
FailOnQc = Annotated[
    bool,
    _option("--fail-on-qc", help="Exit with 8 if any result is flagged; all are written.", panel=_TRUST),
]
Posterior = Annotated[
    int | None,
    _option(
        "--posterior",
        metavar="N",
        min=20,
        help="Also draw N outlines that the object could have: NAME__probability.png, the part of them that"
        " each pixel is in (0 to 255), and 90 % intervals in results.csv.",
        panel=_TRUST,
        show_default=False,
    ),
]

Page = Annotated[
    Path | None,
    _option(
        "--report",
        metavar="FILE",
        help="Also write one HTML page to review the run on: for each input a small picture with the contour,"
        " what is measured, and what is flagged. It asks for nothing outside itself.",
        show_default=False,
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
