"""Figures 3 and 4 in numbers: reconstructions by a model and by a DiffuseVAE, drawn again and again.

    python examples/benchmarks/diffusevae.py --data DIR --fold K --model REF --diffusevae REF
        [--count 16] [--steps 20] [--sheet FILE]

The second model is a single-headed VAE with a cDDPM of DiffuseVAE's form 2 (`train-vae --single-head`,
`train-cddpm --process diffusevae`), trained with the same budget. `--count` held-out images are reconstructed
by both, refined, at their own size and in 8 bits. Objects are those that `--model` finds, in all pictures:
  closed loop   Dice of the object in the image and in its reconstruction; mean of four draws.
  draws agree   Dice between the objects in two of the four draws, and |difference| of their pixels.
  third, drift  a draw is reconstructed, and that once more: Dice of the object in the last picture and in the
                image, and |difference| of their pixels.
Differences are means in grey levels of 255; ± is a standard error over images, in the last column that of the
paired difference. Refining costs twelve times `--count` times `--steps` evaluations of a network.
`--sheet` writes a picture: images, two draws and the third reconstruction by both models, with the objects.
"""

from itertools import combinations
from pathlib import Path

from common import held_out_arguments, table  # first: see there

# isort: split
import numpy as np
from sharpness import BATCH, held_out, pm

from mhvae_cli import Pipeline
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.render import overlay, sheet
from mhvae_cli.images.scan import scan_of
from mhvae_cli.images.transforms import to_native
from mhvae_cli.vae.editing import LatentCode

DRAWS, GENERATIONS, SHEET_ROWS = 4, 3, 6
MORE, LESS = "more", "less"
FIGURES = {
    "closed loop, Dice": (MORE, 4),
    "draws agree, Dice": (MORE, 4),
    "draws differ, grey levels": (LESS, 2),
    "third, Dice": (MORE, 4),
    "drift, grey levels": (LESS, 2),
}
"""Which is better, and digits."""

Pixels = list[np.ndarray]


def reconstructed(pipeline: Pipeline, images: Pixels, name: str, steps: int) -> Pixels:
    """Each image encoded, decoded and refined: uint8 of its own size. `name` names the noise's path."""
    made: Pixels = []
    for i in range(0, len(images), BATCH):
        part = images[i : i + BATCH]
        zs, thetas = pipeline.networks.encode(
            np.stack([pipeline.networks.prepare(scan_of(image)) for image in part])
        )
        sizes = [image.shape[:2] for image in part]
        codes = [LatentCode(z, theta, None, size) for z, theta, size in zip(zs, thetas, sizes, strict=True)]
        keys = [f"{name}/{i + k}" for k in range(len(part))]
        squares = pipeline.networks.refine(
            pipeline.networks.decode(codes), keys, steps=steps, strength=1.0, codes=codes
        )
        made += [to_native(square, size) for square, size in zip(squares, sizes, strict=True)]
    return made


def rounds(pipeline: Pipeline, images: Pixels, steps: int) -> tuple[list[Pixels], Pixels]:
    """The draws of each image, and its third reconstruction from the first of them."""
    draws = [reconstructed(pipeline, images, f"draw{k}", steps) for k in range(DRAWS)]
    last = draws[0]
    for k in range(1, GENERATIONS):
        last = reconstructed(pipeline, last, f"generation{k}", steps)
    return draws, last


def found(pipeline: Pipeline, images: Pixels) -> Pixels:
    """The object's mask in each image."""
    return [pipeline.segment(image).mask for image in images]


def measured(pipeline: Pipeline, images: Pixels, draws: list[Pixels], last: Pixels) -> list[np.ndarray]:
    """The FIGURES of one model's reconstructions, an array (N,) each. `pipeline` finds the objects."""
    own, ended, drawn = found(pipeline, images), found(pipeline, last), [found(pipeline, x) for x in draws]
    pairs = list(combinations(range(DRAWS), 2))
    rows = [
        (
            np.mean([dice(drawn[k][i], own[i]) for k in range(DRAWS)]),
            np.mean([dice(drawn[k][i], drawn[j][i]) for k, j in pairs]),
            np.mean([_apart(draws[k][i], draws[j][i]) for k, j in pairs]),
            dice(ended[i], own[i]),
            _apart(last[i], images[i]),
        )
        for i in range(len(images))
    ]
    return list(np.array(rows).T)


def show(ours: list[np.ndarray], theirs: list[np.ndarray]) -> None:
    """Print both and their difference."""
    rows = []
    for (name, (better, digits)), a, b in zip(FIGURES.items(), ours, theirs, strict=True):
        cells = [pm(x.mean(), x.std(ddof=1) / len(x) ** 0.5, digits) for x in (a, b, a - b)]
        won = (a.mean() > b.mean()) == (better == MORE)
        rows.append([name, *cells, f"{better} is better: {'met' if won else 'MISSED'}"])
    table(["", "model", "DiffuseVAE", "difference", "target"], *rows)


def drawn_sheet(pipeline: Pipeline, images: Pixels, *both: tuple[list[Pixels], Pixels]) -> np.ndarray:
    """The picture for a person: uint8 (H, W, 3)."""
    columns = [images]
    for draws, last in both:
        columns += [draws[0], draws[1], last]
    rows = []
    for row in zip(*(column[:SHEET_ROWS] for column in columns), strict=True):
        rows.append([overlay(image, pipeline.segment(image).contour()) for image in row])
    titles = [f"{name}{part}" for name in ("", "DiffuseVAE, ") for part in ("draw 1", "draw 2", "third")]
    return sheet(rows, ["image", *titles])


def main() -> None:
    """Reconstruct, measure, print."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--diffusevae", required=True)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--sheet", type=Path)
    args = parser.parse_args()
    pipeline, other = Pipeline.load(args.model), Pipeline.load(args.diffusevae)
    paths = held_out(args.data, args.fold, args.count)
    # What both see and make, so that differences are of the pictures and not of grey against colour.
    images = [
        to_native(pipeline.networks.prepare(scan), scan.pixels.shape[:2]) for scan in map(read_scan, paths)
    ]
    both = [rounds(each, images, args.steps) for each in (pipeline, other)]
    print(f"{args.model} and {args.diffusevae} on fold {args.fold} of {args.data}")
    print(f"{len(images)} images, {args.steps} evaluations")
    show(*(measured(pipeline, images, *each) for each in both))
    if args.sheet is not None:
        write_atomic(args.sheet, encode_png(drawn_sheet(pipeline, images, *both)))


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


if __name__ == "__main__":
    main()
