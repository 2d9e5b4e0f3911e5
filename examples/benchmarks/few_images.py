"""Dice and Hausdorff distance against the number of training images, by what the training starts from.

    python examples/benchmarks/few_images.py OUT/ --data HC18 skin-lesion --data ISIC2018 fetal-head \
        [--fold 3] [--counts 20 50 100 300] [--starts scratch imagenet other] [--steps N | --minutes M]

Each --data names a data folder, with a column fold in its index.csv, and the bundled model of the other kind,
which is the start "other". Subjects outside the fold are drawn at random, the smaller sets within the larger,
and `mhvae train-vae` is run on them with its defaults, for N steps or M minutes, if told. The model then
segments images of the fold. OUT/few_images.csv gets a row per training and OUT/few_images.png shows them; a
call that was interrupted goes on where it stopped. Scores are in the profile paper256.
"""

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import table
from rows import read_csv, write_csv

from mhvae_cli import Pipeline
from mhvae_cli.devices import resolve_device, resolve_dtype
from mhvae_cli.evaluation.metrics import measure
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.plot import line_chart
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.images.scan import upright
from mhvae_cli.training.automatic import choose
from mhvae_cli.training.datasets import Sample, discover
from mhvae_cli.training.loop import Outcome
from mhvae_cli.training.recipe import load_recipe
from mhvae_cli.training.state import STATE
from mhvae_cli.training.train import TrainingOptions, train_vae

COLUMNS = ("data", "start", "images", "steps", "minutes", "test", "dice", "hd")
VALIDATIONS = 8


def drawn(samples: list[Sample], count: int, seed: int = 0) -> list[Sample]:
    """About `count` samples of whole subjects; a smaller number gives a part of the same ones."""
    subjects = sorted({sample.subject for sample in samples})
    random.Random(seed).shuffle(subjects)
    order = {subject: number for number, subject in enumerate(subjects)}
    chosen = sorted(samples, key=lambda sample: (order[sample.subject], sample.id))[:count]
    return sorted(chosen, key=lambda sample: sample.id)


def train(samples: list[Sample], start: str, out: Path, args: argparse.Namespace) -> Outcome:
    """Train with the defaults, for the steps or the time of `args`; resume what was interrupted."""
    recipe, undecided = load_recipe("auto", None, {"start": start})
    recipe = choose(recipe, undecided, samples)
    if args.steps:
        used = max(1, int(len(samples) * (1 - recipe.train.val_fraction)) // recipe.train.batch_size)
        epochs = max(1, math.ceil(args.steps / used))
        length = {"epochs": epochs, "validate_every": math.ceil(epochs / VALIDATIONS), "patience": 0}
        recipe, undecided = load_recipe("auto", None, {"start": start, "train": length})
        recipe = choose(recipe, undecided, samples)
    device = resolve_device(args.device)
    deadline = time.monotonic() + 60 * args.minutes if args.minutes else None
    options = TrainingOptions(
        device,
        resolve_dtype("auto", device),
        resume=(out / STATE).exists(),
        deadline=deadline,
        timed=not args.steps,
        workers=args.workers,
    )
    return train_vae(samples, recipe, options, out, callback=tell)


def tell(event: dict[str, object]) -> None:
    """Print what is said of the training as a whole."""
    if "phase" in event:
        print(event["phase"], flush=True)


def scores(model: Path, test: list[Sample], device: str) -> tuple[float, float]:
    """The mean Dice and Hausdorff distance on test images."""
    pipeline, found = Pipeline.load(model, device=device), []
    for sample in test:
        assert sample.mask is not None
        scan = read_scan(sample.image)
        truth = upright(read_mask(sample.mask), scan.orientation)
        score = measure(pipeline.segment(scan).mask, truth, profile="paper256")
        found.append((score.dice, score.px.hausdorff))
    dice, distance = np.mean(found, axis=0)
    return float(dice), float(distance)


def jobs(args: argparse.Namespace) -> Iterator[tuple[str, Path, str, str, int]]:
    """The trainings: data set, its folder, start, what that is, number of images; large sets first."""
    for count in sorted(args.counts, reverse=True):
        for folder, other in args.data:
            for start in args.starts:
                yield Path(folder).name, Path(folder), start, other if start == "other" else start, count


def draw(rows: list[dict[str, str]]) -> np.ndarray:
    """Dice and Hausdorff distance against the number of images, a row of charts per data set."""
    charts = []
    for name in dict.fromkeys(row["data"] for row in rows):
        pair = []
        for column, title in (("dice", "Dice"), ("hd", "Hausdorff distance, px of 256")):
            lines: dict[str, list[tuple[float, float]]] = {}
            for row in sorted((r for r in rows if r["data"] == name), key=lambda r: int(r["images"])):
                lines.setdefault(row["start"], []).append((float(row["images"]), float(row[column])))
            label = "training images"
            pair.append(line_chart(lines, title=f"{name}: {title}", x_label=label, logarithmic=True))
        charts.append(np.concatenate(pair, axis=1))
    return np.concatenate(charts)


def main() -> None:
    """Read the options, train what is missing, write and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", nargs=2, action="append", required=True, metavar=("DIR", "OTHER"))
    parser.add_argument("--fold", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[20, 50, 100, 300])
    parser.add_argument("--starts", nargs="+", default=["scratch", "imagenet", "other"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--test", type=int, default=200, help="maximum number of test images")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    path = args.out / "few_images.csv"
    for name, folder, start, ref, count in jobs(args):
        rows = read_csv(path)
        if any((r["data"], r["start"], r["images"]) == (name, start, str(count)) for r in rows):
            continue
        samples = discover(folder)
        chosen = drawn([sample for sample in samples if sample.fold != args.fold], count)
        test = drawn([sample for sample in samples if sample.fold == args.fold], args.test)
        model = args.out / f"{name}-{start}-{count}"
        began = time.monotonic()
        if not train(chosen, ref, model, args).finished:
            sys.exit("stopped; the same command goes on")
        minutes = f"{(time.monotonic() - began) / 60:.1f}"
        dice, distance = scores(model, test, args.device)
        figures = (args.steps or "", minutes, len(test), f"{dice:.4f}", f"{distance:.2f}")
        rows.append(dict(zip(COLUMNS, map(str, (name, start, count, *figures)), strict=True)))
        write_csv(path, COLUMNS, rows)
        write_atomic(args.out / "few_images.png", encode_png(draw(rows)))
    table(list(COLUMNS), *([row[column] for column in COLUMNS] for row in read_csv(path)))


if __name__ == "__main__":
    main()
