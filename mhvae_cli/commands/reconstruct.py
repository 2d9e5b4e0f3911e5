"""`mhvae reconstruct INPUTS`: each image through its code and back (figures 3 and 4)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ..runs.generation import find_inputs, generate
from ..runs.generation_jobs import GenerationRequest, output_stem
from ..runs.invocation import NEUTRAL
from ..runs.settings import GenerationSettings
from . import options
from .generation_options import generative

if TYPE_CHECKING:
    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, Source

EXAMPLES = (
    "mhvae reconstruct scans/ --out again/ --sheet sheet.png",
    "mhvae reconstruct a.png --draws 3 --steps 50 --out draws/",
)


@generative()
def reconstruct(
    inputs: options.Inputs = None,
    draws: Annotated[
        int,
        typer.Option("--draws", min=1, metavar="N", help="Pictures an image, each with noise of its own."),
        NEUTRAL,
    ] = 1,
    *,
    settings: GenerationSettings,
) -> None:
    """Make each image again from its code, at its own size.

    scans/a.jpg becomes a__recon.png and a__recon_mask.png in the folder of
    --out; --draws 3 makes a__recon_0.png to a__recon_2.png. The VAE keeps
    what its code holds: the object's place and shape, and the style. The
    cDDPM invents the fine texture, another one for another --seed. Each
    picture is segmented again: dice in results.csv tells how well its object
    agrees with its mask. On a CPU pictures are made one at a time.
    """
    named = find_inputs(inputs, settings)
    requests = [
        GenerationRequest((item,), output_stem(item, "__recon", number, draws), edit=partial(_drawn, number))
        for item in named.items
        for number in range(draws)
    ]
    words = ["--draws", str(draws)] if draws > 1 else []
    raise typer.Exit(generate("reconstruct", requests, settings, many=named.many, words=words))


def _drawn(number: int, _networks: "Networks", sources: "Sequence[Source]") -> "Draft":
    from ..inference.synthesis import draft_of

    return draft_of(sources[0], draw=number)
