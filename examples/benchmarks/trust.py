"""How often a model's results are flagged, and whether its 90 % intervals hold what they promise.

    python examples/benchmarks/trust.py --data DIR --fold K --model REF --other DIR [--kind fetal-head]

DIR holds images/, masks/ and index.csv with the columns id and fold. The fold's images should hardly ever be
flagged; the other data set's images of that fold, phantoms of the other kind, noise, evenly grey and black
frames and pictures of text should be nearly always. Coverage: of the true masks' areas by the intervals of
--draws draws. The figures mean something only if the model was not trained on the fold. --full judges by the
VAE's own picture too, as `mhvae segment --fail-on-qc` does.
"""

from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
from common import held_out_arguments, table
from PIL import Image, ImageDraw

from mhvae_cli import Pipeline
from mhvae_cli.evaluation.biometry import measure
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.images.scan import scan_of
from mhvae_cli.inference.posterior import interval
from mhvae_cli.training.datasets import discover
from mhvae_cli.training.phantoms import phantom

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
    """How many there are, how many are flagged, and why."""
    found = [pipeline.segment(image, recon=full).quality for image in images]
    why = Counter(name for quality in found for name in quality.why)
    return len(found), sum(quality.qc == "warn" for quality in found), why


def main() -> None:
    """Read the options, measure, print."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--other", type=Path, required=True, help="a data folder of another kind of image")
    parser.add_argument("--kind", choices=KINDS, help="what the model is for; by default of its channels")
    parser.add_argument("--draws", type=int, default=100)
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
    rows = []
    for name, images in groups.items():
        count, warned, why = flagged(pipeline, images, full=args.full)
        causes = " ".join(f"{cause}:{number}" for cause, number in why.most_common())
        rows.append([name, str(count), f"{100 * warned / count:.1f} %", causes])
    table(["", "images", "flagged", "why"], *rows)
    coverage(pipeline, own, args.draws)


def coverage(pipeline: Pipeline, samples: list, draws: int) -> None:
    """Print how many intervals hold the area of the true mask, and how wide they are."""
    inside, widths = [], []
    for sample in samples:
        found = pipeline.segment(sample.image, posterior=draws)
        size, truth = found.mask.shape, int(read_mask(sample.mask).sum())
        areas = [measure(pipeline.networks.contour(theta, size))["area_px"] for theta in found.thetas]
        low, high = interval(areas)
        inside.append(low <= truth <= high)
        widths.append((high - low) / max(truth, 1))
    print(f"90 % interval of the area: holds the true one in {100 * np.mean(inside):.1f} % of {len(samples)}")
    print(f"images; its median width is {100 * np.median(widths):.1f} % of it")


if __name__ == "__main__":
    main()
