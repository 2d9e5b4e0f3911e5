"""Figure 9: whether an interpolation is smooth, and whether style and position move apart.

    python examples/benchmarks/interpolation.py --data DIR --fold K --model REF
        [--count 24] [--frames 9] [--steps N]

DIR holds images/ and index.csv with the columns id and fold. `--count` images of the fold are interpolated
to the next one each, in `--frames` frames from one to the other: in style and position at once, in style
alone, and in position alone; the VAE's pictures, the refined ones ("invented", as in the paper) and those
that carry the images' own pixels, at the first image's size.
  largest step   between two frames in turn, as a multiple of the mean step; 1 is even. A step is the RMS
                 difference in grey levels, or 1 - Dice of the objects found in both.
  way            the sum of the steps in grey levels as a multiple of the difference of the ends; a straight
                 cross-fade is 1, frames of their own at each step are more.
  moved          in style alone, 1 - Dice of the object found in a frame and the one found in the first.
  style kept     in position alone, how often the style code found in the last frame is nearer to that of the
                 first image than to any of the other images'.
± is a standard error over pairs. The figures mean something only if the model was not trained on the fold.
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from common import held_out_arguments, table  # first: see there

# isort: split
import numpy as np
from generation import Found, find
from sharpness import BATCH, held_out, pm

from mhvae_cli import Pipeline
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.images.scan import scan_of
from mhvae_cli.inference.synthesis import GeneratedImage, Source, interpolate_codes, make

MOVES = {"both": (1, 1), "style": (1, 0), "position": (0, 1)}
SORTS = {"VAE": (False, False), "invented": (False, True), "carried": (True, True)}
"""Whether pixels are carried, and whether the cDDPM refines."""


def frames(
    pipeline: Pipeline, a: Source, b: Source, move: str, sort: str, *, count: int, steps: int | None
) -> list[GeneratedImage]:
    """The pictures from one image to another."""
    (style, position), (carry, refine) = MOVES[move], SORTS[sort]
    between = partial(interpolate_codes, pipeline.networks, a, b, carry=carry)
    drafts = [between(style=style * share, position=position * share) for share in np.linspace(0, 1, count)]
    made: list[GeneratedImage] = []
    for i in range(0, count, BATCH):
        made += make(pipeline.networks, drafts[i : i + BATCH], refine=refine, steps=steps)
    return made


def look(pipeline: Pipeline, made: Sequence[GeneratedImage]) -> Found:
    """What the model finds in the pictures."""
    return find(pipeline, [scan_of(image.pixels) for image in made], [image.code for image in made])


def unevenness(steps: Sequence[float]) -> float:
    """The largest of some steps as a multiple of their mean; 1 if nothing moves."""
    return float(max(steps) / np.mean(steps)) if max(steps) > 0 else 1.0


def distance(a: GeneratedImage, b: GeneratedImage) -> float:
    """The RMS difference of two pictures, in grey levels of 255."""
    return float(np.sqrt(np.square(a.pixels.astype(float) - b.pixels).mean()))


def examine(made: Sequence[GeneratedImage], found: Found, move: str, styles: np.ndarray) -> dict[str, float]:
    """The figures of one interpolation; `styles` (N, Z) begins with the first image's own style code."""
    steps = [distance(*pair) for pair in pairwise(made)]
    rows = {
        "largest step, grey levels": unevenness(steps),
        "way": sum(steps) / max(distance(made[0], made[-1]), 1e-9),
    }
    if move != "style":
        rows["largest step, object"] = unevenness([1 - dice(*pair) for pair in pairwise(found.masks)])
    if move == "style":
        rows["moved"] = float(np.mean([1 - dice(found.masks[0], mask) for mask in found.masks[1:]]))
    if move == "position":
        rows["style kept"] = float(np.linalg.norm(found.z[-1] - styles, axis=1).argmin() == 0)
    return rows


def main() -> None:
    """Interpolate, print."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--frames", type=int, default=9)
    args = parser.parse_args()
    pipeline = Pipeline.load(args.model)
    sources = [pipeline.source(path) for path in held_out(args.data, args.fold, args.count)]
    sources = [source for source in sources if pipeline.networks.mask_of(source.code).any()]
    styles = np.stack([source.code.z for source in sources])
    figures: dict[tuple[str, str], dict[str, list[float]]] = {}
    for number, source in enumerate(sources):
        other = sources[(number + 1) % len(sources)]
        for sort in SORTS:
            for move in MOVES:
                made = frames(pipeline, source, other, move, sort, count=args.frames, steps=args.steps)
                rows = examine(made, look(pipeline, made), move, np.roll(styles, -number, axis=0))
                for name, value in rows.items():
                    figures.setdefault((move, name), {}).setdefault(sort, []).append(value)
    print(f"{len(sources)} pairs of fold {args.fold} of {args.data}, {args.frames} frames each")
    body = []
    for (move, name), values in figures.items():
        cells = [pm(np.mean(x), np.std(x, ddof=1) / len(x) ** 0.5, 3) for x in values.values()]
        body.append([move, name, *cells])
    table(["from one to the other in", "", *SORTS], *body)


if __name__ == "__main__":
    main()
