"""`mhvae swap-style INPUTS`: each image in the style of another (figure 5)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputError, UsageError
from ..runs.generation import find_inputs, find_one, generate
from ..runs.generation_jobs import GenerationRequest, output_stem
from ..runs.inputs import Item
from ..runs.invocation import NEUTRAL
from ..runs.settings import GenerationSettings
from . import options
from .generation_options import generative

if TYPE_CHECKING:
    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, Source

EXAMPLES = (
    "mhvae swap-style a.png b.png --out swapped/",
    "mhvae swap-style scans/ --style b.png --mix 0.5 --out blended/",
)


@generative()
def swap_style(
    inputs: options.Inputs = None,
    style: Annotated[
        str | None,
        typer.Option(
            "--style",
            metavar="FILE",
            help="Give every input the style of this one image, or file of latents.",
            show_default="each gets every other's",
        ),
        NEUTRAL,
    ] = None,
    mix: Annotated[
        float,
        typer.Option("--mix", metavar="SHARE", help="From 0, its own style, to 1, the other's; 0.5 blends."),
    ] = 1.0,
    *,
    settings: GenerationSettings,
) -> None:
    """Make each image again in the style of another.

    a.png b.png become a__style-b.png and b__style-a.png, each with its mask,
    a__style-b_mask.png; of more inputs every ordered pair is made. A picture
    keeps its own image's object, in place and shape, its size and depth, and
    the noise its reconstruction has; tone and texture are the other's. A
    model of grey images takes those in colour for grey ones; a model of
    colour takes grey for a style, and refuses a grey image beside one in
    colour. Each picture is segmented again, as reconstruct does.
    """
    if not 0 <= mix <= 1:
        raise UsageError(f"--mix {mix:g}: not between 0 and 1", hint="0.5 is half of each style")
    named = find_inputs(inputs, settings)
    wanted = None if style is None else find_one("--style", style, inputs or [], settings)
    if wanted is None and len(named.items) < 2:
        raise UsageError(
            "one image has no other to take a style from", hint="name two or more, or --style FILE"
        )
    code = generate(
        "swap-style",
        _requests(named.items, wanted, mix),
        settings,
        many=named.many,
        columns=["style", "mix"],
        words=["--mix", f"{mix:g}"] if mix != 1 else [],
        titles=["image", "style"],
    )
    raise typer.Exit(code)


def _requests(items: Sequence[Item], style: Item | None, mix: float) -> list[GenerationRequest]:
    """Each input in the style of every other, or in that of `style`; what is no image fails by itself."""
    styles = [item for item in items if item.fault is None] if style is None else [style]
    if len(styles) > 2:
        _refuse_namesakes(styles)
    requests: list[GenerationRequest] = []
    for item in items:
        if item.fault is not None:
            requests.append(GenerationRequest((item,), item.stem))
            continue
        requests += [_request(item, other, mix) for other in styles if other is not item]
    return requests


def _request(content: Item, style: Item, mix: float) -> GenerationRequest:
    return GenerationRequest(
        (content, style),
        output_stem(content, f"__style-{style.stem.name}"),
        edit=partial(_styled, mix),
        row={"style": style.name, "mix": mix},
        record={"edit": {"mix": mix}},
    )


def _styled(mix: float, networks: "Networks", sources: "Sequence[Source]") -> "Draft":
    from ..inference.synthesis import swap_style

    return swap_style(networks, sources[0], sources[1], mix=mix)


def _refuse_namesakes(styles: Sequence[Item]) -> None:
    """OutputError for two styles of one name: a third image's pictures in them would be one file."""
    owners: dict[str, Item] = {}
    for style in styles:
        owner = owners.setdefault(style.stem.name.casefold(), style)
        if owner is not style:
            raise OutputError(
                f"{owner.name} and {style.name}: pictures in their styles would have one name",
                hint="rename one",
            )
