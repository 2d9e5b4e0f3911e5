"""The options of the verbs that generate images."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated

from ..runs import settings
from ..runs.invocation import NEUTRAL
from . import options
from .options import option

_PANEL = "How pictures are made"

NoRefine = Annotated[
    bool, option("--no-refine", help="Leave the VAE's own, blurry picture: no cDDPM is needed.", panel=_PANEL)
]

Steps = Annotated[
    int,
    option("--steps", min=1, metavar="N", help="Evaluations of the cDDPM's network a picture.", panel=_PANEL),
]

Solver = Annotated[
    settings.Solver,
    option("--solver", help="euler-maruyama is the paper's, and wants some 1000 steps.", panel=_PANEL),
]

Strength = Annotated[
    float | None,
    option(
        "--strength",
        min=0.002,
        max=1.0,
        metavar="T",
        help="How much the cDDPM draws anew: 1 is all that the VAE's picture leaves open, as in the paper; "
        "less keeps the VAE's coarse tones. By default the model's own.",
        panel=_PANEL,
        show_default=False,
    ),
]

MinDice = Annotated[
    float | None,
    option(
        "--min-dice",
        min=0.0,
        max=1.0,
        metavar="D",
        help="Exit with 8 if a picture's object, segmented again, agrees less with the mask asked for.",
        panel=_PANEL,
        show_default=False,
    ),
]

Tries = Annotated[
    int,
    option(
        "--tries",
        min=1,
        metavar="N",
        help="Draw a picture below --min-dice again, up to N in all, and keep the best.",
        panel=_PANEL,
    ),
]

SaveLatents = Annotated[
    bool,
    option(
        "--save-latents",
        help="Also write each picture's code, NAME.safetensors (an input in an image's place) and NAME.json.",
        panel=_PANEL,
    ),
    NEUTRAL,
]

Format = Annotated[
    settings.ImageFormat | None,
    option(
        "--format",
        help="Of pictures and masks.",
        panel=_PANEL,
        show_default="what --out ends in, else png",
    ),
    NEUTRAL,
]

Sheet = Annotated[
    Path | None,
    option(
        "--sheet",
        metavar="FILE",
        help="Also write one PNG of the first results: input, mask, the VAE's picture, the refined one.",
        panel=_PANEL,
        show_default=False,
    ),
    NEUTRAL,
]

Show = Annotated[
    bool,
    option("--show", help="Open the sheet, which needs no --sheet then, to look at.", panel=_PANEL),
    NEUTRAL,
]


def generative(*, without: Collection[str] = ()) -> Callable[[options.Verb], options.Verb]:
    """Give a verb the options that are the fields of `GenerationSettings`; see `options.with_settings`."""
    types = {**vars(options), **globals()}
    return options.with_settings(settings.GenerationSettings, types=types, without=without)
