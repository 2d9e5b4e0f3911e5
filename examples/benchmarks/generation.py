"""Whether a model's pictures show what was asked for: closed loops, disentangling and sharpness, held out.

    python examples/benchmarks/generation.py --data DIR --fold K --model REF
        [--count 100] [--steps N] [--json]

DIR holds images/ and index.csv with the columns id and fold; `--count` images of the fold are taken. Each is
reconstructed, swapped (in the style of the next one) and warped (turned by 45 degrees and scaled by 0.7 about
its object); the VAE's pictures, the refined ones ("invented", as in the paper) and, of the edits, those that
carry the images' own pixels, all at the images' own size, are then encoded again:
  Dice         the object as it was asked for, and as it is found in the picture.
  moved        after swap-style, 1 - Dice of the object found and the image's own, as it is found there; and
               of the one found in its own reconstruction, which leaves what the style alone moves.
  style found  how often the style code found in the picture is nearer (Euclid) to the one that it was made
               with than to any of 50 others', drawn from the fold.
  sharpness    see sharpness.py; of the reconstructions.
  least        the smallest Dice of a warp.
± is a standard error. The figures mean something only if the model was not trained on the fold. Refining
costs five times `--count` times `--steps` evaluations of the network, by default those of mhvae.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import evaluations, held_out_arguments, table  # first: see there

# isort: split
import numpy as np
import torch
from sharpness import BATCH, held_out, pictures, pm, real_images, sharpness, show

from mhvae_cli import Pipeline
from mhvae_cli.config import STEPS
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.images.scan import Scan, scan_of
from mhvae_cli.images.transforms import to_native
from mhvae_cli.inference.looking import encode, view_of
from mhvae_cli.inference.synthesis import Source, Warping, make, warp_image
from mhvae_cli.inference.synthesis import swap_style as swap
from mhvae_cli.vae.editing import LatentCode, blend, transform_code

OTHERS = 50
KINDS = ("reconstruct", "swap-style", "warp")
TARGETS = {
    "Dice, reconstruct": (">=", 0.95),
    "Dice, swap-style": (">=", 0.90),
    "Dice, warp": (">=", 0.90),
    "moved, swap-style": ("<", 0.05),
    "style found, warp": (">=", 0.95),
}
"""Of the refined pictures."""
CARRIED = {"Dice, swap-style": 0.96, "Dice, warp": 0.96, "style found, warp": 0.95}
"""Of the carried ones, at least."""


@dataclass(frozen=True)
class Found:
    """What the model finds in N pictures: style codes (N, Z), and masks bool of the images' own sizes."""

    z: np.ndarray
    masks: list[np.ndarray]


def written(squares: np.ndarray, codes: Sequence[LatentCode]) -> list[Scan]:
    """Pictures (N, C, S, S) as they are once they are written at their codes' sizes."""
    return [scan_of(to_native(square, code.size)) for square, code in zip(squares, codes, strict=True)]


def carried(pipeline: Pipeline, sources: Sequence[Source], steps: int | None) -> dict[str, list[Scan]]:
    """The edits that carry the sources' own pixels."""
    networks, edit = pipeline.networks, Warping(rotate=45, scale=0.7)
    drafts = {
        "swap-style": [swap(networks, a, b) for a, b in zip(sources, _next(sources), strict=True)],
        "warp": [warp_image(networks, source, edit)[0] for source in sources],
    }
    made = {
        kind: [make(networks, each[i : i + BATCH], steps=steps) for i in range(0, len(each), BATCH)]
        for kind, each in drafts.items()
    }
    return {
        kind: [scan_of(picture.pixels) for batch in each for picture in batch] for kind, each in made.items()
    }


def find(pipeline: Pipeline, scans: Sequence[Scan], codes: Sequence[LatentCode]) -> Found:
    """Look at pictures again."""
    networks = pipeline.networks
    found = [encode(networks, view_of(networks, scan)) for scan in scans]
    masks = [networks.mask_of(each, code.size) for each, code in zip(found, codes, strict=True)]
    return Found(np.stack([each.z for each in found]), masks)


def edited(pipeline: Pipeline, codes: Sequence[LatentCode]) -> dict[str, list[LatentCode]]:
    """The codes of the pictures to be made."""
    swapped = [blend(code, style) for code, style in zip(codes, _next(codes), strict=True)]
    warped = [
        transform_code(code, about=pipeline.networks.centre(code), rotate=45, scale=0.7) for code in codes
    ]
    return dict(zip(KINDS, (list(codes), swapped, warped), strict=True))


def retrieved(found: np.ndarray, wanted: Sequence[int], pool: np.ndarray) -> np.ndarray:
    """Whether found codes (N, Z) are nearer to the wanted rows of `pool` (M, Z) than to 50 others': (N,)."""
    rng, right = np.random.default_rng(0), []
    for z, source in zip(found, wanted, strict=True):
        others = np.delete(pool, source, axis=0)
        others = others[rng.permutation(len(others))[:OTHERS]]
        right.append(np.linalg.norm(z - pool[source]) < np.linalg.norm(z - others, axis=1).min())
    return np.array(right)


def overlap(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Dice of each pair of masks, (N,)."""
    return np.array([dice(*pair) for pair in zip(a, b, strict=True)])


def examine(
    asked: dict[str, list[np.ndarray]], found: dict[str, Found], pool: np.ndarray
) -> dict[str, np.ndarray]:
    """The figures of one sort of pictures, a value an image. `asked` masks; `pool` (M, Z) begins with the N
    images' own style codes."""
    rows = {f"Dice, {kind}": overlap(asked[kind], each.masks) for kind, each in found.items()}
    swapped = found["swap-style"].masks
    rows["moved, swap-style"] = 1 - overlap(swapped, asked["swap-style"])
    if "reconstruct" in found:
        rows["moved from its reconstruction"] = 1 - overlap(swapped, found["reconstruct"].masks)
    own = list(range(len(swapped)))
    for kind, wanted in (("warp", own), ("swap-style", _next(own))):
        rows[f"style found, {kind}"] = retrieved(found[kind].z, wanted, pool)
    return rows


def measured(
    pipeline: Pipeline, taken: Mapping[Path, Source], pool: np.ndarray, steps: int | None
) -> dict[str, Any]:
    """Make the pictures and measure them; by sort of pictures, then figure: its mean and standard error."""
    codes = edited(pipeline, [source.code for source in taken.values()])
    keys = [source.key for source in taken.values()]
    asked = {kind: [pipeline.networks.mask_of(code) for code in each] for kind, each in codes.items()}
    found: dict[str, dict[str, Found]] = {"VAE": {}, "invented": {}, "carried": {}}
    sharp = {}
    for kind, each in codes.items():
        print(f"{kind}: {len(each)} pictures", file=sys.stderr)
        made = pictures(pipeline.networks, each, keys, steps=steps or STEPS)
        for name, squares in zip(("VAE", "invented"), made, strict=True):
            found[name][kind] = find(pipeline, written(squares, each), each)
        if kind == "reconstruct":
            sharp = sharpness(*made, real_images(pipeline.networks, list(taken)))
    for kind, scans in carried(pipeline, list(taken.values()), steps).items():
        found["carried"][kind] = find(pipeline, scans, codes[kind])
    figures = {}
    for name, seen in found.items():
        rows = examine(asked, seen, pool)
        figures[name] = {row: [x.mean(), x.std(ddof=1) / len(x) ** 0.5] for row, x in rows.items()}
        figures[name]["least Dice, warp"] = [rows["Dice, warp"].min(), 0.0]
    return {"pictures": figures, "sharpness": sharp}


def print_report(report: dict[str, Any]) -> None:
    """The tables."""
    head = "{model} on fold {fold} of {data}: {images} images at {size} px, {evaluations} evaluations"
    print(head.format(**report), end="")
    print(f"; {report['left_out']} images without an object left out; {report['others']} other styles")
    vae, invented, carried = (report["pictures"][name] for name in ("VAE", "invented", "carried"))
    rows = []
    for name, figure in invented.items():
        sign, bound = TARGETS.get(name, ("", 0.0))
        met = figure[0] >= bound if sign == ">=" else figure[0] < bound
        target = f"{sign} {bound:.2f} {'met' if met else 'MISSED'}" if sign else ""
        other = pm(*carried[name]) if name in carried else ""
        aim = CARRIED.get(name)
        goal = "" if aim is None else f">= {aim:.2f} {'met' if carried[name][0] >= aim else 'MISSED'}"
        rows.append([name, pm(*vae[name]), pm(*figure), target, other, goal])
    table(["", "VAE", "invented", "target", "carried", "target"], *rows)
    show(report["sharpness"])


def main() -> None:
    """Find the images, print."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    pipeline = Pipeline.load(args.model)
    paths = held_out(args.data, args.fold, max(args.count, OTHERS + 1))
    sources = {path: pipeline.source(path) for path in paths[: args.count]}
    taken = {p: s for p, s in sources.items() if pipeline.networks.mask_of(s.code).any()}
    if len(taken) < 4:
        sys.exit(f"{args.model} finds an object in {len(taken)} images, and four are the least")
    others = [pipeline.source(path) for path in paths[args.count :]]
    pool = np.stack([source.code.z for source in [*taken.values(), *others]])
    report: dict[str, Any] = {
        "model": args.model,
        "data": str(args.data),
        "fold": args.fold,
        "images": len(taken),
        "left_out": len(sources) - len(taken),
        "others": min(OTHERS, len(pool) - 1),
        "size": pipeline.networks.config.image_size,
        "evaluations": evaluations(args.steps),
        "threads": torch.get_num_threads(),
        **measured(pipeline, taken, pool, args.steps),
    }
    if args.json:
        print(json.dumps(report))
    else:
        print_report(report)


def _next(values: Sequence[Any]) -> list[Any]:
    """Each one's neighbour; their order is random."""
    return [*values[1:], values[0]]


if __name__ == "__main__":
    main()
