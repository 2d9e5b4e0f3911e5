"""Peak memory of many pictures beside few: sample, swap-style and interpolate hold none but those in hand.

    python examples/benchmarks/memory.py [--model fetal-head]

One evaluation a picture: how many more there are changes the time, not the memory.
"""

import argparse
import tempfile
from pathlib import Path

from common import MHVAE, run, scans, table, verdict

MEMORY_TARGET = 1.1


def main() -> None:
    """Run each verb for few pictures and for many, print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="fetal-head")
    model = parser.parse_args().model
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [str(path) for path in scans(Path(folder) / "scans", 11)]
        cases = {
            "sample": (["-n", "10"], ["-n", "100"]),
            "swap-style": (paths[:4], paths),
            "interpolate": ([*paths[:2], "--frames", "10"], [*paths[:2], "--frames", "100"]),
        }
        for verb, sizes in cases.items():
            peaks = []
            for i, words in enumerate(sizes):
                out = f"{folder}/{verb}{i}"
                command = (MHVAE, verb, *words, "--model", model, "--steps", "1", "--out", out)
                peaks.append(run(*command, "--quiet", "--batch-size", "4"))
            rows.append([verb, *(f"{peak / 2**20:.0f} MB" for peak in peaks), f"{peaks[1] / peaks[0]:.2f}"])
            verdict(f"{verb}, many beside few", peaks[1] / peaks[0], MEMORY_TARGET)
    table(["", "few", "many", "ratio"], *rows)


if __name__ == "__main__":
    main()
