"""`mhvae warp INPUTS`: the object of each image in another place, size or shape (figures 6 and 8)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import typer

from ..errors import UsageError
from ..runs.console import print_warning
from ..runs.generation import find_inputs, find_one, generate
from ..runs.generation_jobs import GenerationRequest, output_stem
from ..runs.handle_drawings import draw_handles, need_spline
from ..runs.inputs import Item
from ..runs.invocation import NEUTRAL
from ..runs.settings import GenerationSettings
from . import options
from .generation_options import generative

if TYPE_CHECKING:
    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, Source

EXAMPLES = (
    "mhvae warp a.png --rotate 45 --scale 0.7 --out warped/",
    "mhvae warp a.png --shift 3mm,-2mm --spacing 0.12 --keep-background",
)

STIFF = 1.0
"""Pixels that an outline may stay away from its handles before it is told."""

Pair = tuple[float, float]


class _Edit(TypedDict):
    rotate: float
    scale: float
    shift: Pair
    about: Pair | Literal["object", "image"]
    moves: dict[int, Pair]
    keep_background: bool


@generative()
def warp(
    inputs: options.Inputs = None,
    rotate: Annotated[
        float | None,
        typer.Option(
            "--rotate",
            metavar="DEGREES",
            help="Turn the object counter-clockwise, as seen on the screen.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale", metavar="FACTOR", help="Scale the object: 0.5 halves its axes.", show_default=False
        ),
    ] = None,
    shift: Annotated[
        str | None,
        typer.Option(
            "--shift",
            metavar="X,Y",
            help="Then shift it, to the right and down: 12,-5 in pixels, 3mm,-2mm with --spacing.",
            show_default=False,
        ),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            "--spacing",
            metavar="MM|X,Y",
            help="Millimetres a pixel, for a shift in mm; X,Y where pixels are not square.",
            show_default=False,
        ),
    ] = None,
    about: Annotated[
        str,
        typer.Option(
            "--about",
            metavar="object|image|X,Y",
            help="What it is turned and scaled about: a centre, or a point in pixels.",
        ),
    ] = "object",
    move: Annotated[
        list[str] | None,
        typer.Option(
            "--move",
            metavar="K:DX,DY",
            help="First move handle K, 0 to 19, of a spline model's outline by pixels: 3:+12,-5. The others"
            " stay. May be given again. --handles shows where they are.",
            show_default=False,
        ),
    ] = None,
    handles: Annotated[
        bool,
        typer.Option(
            "--handles",
            help="Make nothing, but write NAME__handles.png: the image, its outline, and the handles that"
            " --move takes, with their numbers.",
        ),
    ] = False,
    theta: Annotated[
        str | None,
        typer.Option(
            "--theta",
            metavar="FILE",
            help="Before all else give the object the position and shape that this file of latents, or image,"
            " has.",
            show_default=False,
        ),
        NEUTRAL,
    ] = None,
    keep_background: Annotated[
        bool,
        typer.Option(
            "--keep-background",
            help="Keep the image's own pixels, to the bit, except where the object was and where it goes.",
        ),
    ] = False,
    *,
    settings: GenerationSettings,
) -> None:
    """Move, turn, scale or bend the object of each image.

    fetal.png with --rotate 45 --scale 0.7 becomes fetal__rot45_scale0.7.png
    and fetal__rot45_scale0.7_mask.png; the other parts of a name are
    theta-FILE, move3_12x-5, shift12x-5 (or shift3mmx-2mm) and keep. All is in
    pixels of the upright image, x to the right and y down, so that a turn is
    a turn on images that are not square, too.

    The whole picture is made anew: the VAE keeps the style and moves what
    goes with the object, the cDDPM invents the fine texture. With
    --keep-background only the object, the place it left and a rim of 2 % of
    the image's longer side are invented, and blend into the image itself.
    What is moved off the image is cut off; where nothing is left, the image
    fails. Each picture is segmented again, as reconstruct does.
    """
    asked = _Asked(rotate, scale, shift, spacing, about, tuple(move or ()), theta, keep_background)
    edit = asked.edit()
    named = find_inputs(inputs, settings)
    if handles and asked != _Asked():
        raise UsageError("--handles makes no picture, so no edit goes with it")
    if handles:
        raise typer.Exit(draw_handles(named, settings))
    if not asked.parts():
        raise UsageError("nothing to do", hint="--rotate 45, --scale 0.7, --shift 12,-5; see --help")
    position = () if theta is None else (find_one("--theta", theta, inputs or [], settings),)
    if move and not settings.dry_run:
        need_spline(settings)
    notes: list[str] = []
    ending = "__" + "_".join(asked.parts(*position))
    requests = [
        GenerationRequest(
            (item, *position), output_stem(item, ending), edit=partial(_warped, edit, item.name, notes)
        )
        for item in named.items
    ]
    titles = ["input", *(["position"] if position else [])]
    code = generate("warp", requests, settings, many=named.many, words=asked.words(), titles=titles)
    for note in () if settings.quiet else notes:
        print_warning(note)
    raise typer.Exit(code)


@dataclass(frozen=True)
class _Asked:
    """The edit as the user typed it."""

    rotate: float | None = None
    scale: float | None = None
    shift: str | None = None
    spacing: str | None = None
    about: str = "object"
    move: tuple[str, ...] = ()
    theta: str | None = None
    keep_background: bool = False

    def edit(self) -> "_Edit":
        """The keywords of `generation.Warping`; UsageError for what makes no sense."""
        rotate = 0.0 if self.rotate is None else self.rotate
        scale = 1.0 if self.scale is None else self.scale
        if not math.isfinite(rotate):
            raise UsageError(f"--rotate {rotate}: not a finite number")
        if not (math.isfinite(scale) and scale > 0):
            raise UsageError(f"--scale {scale:g}: not above 0", hint="0.5 halves, 2 doubles")
        about: Literal["object", "image"] | None
        about = "object" if self.about == "object" else "image" if self.about == "image" else None
        return {
            "rotate": rotate,
            "scale": scale,
            "shift": self._shift(),
            "about": about or _pair("--about", self.about, "object, image, or 40,30"),
            "moves": self._moves(),
            "keep_background": self.keep_background,
        }

    def parts(self, position: Item | None = None) -> list[str]:
        """What is edited, as a name tells it; `position` is the item of --theta."""
        shift = None if self.shift is None else _in_unit(self.shift)
        parts = [
            *([] if self.theta is None else [f"theta-{position.stem.name if position else ''}"]),
            *(f"move{k}_{dx:g}x{dy:g}" for k, (dx, dy) in self._moves().items()),
            *([] if self.rotate is None else [f"rot{self.rotate:g}"]),
            *([] if self.scale is None else [f"scale{self.scale:g}"]),
            *([] if shift is None else ["shift{0:g}{2}x{1:g}{2}".format(*shift)]),
        ]
        return [*parts, "keep"] if parts and self.keep_background else parts

    def words(self) -> list[str]:
        """The options as the made files tell them, less the names of files."""
        given = {
            "--theta": None if self.theta is None else "FILE",
            "--rotate": None if self.rotate is None else f"{self.rotate:g}",
            "--scale": None if self.scale is None else f"{self.scale:g}",
            "--shift": self.shift,
            "--spacing": self.spacing,
            "--about": None if self.about == "object" else self.about,
        }
        words = [word for name, value in given.items() if value is not None for word in (name, value)]
        words += [word for move in self.move for word in ("--move", move)]
        return [*words, *(["--keep-background"] if self.keep_background else [])]

    def _shift(self) -> Pair:
        """The shift in pixels."""
        x, y, unit = _in_unit(self.shift or "0,0")
        if unit and self.spacing is None:
            raise UsageError(f"--shift {self.shift}: how long is a pixel?", hint="--spacing 0.12 for 0.12 mm")
        if self.spacing is None:
            return x, y
        if not unit:
            raise UsageError("--spacing is for a shift in mm", hint="--shift 3mm,-2mm")
        both = self.spacing if "," in self.spacing else f"{self.spacing},{self.spacing}"
        width, height = _pair("--spacing", both, "0.12, or 0.12,0.15")
        if min(width, height) <= 0:
            raise UsageError(f"--spacing {self.spacing}: not above 0")
        return x / width, y / height

    def _moves(self) -> dict[int, Pair]:
        """The moves by their handles' numbers."""
        if not self.move:
            return {}
        from ..vae.editing import HANDLES

        moves: dict[int, Pair] = {}
        for text in self.move:
            number, _, by = text.partition(":")
            pair = _pair("--move", by, "3:+12,-5", text)
            if not (number.isascii() and number.isdigit() and int(number) < HANDLES):
                raise UsageError(f"--move {text}: handles are numbered 0 to {HANDLES - 1}")
            if int(number) in moves:
                raise UsageError(f"--move {text}: handle {number} is moved twice")
            moves[int(number)] = pair
        return moves


def _in_unit(shift: str) -> tuple[float, float, str]:
    """`12,-5` or `3mm,-2mm` as numbers and their unit, "" or "mm"."""
    parts = shift.replace(" ", "").split(",")
    metric = all(part.endswith("mm") for part in parts)
    bare = ",".join(part.removesuffix("mm") for part in parts) if metric else shift
    return *_pair("--shift", bare, "12,-5, or 3mm,-2mm with --spacing", shift), "mm" if metric else ""


def _pair(option: str, text: str, example: str, typed: str | None = None) -> Pair:
    """`X,Y` as two finite numbers; `typed` is what the user gave, if not all of it is `text`."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"{option} {typed or text}: not understood", hint=f"{option} {example}") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise UsageError(f"{option} {typed or text}: not finite numbers")
    return x, y


def _warped(
    edit: _Edit, name: str, notes: list[str], networks: "Networks", sources: "Sequence[Source]"
) -> "Draft":
    from ..inference.synthesis import Warping, warp_image

    position = sources[1].code if len(sources) > 1 else None
    draft, away = warp_image(networks, sources[0], Warping(**edit), position=position)
    if away > STIFF:
        notes.append(
            f"{name}: the spline is too stiff: its outline stays {away:.1f} px from a handle's place"
        )
    return draft
