"""A night of scans, killed (SIGKILL) again and again and gone on with, alone and by two shards at once.

    python examples/benchmarks/kill.py [--count 1000] [--kills 10] [--model fetal-head] [--many 10000]

Prints what is there in the end: files that cannot be read, rows that are missing or there twice, leftovers.
Then the peak memory of --many tiny scans beside that of a tenth of them (--many 0 leaves that out).
"""

import argparse
import csv
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from common import MHVAE, run, scans, table, verdict
from PIL import Image

MEMORY_TARGET = 1.1


def killed(command: list[str], folder: Path, wanted: int, rng: random.Random) -> int:
    """Run the command and kill it a moment after the folder has `wanted` rows; how many it had then."""
    process = subprocess.Popen(command)
    while process.poll() is None and rows(folder) < wanted:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 0.05))
    process.kill()
    process.wait()
    return rows(folder)


def rows(folder: Path) -> int:
    """How many rows the folder's table has."""
    path = folder / "results.csv"
    return path.read_bytes().count(b"\n") - 1 if path.exists() else 0


def faults(folder: Path, names: set[str]) -> list[str]:
    """For a table: how many results, and what is wrong with them."""
    files = {path.stem: path for path in folder.glob("*.png")}
    broken = 0
    for path in files.values():
        try:
            with Image.open(path) as image:
                image.load()
        except OSError:
            broken += 1
    with (folder / "results.csv").open(newline="") as file:
        told = Counter(Path(row["output"]).stem for row in csv.DictReader(file) if row["status"] == "ok")
    twice = sum(count > 1 for count in told.values())
    left = [path for path in folder.iterdir() if path.name.startswith(".")]
    missing = len(names - files.keys()), len(names - told.keys())
    return [str(number) for number in (len(files), *missing, broken, twice, len(left))]


def main() -> None:
    """Kill, go on, look."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--model", default="fetal-head")
    parser.add_argument("--many", type=int, default=10_000)
    asked = parser.parse_args()
    rng = random.Random(0)
    lines = []
    with tempfile.TemporaryDirectory() as place:
        names = {path.stem for path in scans(Path(place) / "scans", asked.count)}
        for label, parts in (("alone", [None]), ("two shards at once", ["1/2", "2/2"])):
            folder = Path(place, label.replace(" ", "-"))
            base = [MHVAE, "segment", f"{place}/scans/images", "-o", str(folder), "-m", asked.model, "-q"]
            command = [*base, "--existing", "skip"]
            others = [[*command, "--shard", part] for part in parts[1:] if part]
            mine = command if parts == [None] else [*command, "--shard", str(parts[0])]
            command = ["sh", "-c", 'exec "$@" > /dev/null', "sh"]
            beside = [subprocess.Popen([*command, *other]) for other in others]
            for kill in range(asked.kills):
                share = asked.count * (kill + 1) // (asked.kills + 1)
                had = killed([*command, *mine], folder, share, rng)
                print(f"{label}: killed at {had} of {asked.count}", file=sys.stderr)
            codes = [subprocess.call([*command, *mine]), *(process.wait() for process in beside)]
            told = json.loads((folder / "mhvae-run.json").read_text())["runs"]
            unended = sum(each["status"] == "running" for each in told)
            lines.append([label, *faults(folder, names), str(unended), str(max(codes))])
        head = ["", "files", "files missing", "rows missing", "broken", "rows twice", "leftovers"]
        table([*head, "runs killed", "exit"], *lines)
        if asked.many:
            memory(Path(place), asked.many, asked.model)


def memory(place: Path, many: int, model: str) -> None:
    """Peak memory of many tiny scans beside that of a tenth of them."""
    peaks = []
    for count in (many // 10, many):
        scans(place / f"s{count}", count, size=(48, 64))
        out = str(place / f"m{count}")
        peaks.append(run(MHVAE, "segment", str(place / f"s{count}" / "images"), "-o", out, "-m", model, "-q"))
    table(
        ["scans", "peak memory"],
        *([str(n), f"{peak / 2**20:.0f} MB"] for n, peak in zip((many // 10, many), peaks, strict=True)),
    )
    verdict("many beside a tenth", peaks[1] / peaks[0], MEMORY_TARGET)


if __name__ == "__main__":
    main()
