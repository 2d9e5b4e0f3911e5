"""How much of `mhvae segment`'s time is the network's, and whether its memory grows with the inputs.

    python examples/benchmarks/throughput.py [--model REF] [--count 500] [--repeats 3] [--size 270 400]
                                             [--images FOLDER]

Phantom scans (50 different ones, and copies) are written to a temporary folder once, or the first scans of
--images are taken. Timed, in turn:
  one look  the whole command, in this process, with --looks 1: listing, loading the model, reading, resizing,
            the network, outlines, measurements, quality control, masks at the scans' size, PNGs, results.csv.
            Python and torch are loaded already, which no scan adds to.
  two looks the same with --looks 2, the default
  network   the encoder and the position head on the same scans as ready tensors, same model, batch size,
            number type and threads; nothing is read, converted, warped or written.
Both ratios are of CPU seconds (user and system, all threads), which hardly depend on what else runs; wall
seconds stand beside them. Peak memory is that of a process of its own for all inputs and for a tenth of them.
Targets: one look 1.25 x the network, two looks 1.9 x one look, and no more memory for ten times the inputs
(1.05 x, for the noise of the allocator).
"""

import argparse
import contextlib
import os
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from common import MHVAE, run, scans, table, timed, verdict  # first: see there

# isort: split
import numpy as np
import torch

from mhvae_cli import Pipeline
from mhvae_cli.cli import app
from mhvae_cli.images.read import read_scan

BATCH = 8


def segment(images: list[Path], model: str, out: Path, looks: int) -> None:
    """The command, in this process."""
    argv = ["segment", *map(str, images), "-o", f"{out}/", "-m", model, "-q", "--device", "cpu"]
    argv += ["-b", str(BATCH), "--existing", "overwrite", "--looks", str(looks)]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            app(argv)
        except SystemExit as end:
            if end.code:
                raise


def tensors(pipeline: Pipeline, images: list[Path]) -> list[torch.Tensor]:
    """The scans as batches (B, C, S, S), of the network's number type and memory layout."""
    ready = torch.from_numpy(np.stack([pipeline.networks.prepare(read_scan(path)) for path in images]))
    batches = ready.to(pipeline.networks.dtype).split(BATCH)
    return [batch.contiguous(memory_format=torch.channels_last) for batch in batches]


@torch.inference_mode()
def network(pipeline: Pipeline, batches: list[torch.Tensor]) -> None:
    """The network alone."""
    for batch in batches:
        pipeline.networks.model.locate(batch)


def peaks(images: list[Path], model: str, folder: Path) -> list[int]:
    """Peak memory in bytes of `mhvae segment` for a tenth of the images and for all."""
    found = []
    for part in (images[: max(1, len(images) // 10)], images):
        names = folder / "list.txt"
        names.write_text("".join(f"{path}\n" for path in part))
        options = ("-m", model, "-q", "-b", str(BATCH), "--device", "cpu", "--existing", "overwrite")
        found.append(run(MHVAE, "segment", "--from-file", str(names), "-o", f"{folder}/peak/", *options))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fetal-head")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, nargs=2, default=(270, 400), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--images", type=Path, help="a folder of scans, in place of phantoms")
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        if args.images is None:
            images = scans(folder, args.count, tuple(args.size))
        else:
            images = sorted(args.images.iterdir())[: args.count]
        pipeline = Pipeline.load(args.model, device="cpu")
        tasks = {
            "one look": partial(segment, images, args.model, folder / "out", 1),
            "two looks": partial(segment, images, args.model, folder / "out", 2),
            "network": partial(network, pipeline, tensors(pipeline, images)),
        }
        wall, cpu = timed(tasks, args.repeats)
        fewer, all_ = peaks(images, args.model, folder)
    number, side = str(pipeline.networks.dtype).removeprefix("torch."), pipeline.networks.config.image_size
    print(f"{len(images)} scans, network at {side} px, {number}, {torch.get_num_threads()} threads")
    rows = (
        [name, f"{wall[name]:.2f}", f"{len(images) / wall[name]:.1f}", f"{cpu[name]:.2f}"] for name in tasks
    )
    table(["", "seconds", "scans/s", "CPU seconds"], *rows)
    verdict("one look / network, CPU", cpu["one look"] / cpu["network"], 1.25)
    verdict("two looks / one look, CPU", cpu["two looks"] / cpu["one look"], 1.9)
    few = max(1, len(images) // 10)
    print(f"peak memory: {few} scans {fewer / 2**20:.0f} MiB, {len(images)} scans {all_ / 2**20:.0f} MiB")
    verdict("memory", all_ / fewer, 1.05)


if __name__ == "__main__":
    main()
