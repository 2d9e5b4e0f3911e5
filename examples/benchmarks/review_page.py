"""How long the page of `mhvae segment --report` takes to write, and to open and sort in headless Chromium.

    python examples/benchmarks/review_page.py [--rows 5000]

The rows are of phantoms (twelve different pictures, with outlines), one in 40 flagged and one in 100 failed.
Opening ends with the second frame after the page's load event, sorting with the second one after the click.
Targets: 2 s each; the memory of writing does not grow with the rows (1.05 x for ten times as many).
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from common import run, table, verdict

# isort: split
import numpy as np

from mhvae_cli.runs.review.page import Review
from mhvae_cli.runs.review.thumbnails import shrink, thumbnail_of
from mhvae_cli.training.phantoms import phantom

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
import chromium

SIZE = (540, 800)
MEASURED = (
    "area_px",
    "perimeter_px",
    "major_px",
    "minor_px",
    "area_mm2",
    "perimeter_mm",
    "major_mm",
    "minor_mm",
)
HEAD = ("hc_px", "bpd_px", "ofd_px", "hc_mm", "bpd_mm", "ofd_mm", "hc_mm_low", "hc_mm_high")
COLUMNS = ("input", "page", "output", "status", "width", "height", *MEASURED, *HEAD, "qc", "qc_why", "error")
FRAMES = (
    "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
)


def outline(mask: np.ndarray) -> np.ndarray:
    """The convex outline of a mask as a polygon (n, 2) xy."""
    y, x = np.nonzero(mask)
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    points = np.stack([x, y], axis=1) + 0.5
    return np.array([points[np.argmax(points @ (np.cos(a), np.sin(a)))] for a in angles])


def write(path: Path, count: int) -> float:
    """Write a page of so many rows; the seconds."""
    phantoms = [phantom("fetal-head", seed, SIZE) for seed in range(12)]
    shown = [(image, [outline(mask)]) for image, mask in phantoms]
    rng = np.random.default_rng(0)
    begun = time.perf_counter()
    review = Review(path, title="mhvae segment", columns=COLUMNS, total=count)
    for number in range(count):
        row = {"input": f"scans/case_{number:05d}.png", "page": 0, "output": f"results/case_{number:05d}.png"}
        if number % 100 == 99:
            review.add({**row, "output": None, "status": "failed", "error": "truncated PNG"})
            continue
        figures = dict(zip((*MEASURED, *HEAD), rng.uniform(50, 300, 16).round(4).tolist(), strict=True))
        flags = {"qc": "warn", "qc_why": "layout"} if number % 40 == 0 else {"qc": "ok"}
        image, rings = shown[number % 12]
        size = {"width": SIZE[1], "height": SIZE[0]}
        review.add(
            {**row, "status": "ok", **size, **figures, **flags}, thumbnail_of(shrink(image), rings, SIZE)
        )
    review.write({})
    review.close()
    return time.perf_counter() - begun


def browse(path: Path, profile: Path) -> dict[str, float]:
    """The seconds that the page takes to open, to sort and to filter."""
    with chromium.Chromium(profile, (1440, 900)) as browser:
        begun = time.perf_counter()
        browser.open(path)
        browser.run(FRAMES)
        took = {"open": time.perf_counter() - begun}
        actions = {
            "sort by number": "document.querySelector('[data-sort^=hc]').click()",
            "sort by file": "document.querySelector('[data-sort^=input]').click()",
            "filter": "$('text').value = 'case_00'; filter()",
        }
        for name, action in actions.items():
            begun = time.perf_counter()
            browser.run(f"{action}; {FRAMES}")
            took[name] = time.perf_counter() - begun
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--write", type=Path, help="only write the page, there")
    args = parser.parse_args()
    if args.write:
        write(args.write, args.rows)
        return
    with TemporaryDirectory() as name:
        page = Path(name) / "night.html"
        seconds = write(page, args.rows)
        each = page.stat().st_size / args.rows / 1000
        took = browse(page, Path(name) / "profile") if chromium.COMMAND else {}
        command = (sys.executable, __file__, "--write", f"{name}/peak.html", "--rows")
        fewer, all_ = (run(*command, str(count)) for count in (max(1, args.rows // 10), args.rows))
    print(f"{args.rows} rows, {each:.1f} kB a row, written in {1000 * seconds / args.rows:.2f} ms a row")
    table(["", "seconds"], *([what, f"{found:.2f}"] for what, found in took.items()))
    verdict("slowest / 2 s", max(took.values(), default=0.0) / 2, 1)
    few = max(1, args.rows // 10)
    print(f"peak memory: {few} rows {fewer / 2**20:.0f} MiB, {args.rows} rows {all_ / 2**20:.0f} MiB")
    verdict("memory", all_ / fewer, 1.05)


if __name__ == "__main__":
    main()
