"""`mhvae interpolate A B`: images between two images (figure 9, appendix F)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..runs.generation import Compilation, generate
from ..runs.generation_jobs import CELL, GenerationRequest, output_stem
from ..runs.inputs import Item, find_inputs
from ..runs.invocation import NEUTRAL
from ..runs.settings import GenerationSettings
from . import options
from .generation_options import generative

if TYPE_CHECKING:
    import numpy as np

    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, GeneratedImage, Source

EXAMPLES = (
    "mhvae interpolate a.png b.png --gif --out way/",
    "mhvae interpolate a.png b.png --grid --frames 5 --out grid/",
)

FRAMES = 7
MAX_FRAMES = 100
"""Limit on --frames for a GIF or a grid, whose reduced images are all held in memory."""
GIF_SIDE, GIF_MS = 512, 2000
"""Maximum longer side of an animation in pixels, and the duration of one direction in milliseconds."""
GRID_SIDE = 4096
"""Maximum side of a grid sheet in pixels."""


@generative()
def interpolate(
    inputs: options.Inputs = None,
    frames: Annotated[
        int,
        typer.Option(
            "--frames",
            min=2,
            metavar="N",
            help="Number of images, or of images along each axis of a grid, including both ends.",
        ),
        NEUTRAL,
    ] = FRAMES,
    grid: Annotated[
        bool,
        typer.Option(
            "--grid",
            help="Generate N x N images: style varies along rows, position along columns, from the first"
            " image"
            " to the second. Also writes a sheet of the grid.",
        ),
    ] = False,
    style_only: Annotated[
        bool, typer.Option("--style-only", help="Keep the first image's position.")
    ] = False,
    position_only: Annotated[
        bool, typer.Option("--position-only", help="Keep the first image's style.")
    ] = False,
    gif: Annotated[
        bool,
        typer.Option(
            "--gif",
            help=f"Also write a GIF that plays forth and back, at most {GIF_SIDE} px and {MAX_FRAMES}"
            f" frames.",
        ),
        NEUTRAL,
    ] = False,
    *,
    settings: GenerationSettings,
) -> None:
    """Interpolate between two images in style, position or both.

    a.png b.png become a__to-b_0.png to a__to-b_6.png, each with its mask, and
    with --gif also a__to-b.gif. With --grid the outputs are a__to-b_r0_c0.png
    and so on (r is the row, c the column), and the sheet is a__to-b_grid.png.
    All outputs have the size and bit depth of the first image. Each shows the
    pixels of both images, moved to its position and cross-faded; only what
    neither shows is generated, always with the same noise. Such results
    contain pixels of the scans: protect them as you protect the scans. With
    --detail invent, and from latent files, the whole images are generated.
    --frames sets
    the number of images, --steps the diffusion steps for each. Exactly two
    inputs are required; with a colour model both must be colour or both grey.
    """
    modes = {"--grid": grid, "--style-only": style_only, "--position-only": position_only}
    chosen = [name for name, on in modes.items() if on]
    _check(chosen, settings, frames=frames, gif=gif)
    named = find_inputs(inputs, settings)
    if len(named.items) != 2:
        raise UsageError(f"interpolate needs exactly two images, got {len(named.items)}")
    for item in named.items:
        if item.error is not None:
            raise item.error
    a, b = named.items
    thumbnails: list[np.ndarray] = []
    compilation, collect = None, None
    if grid or gif:
        side = min(CELL, GRID_SIDE // frames) if grid else GIF_SIDE
        encode = partial(_encode_sheet, thumbnails, side) if grid else partial(_encode_animation, thumbnails)
        record = {"frames": frames, "mode": chosen}
        compilation = Compilation((a, b), _stem(a, b), "_grid.png" if grid else ".gif", encode, record)
        collect = partial(_collect, thumbnails, side)
    requests = [
        _request(a, b, ending, style, position, settings.detail == "carry")
        for ending, style, position in _shares(frames, chosen[0] if chosen else None)
    ]
    code = generate(
        "interpolate",
        requests,
        replace(settings, on_error="stop"),  # all results depend on the same two images
        many=True,
        columns=["to", "style", "position"],
        command_words=chosen,
        titles=["from", "to"],
        collect=collect,
        compilation=compilation,
    )
    raise typer.Exit(code)


def _check(chosen: Sequence[str], settings: GenerationSettings, *, frames: int, gif: bool) -> None:
    """UsageError for options that exclude each other."""
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} exclude each other", hint="leave one of them out")
    if gif and "--grid" in chosen:
        raise UsageError("--gif and --grid exclude each other", hint="leave one of them out")
    whole = "--gif" if gif else "--grid" if "--grid" in chosen else None
    if whole and frames > MAX_FRAMES:
        raise UsageError(f"{whole} allows at most --frames {MAX_FRAMES}, got {frames}")
    if whole and settings.shard is not None:
        raise UsageError(f"{whole} and --shard exclude each other", hint="leave one of them out")


def _shares(frames: int, mode: str | None) -> list[tuple[str, float, float]]:
    """The ending of each image's name, and the shares of b, from 0 to 1, in its style and its position."""
    numbers = [str(number).zfill(len(str(frames - 1))) for number in range(frames)]
    steps = [(number, index / (frames - 1)) for index, number in enumerate(numbers)]
    if mode == "--grid":
        return [(f"_r{r}_c{c}", style, position) for r, position in steps for c, style in steps]
    varied = {"--style-only": (1.0, 0.0), "--position-only": (0.0, 1.0)}.get(mode or "", (1.0, 1.0))
    return [(f"_{number}", share * varied[0], share * varied[1]) for number, share in steps]


def _stem(a: Item, b: Item) -> PurePath:
    return output_stem(a, f"__to-{b.stem.name}")


def _request(a: Item, b: Item, ending: str, style: float, position: float, carry: bool) -> GenerationRequest:
    shares = {"style": round(style, 4), "position": round(position, 4)}
    return GenerationRequest(
        (a, b),
        output_stem(a, f"__to-{b.stem.name}{ending}"),
        edit=partial(_edit, style, position, carry),
        row={"to": b.name, **shares},
        record={"edit": shares},
    )


def _edit(
    style: float, position: float, carry: bool, networks: "Networks", sources: "Sequence[Source]"
) -> "Draft":
    from ..inference.synthesis import interpolate_codes

    return interpolate_codes(networks, sources[0], sources[1], style=style, position=position, carry=carry)


def _collect(
    thumbnails: "list[np.ndarray]", side: int, _job: GenerationRequest, picture: "GeneratedImage"
) -> None:
    """Keep a reduced copy, at most `side` px on its longer side and in its own bit depth without a window."""
    import numpy as np
    from PIL import Image

    from ..images.transforms import to_uint8

    pixels = picture.pixels if picture.window is None else to_uint8(picture.pixels, picture.window)
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = [max(1, round(length * scale)) for length in pixels.shape[1::-1]]
    grey = pixels.astype(np.float32) if pixels.dtype == np.uint16 else pixels
    small = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)
    thumbnails.append(np.rint(np.asarray(small)).astype(pixels.dtype))


def _to_uint8(images: "Sequence[np.ndarray]") -> "list[np.ndarray]":
    """Images as uint8; those of 16 bits share one window, so that brightness is comparable between them."""
    import numpy as np

    from ..images.transforms import to_uint8

    return np.split(to_uint8(np.concatenate(images)), len(images))


def _encode_animation(thumbnails: "Sequence[np.ndarray]", text: Mapping[str, str]) -> bytes:
    """The GIF, forth and back, with each end shown once."""
    from ..images.encode import encode_gif

    forth = _to_uint8(thumbnails)
    return encode_gif([*forth, *forth[-2:0:-1]], ms_per_frame=max(20, GIF_MS // len(forth)), text=text)


def _encode_sheet(thumbnails: "Sequence[np.ndarray]", cell: int, text: Mapping[str, str]) -> bytes:
    """The grid as one PNG."""
    from ..images.encode import encode_png
    from ..images.render import sheet

    images, frames = _to_uint8(thumbnails), math.isqrt(len(thumbnails))
    rows = [images[first : first + frames] for first in range(0, len(images), frames)]
    titles = [f"style {column / (frames - 1):.0%}" for column in range(frames)]
    return encode_png(sheet(rows, titles, cell=cell), text=text)
