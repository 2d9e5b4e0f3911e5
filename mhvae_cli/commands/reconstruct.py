"""`mhvae reconstruct INPUTS`: each image through its code and back (figures 3 and 4)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .generation import find_inputs, generate
from .making import Wish, beside
from .shared import Shared, generative

if TYPE_CHECKING:
    from ..inference.pipeline import Pipeline
    from ..inference.synthesis import Draft, Source


@generative
def reconstruct(
    inputs: options.Inputs = None,
    draws: Annotated[
        int,
        typer.Option("--draws", min=1, metavar="N", help="Pictures an image, each with noise of its own."),
    ] = 1,
    *,
    shared: Shared,
) -> None:
    """Make each image again from its code, at its own size.

    scans/a.jpg becomes a__recon.png and a__recon_mask.png in the folder of
    --out; --draws 3 makes a__recon_0.png to a__recon_2.png. The VAE keeps
    what its code holds: the object's place and shape, and the style. The
    cDDPM invents the fine texture, another one for another --seed. Each
    picture is segmented again: dice in results.csv tells how well its object
    agrees with its mask. On a CPU pictures are made one at a time.
    """
    named = find_inputs(inputs, shared)
    wishes = [
        Wish((item,), beside(item, "__recon", number, draws), edit=partial(_drawn, number))
        for item in named.items
        for number in range(draws)
    ]
    words = ["--draws", str(draws)] if draws > 1 else []
    raise typer.Exit(generate("reconstruct", wishes, shared, many=named.many, words=words))


def _drawn(number: int, _pipeline: "Pipeline", sources: "Sequence[Source]") -> "Draft":
    from ..inference.synthesis import draft_of

    return draft_of(sources[0], draw=number)
