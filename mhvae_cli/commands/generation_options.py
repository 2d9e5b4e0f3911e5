"""The options of the verbs that generate images."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated

from ..config import STEPS, STEPS_CARRIED
from ..runs import settings
from ..runs.invocation import NEUTRAL
from . import options
from .options import option

_PANEL = "Image generation"

Detail = Annotated[
    settings.Detail,
    option(
        "--detail",
        help="carry: move the pixels of the images themselves, and generate only what none of them shows;"
        " invent: generate the whole image from the latent code, as in the paper.",
        panel=_PANEL,
    ),
]

NoRefine = Annotated[
    bool, option("--no-refine", help="Keep the VAE's blurry image; needs no cDDPM.", panel=_PANEL)
]

Steps = Annotated[
    int | None,
    option(
        "--steps",
        min=1,
        metavar="N",
        help="Evaluations of the cDDPM network per image.",
        panel=_PANEL,
        show_default=f"{STEPS}; {STEPS_CARRIED} where the detail is carried",
    ),
]

Solver = Annotated[
    settings.Solver,
    option(
        "--solver",
        help="Diffusion solver; euler-maruyama is the one in the paper and needs about 1000 steps.",
        panel=_PANEL,
    ),
]

Strength = Annotated[
    float | None,
    option(
        "--strength",
        min=0.002,
        max=1.0,
        metavar="T",
        help="Start time of the diffusion: 1 generates all detail from noise, as in the paper; lower values"
        " keep the coarse tones of the VAE. Default: set by the model.",
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
        help="Exit with code 8 if the Dice score between the requested mask and the re-segmented generated"
        " image is below D.",
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
        help="Regenerate an image below --min-dice, up to N attempts in total, and keep the best.",
        panel=_PANEL,
    ),
]

SaveLatents = Annotated[
    bool,
    option(
        "--save-latents",
        help="Also write each image's latent code: NAME.safetensors (usable as an input) and NAME.json.",
        panel=_PANEL,
    ),
    NEUTRAL,
]

Format = Annotated[
    settings.ImageFormat | None,
    option(
        "--format",
        help="File format of images and masks.",
        panel=_PANEL,
        show_default="the suffix of --out, else png",
    ),
    NEUTRAL,
]

Sheet = Annotated[
    Path | None,
    option(
        "--sheet",
        metavar="FILE",
        help="Also write an overview PNG of the first results: input, mask, VAE image, refined image.",
        panel=_PANEL,
        show_default=False,
    ),
    NEUTRAL,
]

Show = Annotated[
    bool,
    option("--show", help="Open the overview sheet in a viewer; --sheet is not required.", panel=_PANEL),
    NEUTRAL,
]


def generative(*, without: Collection[str] = ()) -> Callable[[options.Verb], options.Verb]:
    """Add to a verb the options for the fields of `GenerationSettings`; see `options.with_settings`."""
    types = {**vars(options), **globals()}
    return options.with_settings(settings.GenerationSettings, types=types, without=without)
