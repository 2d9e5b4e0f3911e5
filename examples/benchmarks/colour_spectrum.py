"""Whether reconstructed images have the power of real ones at each scale, in lightness and in colours.

    python examples/benchmarks/colour_spectrum.py --data DIR --fold K --model REF [--count 16] [--steps 20]

DIR holds images/ and index.csv with the columns id and fold. `--count` images of the fold are reconstructed
and refined; `sharpness.log_spectrum` of them in the model's square, averaged over the images and over bands
of frequency of an octave, is compared with that of the images themselves. Of grey images there is one row.
"""

from common import held_out_arguments, table  # first: see there
from sharpness import held_out, log_spectrum, pictures, real_images

from mhvae_cli import Pipeline

NAMES = ("lightness", "red - blue", "green - magenta")


def main() -> None:
    """Print the table."""
    parser = held_out_arguments(__doc__)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    networks = (pipeline := Pipeline.load(args.model)).networks
    taken = held_out(args.data, args.fold, args.count)
    codes = [pipeline.source(path).code for path in taken]
    made = pictures(networks, codes, [path.stem for path in taken], steps=args.steps)[1]
    real = real_images(networks, taken)
    excess = (log_spectrum(made) - log_spectrum(real)).mean(axis=0)  # (C, frequencies)
    edges = [2**k for k in range(1, excess.shape[1].bit_length()) if 2**k < excess.shape[1]]
    bands = list(zip(edges, [*edges[1:], excess.shape[1] + 1], strict=True))
    head = ["power, refined / real, by cycles an image", *(f"{low} to {high - 1}" for low, high in bands)]
    rows = [
        [name, *(f"{10 ** row[low - 1 : high - 1].mean():.2f}" for low, high in bands)]
        for name, row in zip(NAMES, excess, strict=False)
    ]
    table(head, *rows)


if __name__ == "__main__":
    main()
