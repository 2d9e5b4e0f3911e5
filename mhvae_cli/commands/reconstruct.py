"""`mhvae reconstruct INPUTS`: each image from its latent code (figures 3 and 4)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ..runs.generation import generate
from ..runs.generation_jobs import GenerationRequest, output_stem
from ..runs.inputs import find_inputs
from ..runs.invocation import NEUTRAL
from ..runs.settings import GenerationSettings
from . import options
from .generation_options import generative

if TYPE_CHECKING:
    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, Source

EXAMPLES = (
    "mhvae reconstruct scans/ --out recon/ --sheet sheet.png",
    "mhvae reconstruct a.png --draws 3 --steps 50 --out draws/",
)


@generative(without=("detail",))
def reconstruct(
    inputs: options.Inputs = None,
    draws: Annotated[
        int,
        typer.Option(
            "--draws", min=1, metavar="N", help="Images to generate per input, each from different noise."
        ),
        NEUTRAL,
    ] = 1,
    *,
    settings: GenerationSettings,
) -> None:
    """Reconstruct each image from its latent code, at its original size.

    scans/a.jpg becomes a__recon.png and a__recon_mask.png in the folder given
    by --out; --draws 3 writes a__recon_0.png to a__recon_2.png. The VAE
    reproduces what the latent code holds: the object's position and shape, and
    the style. The cDDPM synthesizes the fine texture, which varies with
    --seed. Each generated image is segmented again; dice in results.csv is the
    agreement of the result with the mask. On a CPU, images are generated one
    at a time.
    """
    named = find_inputs(inputs, settings)
    requests = [
        GenerationRequest((item,), output_stem(item, "__recon", number, draws), edit=partial(_edit, number))
        for item in named.items
        for number in range(draws)
    ]
    command_words = ["--draws", str(draws)] if draws > 1 else []
    raise typer.Exit(
        generate("reconstruct", requests, settings, many=named.many, command_words=command_words)
    )


def _edit(number: int, _networks: "Networks", sources: "Sequence[Source]") -> "Draft":
    from ..inference.synthesis import draft_of

    return draft_of(sources[0], draw=number)
