"""What two processes cost each other on one machine, by how many threads each computes with.

    python examples/benchmarks/threads.py [--model REF] [--count 300] [--repeats 3]

The same 2 x `count` phantom scans are segmented by whole commands, on all cores that this process may use:
  one        one process, a thread a core
  halves     two processes at once, half of the cores' threads each (--threads): the advice
  both       two at once, a thread a core each, as two of them started without a thought do
  spinning   the same, but OMP_WAIT_POLICY=active: threads that wait for each other keep their core busy.
             mhvae sets it to passive, unless the user has set it.
Wall seconds until the last process ends, medians of interleaved runs. Target: `both` takes at most 1.25 x as
long as `halves`.
"""

import argparse
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from common import MHVAE, interleaved, scans, table, verdict

from mhvae_cli.resources import cores

SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MHVAE_THREADS")


def segment(lists: list[Path], model: str, threads: int, policy: str | None = None) -> None:
    """One process a list, at once."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= {} if policy is None else {"OMP_WAIT_POLICY": policy}
    options = ("-m", model, "-q", "--device", "cpu", "--existing", "overwrite", "--threads", str(threads))
    commands = [
        (MHVAE, "segment", "--from-file", str(names), "-o", f"{names}.out/", *options) for names in lists
    ]
    processes = [subprocess.Popen(each, env=environment, stdout=subprocess.DEVNULL) for each in commands]
    if any([process.wait() for process in processes]):
        sys.exit("a process failed")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fetal-head")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    if cores() < 2:
        sys.exit("one core: there is nothing to share")
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = [f"{path}\n" for path in scans(folder, 2 * args.count)]
        whole, *halves = folder / "whole", folder / "first", folder / "second"
        for path, lines in zip((whole, *halves), (images, images[::2], images[1::2]), strict=True):
            path.write_text("".join(lines))
        tasks = {
            "one": partial(segment, [whole], args.model, cores()),
            "halves": partial(segment, halves, args.model, cores() // 2),
            "both": partial(segment, halves, args.model, cores()),
            "spinning": partial(segment, halves, args.model, cores(), "active"),
        }
        seconds = interleaved(tasks, args.repeats)
    print(f"{2 * args.count} scans, {cores()} cores")
    rows = ([name, f"{value:.2f}", f"{2 * args.count / value:.1f}"] for name, value in seconds.items())
    table(["", "seconds", "scans/s"], *rows)
    for name in ("one", "spinning"):
        print(f"{name} / halves: {seconds[name] / seconds['halves']:.2f} x")
    verdict("both / halves", seconds["both"] / seconds["halves"], 1.25)


if __name__ == "__main__":
    main()
