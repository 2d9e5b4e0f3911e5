"""`mhvae interpolate A B`: the pictures on the way from one image to another (figure 9, appendix F)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..runs.generation import Compilation, find_inputs, generate
from ..runs.generation_jobs import CELL, GenerationRequest, output_stem
from ..runs.inputs import Item
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
MOST = 100
"""Frames along an axis of what has all pictures in it, small, in memory."""
GIF_SIDE, GIF_MS = 512, 2000
"""Of an animation: its longer side in pixels at most, and the milliseconds that the way takes."""
GRID_SIDE = 4096
"""Side in pixels of the sheet of a grid, at most."""


@generative()
def interpolate(
    inputs: options.Inputs = None,
    frames: Annotated[
        int,
        typer.Option(
            "--frames",
            min=2,
            metavar="N",
            help="Pictures on the way, or along each axis of a grid, the ends among them.",
        ),
        NEUTRAL,
    ] = FRAMES,
    grid: Annotated[
        bool,
        typer.Option(
            "--grid",
            help="N x N pictures: along a row the style goes from the first image to the second, down a"
            " column the position. Their sheet is written too.",
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
            "--gif", help=f"Also write a GIF, there and back, {GIF_SIDE} px at most; for up to {MOST} frames."
        ),
        NEUTRAL,
    ] = False,
    *,
    settings: GenerationSettings,
) -> None:
    """Make the pictures on the way from one image to another, in style, position or both.

    a.png b.png become a__to-b_0.png to a__to-b_6.png, each with its mask, and
    with --gif a__to-b.gif. With --grid they are a__to-b_r0_c0.png and so on,
    r the row and c the column, and the sheet is a__to-b_grid.png. All have
    the size and depth of the first image, and one path of noise, so that
    what differs comes of the codes. --steps is the cDDPM's work on each
    picture; --frames is their number. Two images are wanted, both in colour
    or both grey where the model is of colour.
    """
    modes = {"--grid": grid, "--style-only": style_only, "--position-only": position_only}
    chosen = [name for name, on in modes.items() if on]
    _check(chosen, settings, frames=frames, gif=gif)
    named = find_inputs(inputs, settings)
    if len(named.items) != 2:
        raise UsageError(f"a way goes from one image to another: not {len(named.items)}", hint="name two")
    for item in named.items:
        if item.fault is not None:
            raise item.fault
    a, b = named.items
    kept: list[np.ndarray] = []
    album, collect = None, None
    if grid or gif:
        side = min(CELL, GRID_SIDE // frames) if grid else GIF_SIDE
        encode = partial(_sheet, kept, side) if grid else partial(_animation, kept)
        way = {"frames": frames, "mode": chosen}
        album = Compilation((a, b), _stem(a, b), "_grid.png" if grid else ".gif", encode, way)
        collect = partial(_keep, kept, side)
    requests = [
        _request(a, b, mark, style, position)
        for mark, style, position in _codes(frames, chosen[0] if chosen else None)
    ]
    code = generate(
        "interpolate",
        requests,
        replace(settings, on_error="stop"),  # all are made from the same two images
        many=True,
        columns=["to", "style", "position"],
        words=[*(["--frames", str(frames)] if frames != FRAMES else []), *chosen],
        titles=["from", "to"],
        collect=collect,
        compilation=album,
    )
    raise typer.Exit(code)


def _check(chosen: Sequence[str], settings: GenerationSettings, *, frames: int, gif: bool) -> None:
    """UsageError for options that make no sense together."""
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]}: one or the other")
    if gif and "--grid" in chosen:
        raise UsageError("--gif shows one way, and --grid has many", hint="leave one of them out")
    whole = "--gif" if gif else "--grid" if "--grid" in chosen else None
    if whole and frames > MOST:
        raise UsageError(f"{whole} takes {MOST} --frames at most, not {frames}")
    if whole and settings.shard is not None:
        raise UsageError(f"{whole} needs all pictures in one run: no --shard with it")


def _codes(frames: int, mode: str | None) -> list[tuple[str, float, float]]:
    """The ending of each picture's name, and how far its style and its position are from a (0) to b (1)."""
    numbers = [str(number).zfill(len(str(frames - 1))) for number in range(frames)]
    steps = [(number, index / (frames - 1)) for index, number in enumerate(numbers)]
    if mode == "--grid":
        return [(f"_r{r}_c{c}", style, position) for r, position in steps for c, style in steps]
    still = {"--style-only": (1.0, 0.0), "--position-only": (0.0, 1.0)}.get(mode or "", (1.0, 1.0))
    return [(f"_{number}", share * still[0], share * still[1]) for number, share in steps]


def _stem(a: Item, b: Item) -> PurePath:
    return output_stem(a, f"__to-{b.stem.name}")


def _request(a: Item, b: Item, mark: str, style: float, position: float) -> GenerationRequest:
    shares = {"style": round(style, 4), "position": round(position, 4)}
    return GenerationRequest(
        (a, b),
        output_stem(a, f"__to-{b.stem.name}{mark}"),
        edit=partial(_midway, style, position),
        row={"to": b.name, **shares},
        record={"edit": shares},
    )


def _midway(style: float, position: float, networks: "Networks", sources: "Sequence[Source]") -> "Draft":
    from ..inference.synthesis import interpolate_codes

    return interpolate_codes(networks, sources[0], sources[1], style=style, position=position)


def _keep(kept: "list[np.ndarray]", side: int, _wish: GenerationRequest, picture: "GeneratedImage") -> None:
    """A picture, at its own depth if it has no window, its longer side `side` px at most."""
    import numpy as np
    from PIL import Image

    from ..images.transforms import to_uint8

    pixels = picture.pixels if picture.window is None else to_uint8(picture.pixels, picture.window)
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = [max(1, round(length * scale)) for length in pixels.shape[1::-1]]
    grey = pixels.astype(np.float32) if pixels.dtype == np.uint16 else pixels
    small = Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR)
    kept.append(np.rint(np.asarray(small)).astype(pixels.dtype))


def _screened(kept: "Sequence[np.ndarray]") -> "list[np.ndarray]":
    """uint8 pictures; those of 16 bits through one window, so that one brightness is one number in all."""
    import numpy as np

    from ..images.transforms import to_uint8

    return np.split(to_uint8(np.concatenate(kept)), len(kept))


def _animation(kept: "Sequence[np.ndarray]", text: Mapping[str, str]) -> bytes:
    """The GIF: there and back, the ends shown once."""
    from ..images.encode import encode_gif

    there = _screened(kept)
    return encode_gif([*there, *there[-2:0:-1]], ms_per_frame=max(20, GIF_MS // len(there)), text=text)


def _sheet(kept: "Sequence[np.ndarray]", cell: int, text: Mapping[str, str]) -> bytes:
    """The grid as one PNG."""
    from ..images.encode import encode_png
    from ..images.render import sheet

    pictures, frames = _screened(kept), math.isqrt(len(kept))
    rows = [pictures[first : first + frames] for first in range(0, len(pictures), frames)]
    titles = [f"style {column / (frames - 1):.0%}" for column in range(frames)]
    return encode_png(sheet(rows, titles, cell=cell), text=text)
