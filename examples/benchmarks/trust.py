"""How often a model's results are flagged, and whether its 90 % intervals hold what they promise.

    python examples/benchmarks/trust.py --data DIR --fold K --model REF --other DIR [--kind fetal-head]

DIR holds images/, masks/ and index.csv with the columns id and fold. The fold's images should hardly ever be
flagged as foreign; the other data set's images of that fold, phantoms of the other kind, noise, evenly grey
and black frames, pictures of text, and the photographs in a folder --pictures should be nearly always.

Intervals are compared with the true masks: the area with that of the mask, the circumference with that of the
ellipse fitted to it; also in each third of the images by predicted width. The Dice to expect should be low
where the Dice is. The figures mean something only if the model was not trained on the fold. --full judges by
the VAE's own picture too, as `mhvae segment --qc full` does.
"""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from common import held_out_arguments, table
from PIL import Image, ImageDraw

from mhvae_cli import Pipeline
from mhvae_cli.evaluation.biometry import measure, measure_head
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.images.scan import scan_of
from mhvae_cli.inference.qc import LEAST_DICE
from mhvae_cli.training.datasets import discover
from mhvae_cli.training.phantoms import phantom
from mhvae_cli.vae.contour import ellipse
from mhvae_cli.vae.fitting import affine_of
from mhvae_cli.vae.warp import RADIUS

SIZE = (270, 400)
SEED = 50_000
KINDS = ("fetal-head", "skin-lesion", "optic-disc")
WORDS = ("patient", "report", "of", "the", "file", "was", "not", "found", "again", "Window", "12.34", "%")


def noise(seed: int) -> np.ndarray:
    """Noise: grey or coloured, even or normal, of grains of 1 to 16 px."""
    rng = np.random.default_rng([1, seed])
    grain, channels = rng.choice([1, 2, 4, 8, 16]), rng.choice([1, 3])
    shape = (-(-SIZE[0] // grain), -(-SIZE[1] // grain), channels)
    values = (
        rng.random(shape) if seed % 2 else rng.normal(rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.4), shape)
    )
    levels = (values.clip(0, 1) * 255).astype(np.uint8).repeat(grain, 0).repeat(grain, 1)
    return levels[: SIZE[0], : SIZE[1]].squeeze()


def frame(seed: int) -> np.ndarray:
    """A black frame, or (odd seeds) an evenly grey one, with or without a little noise."""
    rng = np.random.default_rng([2, seed])
    level = rng.integers(1, 256) if seed % 2 else 0
    return (level + rng.normal(0, rng.choice([0, 2]), SIZE)).clip(0, 255).astype(np.uint8)


def text(seed: int) -> np.ndarray:
    """A screenshot of text in Pillow's own font, light or dark."""
    rng = np.random.default_rng([3, seed])
    ground, ink = rng.permutation([(250, 250, 245), (25, 25, 30)])
    picture = Image.new("RGB", SIZE[::-1], tuple(map(int, ground)))
    pen = ImageDraw.Draw(picture)
    for y in range(rng.integers(2, 60), SIZE[0], rng.integers(11, 22)):
        line = " ".join(rng.choice(WORDS, rng.integers(1, 14)))
        pen.text((int(rng.integers(2, 60)), int(y)), line, fill=tuple(map(int, ink)))
    return np.array(picture)


def _phantom(kind: str, seed: int) -> np.ndarray:
    return phantom(kind, seed, SIZE)[0]


def flagged(pipeline: Pipeline, images: Iterable[np.ndarray], *, full: bool) -> tuple[int, int, Counter[str]]:
    """How many there are, how many are flagged as foreign, and why any is flagged."""
    found = [pipeline.segment(image, recon=full).quality for image in images]
    why = Counter(name for quality in found for name in quality.why)
    return len(found), sum(quality.foreign for quality in found), why


def main() -> None:
    """Read the options, measure, print."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--other", type=Path, required=True, help="a data folder of another kind of image")
    parser.add_argument("--kind", choices=KINDS, help="what the model is for; by default of its channels")
    parser.add_argument("--pictures", type=Path, help="a folder of everyday photographs")
    parser.add_argument("--count", type=int, default=100, help="of each kind of made image")
    parser.add_argument("--full", action="store_true")
    args = parser.parse_args()
    pipeline = Pipeline.load(args.model)
    if pipeline.networks.qc_statistics is None:
        raise SystemExit(f"{args.model}: has no statistics; examples/training/calibrate.py measures them")
    kind = args.kind or KINDS[pipeline.networks.config.channels == 3]
    own = [sample for sample in discover(args.data) if sample.fold == args.fold]
    strange = [sample for sample in discover(args.other, masks=False) if sample.fold == args.fold]
    made = range(SEED, SEED + args.count)
    groups = {f"fold {args.fold}": (read_scan(sample.image) for sample in own)}
    groups[f"{args.other}, fold {args.fold}"] = (read_scan(sample.image) for sample in strange)
    for other in KINDS:
        if other != kind:
            groups[f"{other} phantoms"] = map(scan_of, map(partial(_phantom, other), made))
    for name, draw in {"noise": noise, "black and even frames": frame, "text": text}.items():
        groups[name] = map(scan_of, map(draw, made))
    if args.pictures is not None:
        groups[str(args.pictures)] = map(read_scan, sorted(args.pictures.iterdir()))
    rows = []
    for name, images in groups.items():
        count, warned, why = flagged(pipeline, images, full=args.full)
        causes = " ".join(f"{cause}:{number}" for cause, number in why.most_common())
        rows.append([name, str(count), f"{100 * warned / count:.1f} %", causes])
    table(["", "images", "foreign", "why"], *rows)
    certain(pipeline, own)


def certain(pipeline: Pipeline, samples: list) -> None:
    """Print how many intervals hold the truth, how wide they are, and what the Dice to expect tells."""
    pen = pipeline.networks.config.pen
    held: dict[str, list[tuple[float, bool, float]]] = {"area": [], "circumference": []}
    scores, expected, flags = [], [], []
    for sample in samples:
        found, mask = pipeline.segment(sample.image), read_mask(sample.mask)
        rings, truth = found.contour(), affine_ring(mask)
        values = {
            "area": ("area", measure(rings)["area_px"], float(mask.sum())),
            "circumference": (
                "hc",
                measure_head(rings, mask.shape, pen=pen)["hc_px"],
                measure_head([truth], mask.shape, pen=pen)["hc_px"],
            ),
        }
        for name, (key, value, true) in values.items():
            low, high = found.certainty.interval(key, value)
            if low is not None and true:
                held[name].append((found.certainty.spans[key][1], low <= true <= high, (high - low) / true))
        scores.append(dice(found.mask, mask))
        expected.append(found.certainty.dice)
        flags.append(found.quality.doubtful)
    rows = []
    for name, cells in held.items():
        widths, inside, shares = map(np.array, zip(*cells, strict=True))
        thirds = np.array_split(np.argsort(widths), 3)
        covered = [f"{100 * inside[part].mean():.1f} %" for part in (slice(None), *thirds)]
        rows.append([name, str(len(cells)), *covered, f"{shares.mean():.3f}", f"{np.median(shares):.3f}"])
    head = ["90 % intervals", "images", "hold the truth", "narrow third", "middle", "wide"]
    table([*head, "mean width", "median"], *rows)
    bad, dices, told = np.array(scores) < LEAST_DICE, np.array(scores), np.array(expected)
    print(f"Dice to expect: {told.mean():.3f} in the mean, {dices.mean():.3f} found;", end=" ")
    print(f"rank correlation {np.corrcoef(*(x.argsort().argsort() for x in (told, dices)))[0, 1]:.2f}")
    if bad.any():
        below = (told[bad][:, None] < told[~bad]) + 0.5 * (told[bad][:, None] == told[~bad])
        print(
            f"AUROC for a Dice below {LEAST_DICE}: {below.mean():.3f}; doubtful: {sum(flags)} of {len(bad)},"
        )
        print(f"{np.array(flags)[bad].sum()} of the {bad.sum()} below {LEAST_DICE} among them")


def affine_ring(mask: np.ndarray) -> np.ndarray:
    """The ellipse with a mask's second moments, as an outline in pixels."""
    h, w = mask.shape
    [ring] = ellipse(affine_of(mask), RADIUS) or [np.zeros((1, 2))]
    return (ring + 1) / 2 * [w, h]


if __name__ == "__main__":
    main()
