"""What bfloat16 gains on this CPU and what it costs: time of the network, and Dice between both masks.

    python examples/benchmarks/dtype.py [--model REF] [--data FOLDER] [--count 64] [--repeats 5]

FOLDER holds images (the first --count are taken; phantoms if it is left out). Timed is `Pipeline.locate` on
prepared images, batch 8; the masks are evaluated at the images' own size from each type's theta.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from common import interleaved, scans, table  # first: see there

# isort: split
import numpy as np
import torch

from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.images.read import SUFFIXES, read_scan
from mhvae_cli.inference.networks import Networks

TYPES = ("float32", "bfloat16")


def compare(images: list[Path], model: str, repeats: int) -> None:
    """Measure and print."""
    networks = {name: Networks.load(model, device="cpu", dtype=name) for name in TYPES}
    sizes, inputs = [], []
    for path in images:
        scan = read_scan(path)
        sizes.append(scan.pixels.shape[:2])
        inputs.append(networks["float32"].prepare(scan))
    batches = [np.stack(inputs[i : i + 8]) for i in range(0, len(inputs), 8)]
    theta: dict[str, np.ndarray] = {}

    def task(name: str) -> Callable[[], None]:
        def locate() -> None:
            theta[name] = np.concatenate([networks[name].posterior(batch)[0] for batch in batches])

        return locate

    seconds = interleaved({name: task(name) for name in TYPES}, repeats)
    scores = []
    for size, *codes in zip(sizes, *(theta[name] for name in TYPES), strict=True):
        scores.append(dice(*(networks["float32"].mask(code, size) for code in codes)))
    side = networks["float32"].config.image_size
    print(f"{len(images)} images, network at {side} px, {torch.get_num_threads()} threads")
    rows = ([name, f"{seconds[name]:.3f}", f"{len(images) / seconds[name]:.1f}"] for name in TYPES)
    table(["", "seconds", "images/s"], *rows)
    print(f"float32 / bfloat16: {seconds['float32'] / seconds['bfloat16']:.2f} x")
    print(f"Dice between the masks of both: mean {np.mean(scores):.5f}, least {np.min(scores):.5f}")


def main() -> None:
    """Find the images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fetal-head")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    if args.data is not None:
        found = sorted(path for path in args.data.iterdir() if path.suffix.lower() in SUFFIXES)
        compare(found[: args.count], args.model, args.repeats)
        return
    with TemporaryDirectory() as folder:
        compare(scans(Path(folder), args.count), args.model, args.repeats)


if __name__ == "__main__":
    main()
