"""`mhvae swap-style INPUTS`: each image in the style of another (figure 5)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputError, UsageError
from . import options
from .generation import find_inputs, find_one, generate
from .inputs import Item
from .making import Wish, beside
from .shared import Shared, generative

if TYPE_CHECKING:
    from ..inference.pipeline import Pipeline
    from ..inference.synthesis import Draft, Source


@generative
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
    ] = None,
    mix: Annotated[
        float,
        typer.Option("--mix", metavar="SHARE", help="From 0, its own style, to 1, the other's; 0.5 blends."),
    ] = 1.0,
    *,
    shared: Shared,
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
    named = find_inputs(inputs, shared)
    wanted = None if style is None else find_one("--style", style, inputs or [], shared)
    if wanted is None and len(named.items) < 2:
        raise UsageError(
            "one image has no other to take a style from", hint="name two or more, or --style FILE"
        )
    code = generate(
        "swap-style",
        _wishes(named.items, wanted, mix),
        shared,
        many=named.many,
        columns=["style", "mix"],
        words=["--mix", f"{mix:g}"] if mix != 1 else [],
        titles=["image", "style"],
    )
    raise typer.Exit(code)


def _wishes(items: Sequence[Item], style: Item | None, mix: float) -> list[Wish]:
    """Each input in the style of every other, or in that of `style`; what is no image fails by itself."""
    styles = [item for item in items if item.fault is None] if style is None else [style]
    if len(styles) > 2:
        _refuse_namesakes(styles)
    wishes: list[Wish] = []
    for item in items:
        if item.fault is not None:
            wishes.append(Wish((item,), item.stem))
            continue
        wishes += [_wish(item, other, mix) for other in styles if other is not item]
    return wishes


def _wish(content: Item, style: Item, mix: float) -> Wish:
    return Wish(
        (content, style),
        beside(content, f"__style-{style.stem.name}"),
        edit=partial(_styled, mix),
        row={"style": style.name, "mix": mix},
        record={"edit": {"mix": mix}},
    )


def _styled(mix: float, pipeline: "Pipeline", sources: "Sequence[Source]") -> "Draft":
    from ..inference.synthesis import styled

    return styled(pipeline, sources[0], sources[1], mix=mix)


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
