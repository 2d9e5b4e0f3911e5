"""How threads should wait for each other, and how many there should be: alone, beside others, two at once.

    python examples/benchmarks/threads.py [--model REF] [--count 300] [--repeats 3] [--batch 8 1]

The same 2 x `count` phantom scans are segmented by whole commands, on all cores that this process may use.
Scenes:
  alone  one process
  busy   one process, beside a program that keeps one core busy
  two    two processes at once, half of the scans each
Ways, each as THREADS and how a thread waits for the others:
  passive   it sleeps at once (OMP_WAIT_POLICY=passive): what mhvae sets, unless the user has set it
  brief     it spins about a thousand times first (GOMP_SPINCOUNT=1000), then sleeps
  spinning  it keeps its core busy (OMP_WAIT_POLICY=active)
One thread never waits. Wall seconds until the last process ends, medians of interleaved runs. Target: two
processes with a thread a core each take at most 1.25 x as long as with half of the cores' threads each.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from common import MHVAE, interleaved, scans, table, verdict

from mhvae_cli.resources import cores

SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "MHVAE_THREADS")
WAYS = {
    "passive": {"OMP_WAIT_POLICY": "passive"},
    "brief": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "1000"},
    "spinning": {"OMP_WAIT_POLICY": "active"},
}
SCENES = ("alone", "busy", "two")


def segment(lists: Sequence[Path], model: str, batch: int, threads: int, way: str, *, busy: bool) -> None:
    """One process a list, at once."""
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS} | WAYS[way]
    options = ("-m", model, "-q", "--device", "cpu", "--existing", "overwrite", "-b", str(batch))
    commands = [
        (MHVAE, "segment", "--from-file", str(names), "-o", f"{names}.out/", "--threads", str(threads))
        for names in lists
    ]
    with neighbour(busy):
        processes = [
            subprocess.Popen([*each, *options], env=environment, stdout=subprocess.DEVNULL)
            for each in commands
        ]
        if any([process.wait() for process in processes]):
            sys.exit("a process failed")


@contextmanager
def neighbour(busy: bool) -> Iterator[None]:
    """A program that keeps one core busy while the block runs."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fetal-head")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=(8, 1))
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=SCENES)
    args = parser.parse_args()
    if cores() < 2:
        sys.exit("one core: there is nothing to share")
    counts = dict.fromkeys((1, max(1, cores() // 2), cores()))
    ways = [(threads, way) for threads in counts for way in WAYS if threads > 1 or way == "passive"]
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = [f"{path}\n" for path in scans(folder, 2 * args.count)]
        whole, *halves = folder / "whole", folder / "first", folder / "second"
        for path, lines in zip((whole, *halves), (images, images[::2], images[1::2]), strict=True):
            path.write_text("".join(lines))
        tasks = {
            f"{scene}, batch {batch}, {threads} {way}": partial(
                segment,
                halves if scene == "two" else [whole],
                args.model,
                batch,
                threads,
                way,
                busy=scene == "busy",
            )
            for scene in args.scenes
            for batch in args.batch
            for threads, way in ways
        }
        seconds = interleaved(tasks, args.repeats)
    print(f"{2 * args.count} scans, {cores()} cores")
    rows = ([name, f"{value:.2f}", f"{2 * args.count / value:.1f}"] for name, value in seconds.items())
    table(["", "seconds", "scans/s"], *rows)
    half = max(1, cores() // 2)
    for batch in args.batch if "two" in args.scenes else ():
        fewer = seconds[f"two, batch {batch}, {half} passive"]
        for way in ("passive", "brief") if half < cores() else ():
            ratio = seconds[f"two, batch {batch}, {cores()} {way}"] / fewer
            verdict(f"two, batch {batch}: {cores()} {way} / {half}", ratio, 1.25)


if __name__ == "__main__":
    main()
