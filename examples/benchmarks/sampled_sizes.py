"""Whether sampled objects are as large and as long as real ones.

    python examples/benchmarks/sampled_sizes.py --data DIR --fold K --model REF [--count 400]

DIR holds images/, masks/ and index.csv with the columns id and fold. The masks of the fold are compared with
those of the first `--count` samples of seed 0: quantiles of the object's share of the image, of its
elongation, the ratio of the axes of its second moments, and of how far the edge cuts it (`cut_share`).
"""

from common import held_out_arguments, table  # first: see there

# isort: split
from collections.abc import Iterator

import numpy as np

from mhvae_cli import Pipeline
from mhvae_cli.diffusion.density import CUT_SIDE, cut_share
from mhvae_cli.images.read import read_mask
from mhvae_cli.images.transforms import resized
from mhvae_cli.inference.networks import Networks
from mhvae_cli.inference.sampling import sample_code
from mhvae_cli.training.datasets import discover

SHARES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)


def shape(mask: np.ndarray) -> tuple[float, float, float]:
    """The share of the image, elongation and cut of a mask bool (H, W) of two pixels or more, if squashed."""
    points = np.stack(np.nonzero(mask)) / np.array(mask.shape)[:, None]
    short, long = np.linalg.eigvalsh(np.cov(points) + np.eye(2) / (12 * mask.size))
    square = resized(mask.astype(np.float32), (CUT_SIDE, CUT_SIDE)) >= 0.5
    return float(mask.mean()), float(np.sqrt(long / short)), cut_share(square)


def sampled(networks: Networks, count: int) -> Iterator[np.ndarray]:
    """The masks of samples, squares."""
    size = (networks.config.image_size,) * 2
    for index in range(count):
        yield networks.mask_of(sample_code(networks, networks.density, index, seed=0, size=size).code)


def main() -> None:
    """Print the table."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--count", type=int, default=400)
    args = parser.parse_args()
    masks = {
        "real": (read_mask(s.mask) for s in discover(args.data) if s.fold == args.fold and s.mask),
        "sampled": sampled(Pipeline.load(args.model).networks, args.count),
    }
    rows = []
    for name, group in masks.items():
        found = np.array([shape(mask) for mask in group if mask.sum() > 1])
        for number, quantity in enumerate(("share of the image", "elongation", "cut")):
            values = np.quantile(found[:, number], SHARES)
            rows.append([f"{quantity}, {len(found)} {name}", *(f"{value:.2f}" for value in values)])
    table(["quantile", *(f"{share:g}" for share in SHARES)], *sorted(rows, reverse=True))


if __name__ == "__main__":
    main()
