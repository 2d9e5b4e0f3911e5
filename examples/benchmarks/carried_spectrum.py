"""Whether a warped scan is as sharp as the scan: power spectra at native size, inside the carried object.

    python examples/benchmarks/carried_spectrum.py --data DIR --fold K --model REF [--count 40] [--rotate 20]

DIR holds images/ and index.csv with the columns id and fold. Each image of the fold is rotated about its
object, whose pixels are carried along (`mhvae warp`). The power of a square inside the object, under a Hann
window and averaged around rings, is compared with that of the same square in the scan: the geometric mean of
the ratio over the images, in eight bands up to Nyquist's frequency. Target: within 10 % up to half of it.
"""

import numpy as np
from common import held_out_arguments, table  # first: see there
from scipy.ndimage import distance_transform_cdt

from mhvae_cli import Pipeline
from mhvae_cli.errors import InputError
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.transforms import to_uint8
from mhvae_cli.training.datasets import discover

BANDS, LEAST, TARGET = 8, 24, 0.1
NOISE = 1 / 12
"""The power of rounding to whole levels, which both images have."""


def band_power(levels: np.ndarray, centre: tuple[int, int], half: int) -> np.ndarray:
    """The power (BANDS,) of a square of grey levels in equal bands of frequency up to Nyquist's."""
    row, column = centre
    part = levels[row - half : row + half, column - half : column + half].astype(np.float64)
    window = np.outer(*[np.hanning(2 * half + 1)[:-1]] * 2)
    power = np.abs(np.fft.fft2((part - part.mean()) * window)) ** 2 / (window**2).sum()
    frequency = np.fft.fftfreq(2 * half)
    ring = np.hypot(frequency[:, None], frequency) * 2
    band = np.minimum((ring * BANDS).astype(int), BANDS)
    return np.array([power[band == number].mean() for number in range(BANDS)]) + NOISE


def main() -> None:
    """Print the table."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--rotate", type=float, default=20.0)
    args = parser.parse_args()
    pipeline = Pipeline.load(args.model)
    fold = [sample for sample in discover(args.data, masks=False) if sample.fold == args.fold]
    ratios = []
    for sample in fold:
        if len(ratios) == args.count:
            break
        scan = read_scan(sample.image)
        try:
            warped = pipeline.warp(scan, rotate=args.rotate, refine=False)
        except InputError:
            continue
        # The object turns about its own centre, so that a square there shows it before and after.
        row, column = (int(at.mean().round()) for at in np.nonzero(warped.mask))
        reach = distance_transform_cdt(np.pad(warped.mask, 1), metric="chessboard")
        half = int(reach[row + 1, column + 1]) - 1
        if half < LEAST:
            continue
        grey = [to_uint8(pixels) for pixels in (scan.pixels, warped.pixels)]
        before, after = (each.mean(2) if each.ndim == 3 else each for each in grey)
        ratios.append(band_power(after, (row, column), half) / band_power(before, (row, column), half))
    mean = np.exp(np.log(ratios).mean(0))
    edges = [f"{number / BANDS:.3f}" for number in range(1, BANDS + 1)]
    rows = [[f"up to {edge} of Nyquist's", f"{ratio:.3f}"] for edge, ratio in zip(edges, mean, strict=True)]
    table([f"{len(ratios)} images", "power, warped / scan"], *rows)
    worst = abs(mean[: BANDS // 2] - 1).max()
    print(f"up to half of Nyquist's: within {worst:.1%}  (target {TARGET:.0%}: ", end="")
    print("met)" if worst <= TARGET else "MISSED)")


if __name__ == "__main__":
    main()
