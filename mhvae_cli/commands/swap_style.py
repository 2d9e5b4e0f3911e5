"""`mhvae swap-style INPUTS`: each image in the style of another (figure 5)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import OutputError, UsageError
from ..runs.generation import find_one, generate
from ..runs.generation_jobs import GenerationRequest, output_stem
from ..runs.inputs import Item, find_inputs
from ..runs.invocation import NEUTRAL
from ..runs.outputs import and_more
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
            help="Apply the style of this image or latent file to every input.",
            show_default="the style of every other input",
        ),
        NEUTRAL,
    ] = None,
    mix: Annotated[
        float,
        typer.Option(
            "--mix",
            metavar="SHARE",
            help="Share of the other style, from 0 (original style) to 1 (fully swapped).",
        ),
    ] = 1.0,
    *,
    settings: GenerationSettings,
) -> None:
    """Render each image in the style of another.

    a.png b.png become a__style-b.png and b__style-a.png, each with its mask,
    a__style-b_mask.png; with more inputs, every ordered pair is generated. The
    output keeps the object's position and shape and the size and bit depth of
    the input; everything else comes from the other image: its object's pixels,
    brought to that position and shape, and its surroundings, where they are.
    Only what it does not show is generated. Such a result contains pixels of a
    scan: protect it as you protect the scan. With --detail invent, and from
    latent files, the whole image is generated in the other's style, with the
    noise of the input's reconstruction. With --mix both images' pixels are
    brought there and cross-faded. A grey model converts colour inputs to grey. A colour
    model treats grey as a style, and refuses to pair grey with colour images.
    Each generated image is segmented again, as in reconstruct.
    """
    if not 0 <= mix <= 1:
        raise UsageError(f"--mix {mix:g}: not between 0 and 1", hint="--mix 0.5 blends both styles equally")
    named = find_inputs(inputs, settings)
    style_item = None if style is None else find_one("--style", style, inputs or [], settings)
    if style_item is None and len(named.items) < 2:
        raise UsageError(
            "swap-style needs two or more images, or one image and --style",
            hint="give another image, or --style FILE",
        )
    code = generate(
        "swap-style",
        _requests(named.items, style_item, mix, settings.detail == "carry"),
        settings,
        many=named.many,
        columns=["style", "mix"],
        command_words=["--mix", f"{mix:g}"] if mix != 1 else [],
        titles=["image", "style"],
    )
    raise typer.Exit(code)


def _requests(items: Sequence[Item], style: Item | None, mix: float, carry: bool) -> list[GenerationRequest]:
    """Each input in the style of every other, or in that of `style`; an unusable input fails only once."""
    styles = [item for item in items if item.error is None] if style is None else [style]
    if len(styles) > 2:
        _refuse_namesakes(styles)
    requests: list[GenerationRequest] = []
    for item in items:
        if item.error is not None:
            requests.append(GenerationRequest((item,), item.stem))
            continue
        requests += [_request(item, other, mix, carry) for other in styles if other is not item]
    return requests


def _request(content: Item, style: Item, mix: float, carry: bool) -> GenerationRequest:
    return GenerationRequest(
        (content, style),
        output_stem(content, f"__style-{style.stem.name}"),
        edit=partial(_edit, mix, carry),
        row={"style": style.name, "mix": mix},
        record={"edit": {"mix": mix}},
    )


def _edit(mix: float, carry: bool, networks: "Networks", sources: "Sequence[Source]") -> "Draft":
    from ..inference.synthesis import swap_style

    return swap_style(networks, sources[0], sources[1], mix=mix, carry=carry)


def _refuse_namesakes(styles: Sequence[Item]) -> None:
    """OutputError for styles of one name, as the results for a third image would share one file."""
    owners: dict[str, list[str]] = {}
    for style in styles:
        owners.setdefault(style.stem.name.casefold(), []).append(style.name)
    clashes = [" and ".join(names) for names in owners.values() if len(names) > 1]
    if clashes:
        raise OutputError(
            f"{clashes[0]}: outputs in these styles would have the same name{and_more(clashes)}",
            hint="rename one of them",
        )
