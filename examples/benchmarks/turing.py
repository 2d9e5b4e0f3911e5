"""A visual Turing test: held-out images and edited ones, for a reader to tell apart.

    python examples/benchmarks/turing.py OUT/ --data DIR --fold K --model REF [--count 40] [--seed 0]
    python examples/benchmarks/turing.py OUT/ --mark MARKS.csv

DIR holds images/ and index.csv with the columns id and fold, and perhaps subject. OUT/ gets `--count`
numbered PNGs at native size, in random order: one half are real images of the fold, with their pixels
unchanged, the others were rotated by 5 to 25 degrees to either side and scaled by 0.85 to 1.15, and carry
their own pixels along (`mhvae warp`). No two show the same subject, the model finds an object in each, and no
file holds metadata. OUT/key.csv (number, kind, id, edit) has the answers: remove it before you pass the
folder on. OUT/sheet.html shows the images with a choice for each, and saves the reader's marks.

`--mark` compares marks (number, real or edited) with OUT/key.csv: accuracy with Wilson's 95 % interval. A
reader who cannot tell has 50 %. The test means something only if the model was not trained on the fold.
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from common import table  # first: see there

# isort: split
import numpy as np

from mhvae_cli import Pipeline
from mhvae_cli.errors import InputError
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import Scan
from mhvae_cli.training.datasets import Sample, discover

DEGREES, SCALES = (5.0, 25.0), (0.85, 1.15)
KINDS = ("real", "edited")
Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Exhibit:
    """One image of the test: pixels as in a Scan, kind, the id of the image that it shows, and edit."""

    pixels: np.ndarray
    kind: str
    id: str
    edit: str = ""


def exhibits(
    pipeline: Pipeline, samples: list[Sample], count: int, rng: np.random.Generator
) -> list[Exhibit]:
    """`count` exhibits in random order, half of each kind. Ends if too few images show an object."""
    chosen: list[Exhibit] = []
    for sample, scan in _found(pipeline, _one_per_subject(samples, rng)):
        if len(chosen) == count:
            break
        if len(chosen) >= count // 2:
            chosen.append(Exhibit(scan.pixels, "real", sample.id))
            continue
        with suppress(InputError):  # the edit moves the object out of the image
            chosen.append(_edited(pipeline, sample, scan, rng))
    if len(chosen) < count:
        sys.exit(f"{len(chosen)} subjects with an object that can be edited, and --count is {count}")
    return [chosen[i] for i in rng.permutation(count)]


def write(folder: Path, shown: list[Exhibit]) -> None:
    """The PNGs, the key and the sheet."""
    names = [f"{number:0{len(str(len(shown)))}d}" for number in range(1, len(shown) + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    for name, exhibit in zip(names, shown, strict=True):
        (folder / f"{name}.png").write_bytes(encode_png(exhibit.pixels))
    with open(folder / "key.csv", "w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["number", "kind", "id", "edit"])
        rows.writerows([n, x.kind, x.id, x.edit] for n, x in zip(names, shown, strict=True))
    (folder / "sheet.html").write_text(sheet(names), encoding="utf-8")


def sheet(names: list[str]) -> str:
    """A page that shows the images and saves the marks as marks.csv."""
    figures = []
    for name in names:
        choices = " ".join(
            f'<label><input type="radio" name="{name}" value="{kind}"> {kind}</label>' for kind in KINDS
        )
        figures.append(f'<figure><img src="{name}.png"><figcaption>{name} {choices}</figcaption></figure>')
    return PAGE.replace("FIGURES", "\n".join(figures))


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Real or edited?</title>
<style>
body { font-family: sans-serif } figure { display: inline-block; margin: 8px } img { display: block }
</style>
<p>Half of these images are real. In the others, one object was rotated and scaled. Mark each image.</p>
FIGURES
<p><button>Save marks.csv</button></p>
<script>
document.querySelector("button").onclick = () => {
  const rows = [...document.querySelectorAll("input:checked")].map(input => `${input.name},${input.value}`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([["number,mark", ...rows, ""].join("\\n")], { type: "text/csv" }));
  link.download = "marks.csv";
  link.click();
};
</script>
</html>
"""


def wilson(right: int, total: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `total` > 0 trials."""
    share, z2 = right / total, Z**2 / total
    centre = (share + z2 / 2) / (1 + z2)
    half = Z * math.sqrt(share * (1 - share) / total + z2 / 4 / total) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)


def marked(key: Mapping[int, str], marks: Mapping[int, str]) -> dict[str, tuple[int, int]]:
    """How many of the marks are right, and how many there are: of all, and of each kind of image."""
    right = {number: key[number] == mark for number, mark in marks.items()}
    rows = {"all": list(right.values())}
    for kind in KINDS:
        rows[kind] = [good for number, good in right.items() if key[number] == kind]
    return {name: (sum(row), len(row)) for name, row in rows.items()}


def read_marks(path: Path, key: Mapping[int, str] | None = None) -> dict[int, str]:
    """Numbers and kinds: the first two columns of a table. Ends if one is neither in the key nor a kind."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row and row[0].strip() != "number"]
    except OSError as error:
        sys.exit(f"{path}: {(error.strerror or str(error)).lower()}")
    marks: dict[int, str] = {}
    for number, mark, *_ in ([*map(str.strip, row), ""] for row in rows):
        if not number.isdecimal() or (key is not None and int(number) not in key):
            sys.exit(f"{path}: there is no image {number!r}")
        if mark.lower() not in KINDS:
            sys.exit(f"{path}: image {number}: real or edited, not {mark!r}")
        if int(number) in marks:
            sys.exit(f"{path}: image {number} is marked twice")
        marks[int(number)] = mark.lower()
    return marks


def print_marks(folder: Path, marks: Path) -> None:
    """A reader's accuracy."""
    key = read_marks(folder / "key.csv")
    given = read_marks(marks, key)
    rows = []
    for name, (right, total) in marked(key, given).items():
        share, interval = "-", "-"
        if total:
            low, high = wilson(right, total)
            share, interval = f"{right / total:.1%}", f"{low:.1%} to {high:.1%}"
        rows.append([name, f"{right} of {total}", share, interval])
    table(["images", "right", "accuracy", "95 % interval"], *rows)
    if len(given) < len(key):
        print(f"{len(key) - len(given)} of {len(key)} images are not marked")


def main() -> None:
    """Write a test, or mark one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fold", type=int)
    parser.add_argument("--model")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mark", type=Path)
    args = parser.parse_args()
    if args.mark:
        print_marks(args.out, args.mark)
        return
    if args.data is None or args.fold is None or args.model is None:
        parser.error("--data, --fold and --model are needed, or --mark")
    if args.count < 2 or args.count % 2:
        parser.error("--count is an even number")
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        sys.exit(f"{args.out}: not an empty folder")
    fold = [sample for sample in discover(args.data, masks=False) if sample.fold == args.fold]
    pipeline = Pipeline.load(args.model)
    write(args.out, exhibits(pipeline, fold, args.count, np.random.default_rng(args.seed)))


def _one_per_subject(samples: list[Sample], rng: np.random.Generator) -> list[Sample]:
    """One image of each subject, in random order."""
    shuffled = [samples[i] for i in rng.permutation(len(samples))]
    return list({sample.subject: sample for sample in shuffled}.values())


def _found(pipeline: Pipeline, samples: list[Sample]) -> Iterator[tuple[Sample, Scan]]:
    """The images in which the model finds an object."""
    for sample in samples:
        scan = read_scan(sample.image)
        if pipeline.segment(scan).mask.any():
            yield sample, scan


def _edited(pipeline: Pipeline, sample: Sample, scan: Scan, rng: np.random.Generator) -> Exhibit:
    rotate = round(rng.choice((-1, 1)) * rng.uniform(*DEGREES), 1)
    scale = round(rng.uniform(*SCALES), 3)
    made = pipeline.warp(scan, rotate=rotate, scale=scale)
    return Exhibit(made.pixels, "edited", sample.id, f"rotate {rotate:g}, scale {scale:g}")


if __name__ == "__main__":
    main()
