"""`mhvae warp INPUTS`: move, rotate, scale or deform the object in each image (figures 6 and 8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import typer

from ..errors import UsageError
from ..runs.console import print_warning
from ..runs.generation import find_one, generate
from ..runs.generation_jobs import GenerationRequest, output_stem
from ..runs.handle_drawings import draw_handles, need_spline
from ..runs.inputs import Item, find_inputs
from ..runs.invocation import MAX_NUMBER, NEUTRAL
from ..runs.settings import GenerationSettings
from . import options
from .generation_options import generative

if TYPE_CHECKING:
    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, Source

EXAMPLES = (
    "mhvae warp a.png --rotate 45 --scale 0.7 --out warped/",
    "mhvae warp a.png --shift 3mm,-2mm --spacing 0.12 --out shifted/",
)

MAX_HANDLE_DISTANCE = 1.0
"""Distance in pixels between an outline and its handles that is tolerated without a warning."""

Pair = tuple[float, float]


class _WarpingOptions(TypedDict):
    rotate: float
    scale: float
    shift: Pair
    about: Pair | Literal["object", "image"]
    moves: dict[int, Pair]


@generative()
def warp(
    inputs: options.Inputs = None,
    rotate: Annotated[
        float | None,
        typer.Option(
            "--rotate",
            metavar="DEGREES",
            help="Rotate the object counter-clockwise, as seen on the screen.",
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
            help="Then shift it right and down: 12,-5 in pixels, or 3mm,-2mm with --spacing.",
            show_default=False,
        ),
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(
            "--spacing",
            metavar="MM|X,Y",
            help="Pixel size in mm, for a shift in mm; X,Y if pixels are not square.",
            show_default=False,
        ),
    ] = None,
    about: Annotated[
        str,
        typer.Option(
            "--about",
            metavar="object|image|X,Y",
            help="Centre of rotation and scaling: the centre of the object or the image, or X,Y in pixels.",
        ),
    ] = "object",
    move: Annotated[
        list[str] | None,
        typer.Option(
            "--move",
            metavar="K:DX,DY",
            help="First move handle K (0 to 19) of the outline by DX,DY pixels, as in 3:+12,-5; the other"
            " handles"
            " stay. Spline models only; repeatable. --handles shows the handles.",
            show_default=False,
        ),
    ] = None,
    handles: Annotated[
        bool,
        typer.Option(
            "--handles",
            help="Only write NAME__handles.png: the image with its outline and the numbered handles for"
            " --move.",
        ),
    ] = False,
    theta: Annotated[
        str | None,
        typer.Option(
            "--theta",
            metavar="FILE",
            help="Before any other edit, replace the object's position and shape by those in this latent"
            " file or"
            " image.",
            show_default=False,
        ),
        NEUTRAL,
    ] = None,
    *,
    settings: GenerationSettings,
) -> None:
    """Move, rotate, scale or deform the object in each image.

    fetal.png with --rotate 45 --scale 0.7 becomes fetal__rot45_scale0.7.png
    and fetal__rot45_scale0.7_mask.png; other parts of a name are theta-FILE,
    move3_12x-5 and shift12x-5 (or shift3mmx-2mm). Coordinates are pixels of the
    upright image, x to the right and y down, so rotations are exact even if
    the image is not square.

    The object's own pixels move, with a margin of 2.5 % of the image's side;
    everything else stays where it is, markings burnt into the image included.
    Only the area that the object left, and what lies beyond the image's edge,
    is generated. The result contains pixels of the scan: protect it as you
    protect the scan. With --detail invent, and from latent files, the whole
    image is generated. An object moved partly off the image is cropped; if
    nothing of it is left, the input fails. Each image is segmented again, as
    in reconstruct.
    """
    requested = _Edit(rotate, scale, shift, spacing, about, tuple(move or ()), theta)
    edit = requested.keywords()
    named = find_inputs(inputs, settings)
    if handles and requested != _Edit():
        raise UsageError("--handles writes no edited image", hint="leave the edit options out")
    if handles:
        raise typer.Exit(draw_handles(named, settings))
    if not requested.parts():
        raise UsageError(
            "no edit given", hint="for example --rotate 45, --scale 0.7 or --shift 12,-5; see --help"
        )
    position = () if theta is None else (find_one("--theta", theta, inputs or [], settings),)
    if move and not settings.dry_run:
        need_spline(settings)
    warnings: list[str] = []
    ending = "__" + "_".join(requested.parts(*position))
    requests = [
        GenerationRequest(
            (item, *position),
            output_stem(item, ending),
            edit=partial(_warp, edit, settings.detail == "carry", item.name, warnings),
        )
        for item in named.items
    ]
    titles = ["input", *(["position"] if position else [])]
    code = generate(
        "warp", requests, settings, many=named.many, command_words=requested.command_words(), titles=titles
    )
    for warning in () if settings.quiet else warnings:
        print_warning(warning)
    raise typer.Exit(code)


@dataclass(frozen=True)
class _Edit:
    """The edit as given on the command line."""

    rotate: float | None = None
    scale: float | None = None
    shift: str | None = None
    spacing: str | None = None
    about: str = "object"
    move: tuple[str, ...] = ()
    theta: str | None = None

    def keywords(self) -> _WarpingOptions:
        """The keywords of `synthesis.Warping`; UsageError for invalid values."""
        about: Literal["object", "image"] | None
        about = "object" if self.about == "object" else "image" if self.about == "image" else None
        return {
            "rotate": 0.0 if self.rotate is None else self.rotate,
            "scale": 1.0 if self.scale is None else self.scale,
            "shift": self._shift(),
            "about": about or _pair("--about", self.about, "object, image or 40,30"),
            "moves": self._moves(),
        }

    def parts(self, position: Item | None = None) -> list[str]:
        """The edits as parts of a file name; `position` is the item of --theta."""
        shift = None if self.shift is None else _in_unit(self.shift)
        return [
            *([] if self.theta is None else [f"theta-{position.stem.name if position else ''}"]),
            *(f"move{k}_{dx:g}x{dy:g}" for k, (dx, dy) in self._moves().items()),
            *([] if self.rotate is None else [f"rot{self.rotate:g}"]),
            *([] if self.scale is None else [f"scale{self.scale:g}"]),
            *([] if shift is None else ["shift{0:g}{2}x{1:g}{2}".format(*shift)]),
        ]

    def command_words(self) -> list[str]:
        """The options as recorded in output files, without file names."""
        given = {
            "--theta": None if self.theta is None else "FILE",
            "--rotate": None if self.rotate is None else f"{self.rotate:g}",
            "--scale": None if self.scale is None else f"{self.scale:g}",
            "--shift": self.shift,
            "--spacing": self.spacing,
            "--about": None if self.about == "object" else self.about,
        }
        words = [word for name, value in given.items() if value is not None for word in (name, value)]
        return [*words, *(word for move in self.move for word in ("--move", move))]

    def _shift(self) -> Pair:
        """The shift in pixels."""
        x, y, unit = _in_unit(self.shift or "0,0")
        if unit and self.spacing is None:
            raise UsageError(
                "--shift in mm needs --spacing", hint="for example --spacing 0.12 for 0.12 mm per pixel"
            )
        if self.spacing is None:
            return x, y
        if not unit:
            raise UsageError("--spacing needs a --shift in mm", hint="for example --shift 3mm,-2mm")
        both = self.spacing if "," in self.spacing else f"{self.spacing},{self.spacing}"
        width, height = _pair("--spacing", both, "0.12 or 0.12,0.15")
        if min(width, height) <= 0:
            raise UsageError(f"--spacing {self.spacing}: must be positive")
        return x / width, y / height

    def _moves(self) -> dict[int, Pair]:
        """The moves, by handle number."""
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
                raise UsageError(f"--move {text}: handle {number} is given twice")
            moves[int(number)] = pair
        return moves


def _in_unit(shift: str) -> tuple[float, float, str]:
    """`12,-5` or `3mm,-2mm` as two numbers and their unit, "" or "mm"."""
    parts = shift.replace(" ", "").split(",")
    metric = all(part.endswith("mm") for part in parts)
    bare = ",".join(part.removesuffix("mm") for part in parts) if metric else shift
    return *_pair("--shift", bare, "12,-5 or 3mm,-2mm with --spacing", shift), "mm" if metric else ""


def _pair(option: str, text: str, example: str, typed: str | None = None) -> Pair:
    """`X,Y` as two finite numbers; `typed` is what the user gave, if it differs from `text`."""
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} {typed or text}: cannot be parsed", hint=f"for example {option} {example}"
        ) from None
    if not all(abs(value) <= MAX_NUMBER for value in (x, y)):
        raise UsageError(f"{option} {typed or text}: not sensible numbers")
    return x, y


def _warp(
    edit: _WarpingOptions,
    carry: bool,
    name: str,
    warnings: list[str],
    networks: "Networks",
    sources: "Sequence[Source]",
) -> "Draft":
    from ..inference.synthesis import Warping, warp_image

    position = sources[1].code if len(sources) > 1 else None
    draft, distance = warp_image(networks, sources[0], Warping(**edit), position=position, carry=carry)
    if distance > MAX_HANDLE_DISTANCE:
        warnings.append(
            f"{name}: the spline is too stiff: its outline is {distance:.1f} px away from a moved handle"
        )
    return draft
