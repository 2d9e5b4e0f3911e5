"""Whether a model's samples are copies of its training images, and whether `sample --audit` would notice.

    python examples/benchmarks/memorisation.py --data DIR --fold K --model REF [--count 100] [--steps 20]

DIR holds images/ and index.csv with the columns id and fold, and perhaps subject; the model was trained on
the other folds. Rows:
  new      images of the fold.
  copies   training images, moved by 1 % of the image, 5 % brighter, with noise of sd 2 (of 255).
  samples  generated from the density of the latent codes.
Columns: the share of images that `sample --audit` flags, and the median of its distance; and the share whose
grey 48 x 48 thumbnail resembles (correlation) a training image more than 99 % of the new images do, and the
highest correlation. The audit's own limit was set on validation images, so "new" tests it.
"""

from dataclasses import replace
from pathlib import Path

from common import held_out_arguments, table  # first: see there

# isort: split
import numpy as np
from PIL import Image

from mhvae_cli import Pipeline
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import Scan, scan_of
from mhvae_cli.images.transforms import to_uint8
from mhvae_cli.inference.audit import NEAR, load_audit
from mhvae_cli.training.datasets import Sample, discover

SIDE = 48
MOVED, BRIGHTER, NOISE = 0.01, 1.05, 2.0


def thumbnail(scan: Scan) -> np.ndarray:
    """The grey thumbnail (SIDE * SIDE,) of a scan, with mean 0 and norm 1."""
    grey = Image.fromarray(to_uint8(scan.pixels, scan.window)).convert("L")
    levels = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    levels = levels - levels.mean()
    return levels / max(float(np.linalg.norm(levels)), 1e-6)


def altered(scan: Scan, rng: np.random.Generator) -> Scan:
    """A copy that no checksum would find."""
    by = [max(1, round(MOVED * side)) for side in scan.pixels.shape[:2]]
    levels = np.roll(to_uint8(scan.pixels, scan.window), by, (0, 1)) * BRIGHTER
    return scan_of((levels + rng.normal(0, NOISE, levels.shape)).clip(0, 255).astype(np.uint8))


def drawn(samples: list[Sample], count: int, rng: np.random.Generator) -> list[Path]:
    """The files of at most `count` samples, drawn at random."""
    return [samples[i].image for i in rng.permutation(len(samples))[:count]]


def main() -> None:
    """Print the table."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    pipeline = Pipeline.load(args.model)
    audit, rng = load_audit(pipeline.networks), np.random.default_rng(0)
    samples = discover(args.data, masks=False)
    trained = [sample for sample in samples if sample.fold != args.fold]
    known = np.stack([thumbnail(read_scan(sample.image)) for sample in trained])
    held_out = drawn([sample for sample in samples if sample.fold == args.fold], args.count, rng)
    scans = {
        "new": [read_scan(path) for path in held_out],
        "copies": [altered(read_scan(path), rng) for path in drawn(trained, args.count, rng)],
        "samples": [
            replace(scan_of(made.pixels), window=made.window)
            for made in pipeline.sample(args.count, steps=args.steps)
        ],
    }
    likeness = {
        row: np.array([(known @ thumbnail(each)).max() for each in some]) for row, some in scans.items()
    }
    limit = np.quantile(likeness["new"], 1 - NEAR)
    rows = []
    for row, some in scans.items():
        distances = np.array([audit.distance(pipeline.networks, each) for each in some])
        cells = [f"{(distances < 1).mean():.1%}", f"{np.median(distances):.2f}"]
        cells += [f"{(likeness[row] > limit).mean():.1%}", f"{likeness[row].max():.3f}"]
        rows.append([row, str(len(some)), *cells])
    table(["", "images", "flagged", "median distance", "pixels: nearer than 99 %", "highest"], *rows)


if __name__ == "__main__":
    main()
