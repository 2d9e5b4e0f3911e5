"""What the benchmarks share: interleaved timing, phantom scans, a table, a verdict.

Timings depend on the machine and its load; every figure of interest is a ratio of two medians taken in turn
in one run. Close other programs first.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from mhvae_cli.training.train import TrainingOptions

# As the mhvae command does. torch reads it when it is imported, so this module comes first.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

MHVAE = str(Path(sys.executable).with_name("mhvae"))


def interleaved(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median wall seconds of each task; they take turns, and a first round of each is not counted."""
    return timed(tasks, repeats)[0]


def timed(tasks: dict[str, Callable[[], object]], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """As `interleaved`, and the median CPU seconds (user and system, all threads of this process).

    Other programs lengthen wall times far more than CPU times: beside them, compare the latter.
    """
    clocks = (time.perf_counter, time.process_time)
    seconds: dict[str, list[tuple[float, ...]]] = {name: [] for name in tasks}
    for round_ in range(repeats + 1):
        for name, task in tasks.items():
            begun = [clock() for clock in clocks]
            task()
            if round_:
                seconds[name].append(tuple(clock() - at for clock, at in zip(clocks, begun, strict=True)))
    wall, cpu = ({name: median(each[i] for each in found) for name, found in seconds.items()} for i in (0, 1))
    return wall, cpu


def run(*command: str) -> int:
    """Run a command to its end, stdout discarded; its peak memory in bytes. Exits if the command fails."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def scans(folder: Path, count: int, size: tuple[int, int] = (270, 400)) -> list[Path]:
    """Write `count` fetal-head phantoms of `size` (h, w), 50 of them different; their paths."""
    from mhvae_cli.training.phantoms import write_phantoms

    write_phantoms(folder, "fetal-head", min(count, 50), size=size)
    paths = sorted((folder / "images").iterdir())
    for i in range(len(paths), count):
        paths.append(Path(shutil.copy(paths[i % 50], folder / "images" / f"copy_{i}.png")))
    return paths


def held_out_arguments(about: str | None) -> argparse.ArgumentParser:
    """A command line that names a model and a fold of images that it has not seen."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--fold", type=int, required=True)
    parser.add_argument("--model", required=True)
    return parser


def evaluations(steps: int | None) -> int | str:
    """How many evaluations `--steps` gives an image, in words if it is left to mhvae."""
    from mhvae_cli.config import STEPS, STEPS_CARRIED

    return steps or f"{STEPS} ({STEPS_CARRIED} where detail is carried)"


def on_cpu(out: Path) -> "TrainingOptions":
    """A training on the CPU that goes on in `out` where it stopped, in bfloat16 where that is fast."""
    import torch

    from mhvae_cli.devices import resolve_dtype
    from mhvae_cli.training.state import STATE
    from mhvae_cli.training.train import TrainingOptions

    cpu = torch.device("cpu")
    resume = (out / STATE).exists()
    return TrainingOptions(cpu, resolve_dtype("auto", cpu), resume=resume, workers=1, offline=True)


def table(head: Sequence[str], *rows: Sequence[str]) -> None:
    """Print columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = (f"{cell:{'>' if i else '<'}{widths[i]}}" for i, cell in enumerate(row))
        print("  ".join(cells).rstrip())


def smoke_or_data(parser: argparse.ArgumentParser, count: int) -> argparse.Namespace:
    """Parse a command line with `out`, --data and --smoke, for which `count` phantoms of lesions are made."""
    args = parser.parse_args()
    if args.smoke and args.data is None:
        from mhvae_cli.training.phantoms import write_phantoms

        args.data = args.out / "phantoms"
        write_phantoms(args.data, "skin-lesion", count, size=(64, 64))
    if args.data is None:
        parser.error("--data DIR is needed, or --smoke")
    return args


def stop(message: str) -> NoReturn:
    """End as the mhvae command does after bad input: one line, exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


def verdict(what: str, ratio: float, target: float, *, least: bool = False) -> None:
    """Print a ratio beside its target: at most `target`, or at least."""
    met = ratio >= target if least else ratio <= target
    bound = f"target {'>=' if least else '<='} {target:g}"
    print(f"{what}: {ratio:.2f} x  ({bound}: {'met' if met else 'MISSED'})")
