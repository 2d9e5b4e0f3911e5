"""How much of `mhvae segment`'s time is the network's, and whether its memory grows with the inputs.

    python examples/benchmarks/throughput.py [--model REF] [--count 500] [--repeats 3] [--size 270 400]

Phantom scans (50 different ones, and copies) are written to a temporary folder once. Timed, in turn:
  segment   the whole command, in this process: listing, loading the model, reading, resizing, the network,
            masks at the scans' size, PNGs, results.csv. Python and torch are loaded already, which no scan
            adds to.
  network   the encoder and the position head on the same scans as ready tensors, same model, batch size,
            number type and threads; nothing is read, converted, warped or written.
CPU seconds are of all threads: where segment's, divided by the cores, exceed the network's wall time, no
overlap can hide the difference. Peak memory is that of a process of its own for all inputs and for a tenth
of them. Targets: 1.25 x, and no more memory for ten times the inputs (1.05 x, for the noise of the
allocator).
"""

import argparse
import contextlib
import os
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from common import MHVAE, interleaved, run, scans, table, verdict  # first: see there

# isort: split
import numpy as np
import torch

from mhvae_cli import Pipeline
from mhvae_cli.cli import app
from mhvae_cli.images.read import read_scan

BATCH = 8


def segment(images: list[Path], model: str, out: Path) -> None:
    """The command, in this process."""
    argv = ["segment", *map(str, images), "-o", f"{out}/", "-m", model, "-q", "--device", "cpu"]
    argv += ["-b", str(BATCH), "--existing", "overwrite"]
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


def cpu_seconds(task: partial[None]) -> float:
    """CPU time of one run, of all threads."""
    begun = time.process_time()
    task()
    return time.process_time() - begun


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
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = scans(folder, args.count, tuple(args.size))
        pipeline = Pipeline.load(args.model, device="cpu")
        tasks = {
            "segment": partial(segment, images, args.model, folder / "out"),
            "network": partial(network, pipeline, tensors(pipeline, images)),
        }
        wall = interleaved(tasks, args.repeats)
        cpu = {name: cpu_seconds(task) for name, task in tasks.items()}
        fewer, all_ = peaks(images, args.model, folder)
    number, side = str(pipeline.networks.dtype).removeprefix("torch."), pipeline.networks.config.image_size
    print(f"{args.count} scans, network at {side} px, {number}, {torch.get_num_threads()} threads")
    rows = (
        [name, f"{wall[name]:.2f}", f"{args.count / wall[name]:.1f}", f"{cpu[name]:.2f}"] for name in tasks
    )
    table(["", "seconds", "scans/s", "CPU seconds"], *rows)
    verdict("segment / network", wall["segment"] / wall["network"], 1.25)
    few = max(1, args.count // 10)
    print(f"peak memory: {few} scans {fewer / 2**20:.0f} MiB, {args.count} scans {all_ / 2**20:.0f} MiB")
    verdict("memory", all_ / fewer, 1.05)


if __name__ == "__main__":
    main()
