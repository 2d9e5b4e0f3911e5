"""Do made pairs help? Dice against the number N of real images, without and with pairs made from them.

    python examples/benchmarks/made_pairs.py OUT/ --data DIR [--fold 3] [--counts 10 20 50 100 300]
        [--seeds 3] [--arms real carried ...] [--segmenters ours unet] [--steps 200] [--smoke]

DIR holds images/, masks/ and index.csv with a column fold. N images of the other folds are drawn at random,
the smaller sets within the larger, anew for each seed; some more of them, without masks, train the cDDPM of
the generator (pairs.py), which sees no other mask. Arms:
  real           the N, with strong augmentation, as all arms.
  carried        and 2 N warps and swaps of the N, which carry their pixels.
  samples-1      and N samples; samples-4: and 4 N.
  samples-1-good, samples-4-good: of those, the ones with a Dice of .9 and more. So there are fewer of them;
                 samples-1-good has the first N of the 4 N that reach it, if there are as many.
Segmenters: `ours`, the position part of `mhvae train-vae` at `--size` from ImageNet weights, one look, and
`unet`, small_unet.py from random weights. Every training has as many steps, of 8 images drawn evenly from
real and made ones alike. It is tested once, after the last step, on `--test` images of the fold, in the
profile paper256.

OUT/made_pairs.csv has a row per training; a call that was interrupted goes on where it stopped.
OUT/made_pairs.png shows the mean and the range over the seeds, OUT/made_pairs.md compares with `real`: the
mean difference in Dice, of the same N and seeds, and how many real masks would do as well, read off the
curve of `real`. Defaults need some five hours of one core. `--smoke` runs on phantoms, in a minute or so.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from common import smoke_or_data, stop, table  # first: see there

# isort: split
import numpy as np
import torch
import torch.nn.functional as F
from few_images import drawn
from pairs import CONFIG, Budget, Pair, generator, made, save
from rows import Row, markdown, read_csv, write_csv
from small_unet import UNetObjective
from steps import Fit, fitted
from torch import nn
from worth import ARMS, HEAD, SEGMENTERS, charts, compared

from mhvae_cli import Pipeline
from mhvae_cli.config import Recipe
from mhvae_cli.errors import MhvaeError
from mhvae_cli.evaluation.metrics import measure
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.images.scan import upright
from mhvae_cli.images.transforms import to_square
from mhvae_cli.training.automatic import choose
from mhvae_cli.training.datasets import OVERSIZE_CROPPED, MaskedImages, Sample, discover
from mhvae_cli.training.recipe import load_recipe
from mhvae_cli.training.train import hold_out
from mhvae_cli.training.vae_task import Objective, prepare_model
from mhvae_cli.vae.outline import mask

COLUMNS = ("images", "seed", "segmenter", "arm", "made", "steps", "cpu_minutes", "test", "dice", "hd")
KEY = COLUMNS[:4]
NAME = "made_pairs.csv"
GOOD = 0.9
UNET_LR = 2e-3
Find = Callable[[np.ndarray, tuple[int, int]], np.ndarray]
"""A square (C, S, S) in [-1, 1], and the native size of its image -> the mask bool of that size."""


def chosen(arm: str, pairs: dict[str, list[Pair]], count: int) -> list[Sample]:
    """The made pairs of an arm, if there are `count` real images."""
    if arm in ("real", "carried"):
        return [sample for sample, _ in pairs["carried"]] if arm == "carried" else []
    good = arm.endswith("-good")
    enough = [sample for sample, dice in pairs["sample"] if not good or dice >= GOOD]
    return enough[:count] if arm.startswith("samples-1") else enough


def recipe_of(samples: Sequence[Sample], size: int) -> Recipe:
    """`train-vae`'s own, at `size`; what it chooses from the data, from the N images."""
    own = {"model": {"image_size": size, "tones": 0}, "start": "imagenet"}
    recipe, undecided = load_recipe("auto", None, own)
    return choose(recipe, undecided & {"model.channels", "model.warp.family"}, samples)


def train(
    name: str, recipe: Recipe, real: MaskedImages, images: MaskedImages, indices: Sequence[int], fit: Fit
) -> tuple[nn.Module, Find]:
    """A segmenter trained on these of `images`; theta is centred and scaled by the `real` masks alone."""
    if name == "unet":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fit.seed)
            objective = UNetObjective(recipe.model.channels)
        unet = objective.model
        unet.load_state_dict(fitted(objective, images, indices, replace(fit, lr=UNET_LR)))
        return unet.eval(), lambda square, size: _unet_mask(unet, square, size)
    model, _ = prepare_model(recipe.model, real, seed=fit.seed, part="position", start=recipe.start)
    fit = replace(fit, dims=(model.theta_dim, model.config.z_dim))
    model.load_state_dict(fitted(Objective(model, recipe.train), images, indices, fit))
    model.eval()

    def find(square: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        with torch.inference_mode():
            theta = model.locate(torch.from_numpy(square)[None]).mean[0].numpy()
        return mask(model, theta, size)

    return model, find


@torch.inference_mode()
def _unet_mask(unet: nn.Module, square: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    logits = F.interpolate(unet(torch.from_numpy(square)[None]), size, mode="bilinear")
    return (logits[0, 0] >= 0).numpy()


def scores(find: Find, test: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """The mean Dice and Hausdorff distance on test images (C, S, S) and their masks."""
    found = [measure(find(square, truth.shape), truth, profile="paper256") for square, truth in test]
    return float(np.mean([x.dice for x in found])), float(np.mean([x.px.hausdorff for x in found]))


def load_test(samples: Sequence[Sample], recipe: Recipe) -> list[tuple[np.ndarray, np.ndarray]]:
    """Test images (C, S, S) in [-1, 1], and their masks at their own size."""
    loaded = []
    for sample in samples:
        assert sample.mask is not None
        scan = read_scan(sample.image)
        truth = upright(read_mask(sample.mask), scan.orientation)
        size, channels = recipe.model.image_size, recipe.model.channels
        loaded.append((to_square(scan.pixels, size, channels, window=scan.window).copy(), truth))
    return loaded


def run_set(args: argparse.Namespace, count: int, seed: int, before: Path | None) -> None:
    """The trainings that are missing for N = `count`; `before`: the generator of the next smaller N."""
    missing = [
        (arm, name) for arm in args.arms for name in args.segmenters if not _row(args, count, seed, name, arm)
    ]
    if not missing:
        return
    pool = hold_out(discover(args.data), args.fold)
    real = drawn(pool, count, seed)
    recipe = recipe_of(real, args.size)
    sizes = {"image_size": args.size, "channels": recipe.model.channels, "oversize": OVERSIZE_CROPPED}
    plain = MaskedImages(real, **sizes, workers=1)
    fit = Fit(args.steps, recipe.train.lr, recipe.train.augment, seed)
    held_out = drawn([sample for sample in discover(args.data) if sample.fold == args.fold], args.test)
    test = load_test(held_out, recipe)
    folder = args.out / f"seed{seed}-{count}"

    def train_row(arm: str, name: str, images: MaskedImages, indices: Sequence[int]) -> None:
        began = time.process_time()
        model, find = train(name, recipe, plain, images, indices, fit)
        minutes = (time.process_time() - began) / 60
        if (arm, name) == ("real", "ours"):
            save(folder / "ours", recipe.model, model.state_dict())
        if (arm, name) in missing:
            dice, distance = scores(find, test)
            figures = (
                len(indices) - count,
                args.steps,
                f"{minutes:.2f}",
                len(test),
                f"{dice:.4f}",
                f"{distance:.2f}",
            )
            row = dict(zip(COLUMNS, map(str, (count, seed, name, arm, *figures)), strict=True))
            _add(args, row)

    made_arms = [(arm, name) for arm, name in missing if arm != "real"]
    plain_arms = [("real", name) for arm, name in missing if arm == "real"]
    if made_arms and ("real", "ours") not in plain_arms and not (folder / "ours" / CONFIG).exists():
        plain_arms.append(("real", "ours"))
    for arm, name in plain_arms:
        train_row(arm, name, plain, range(count))
    if not made_arms:
        return
    unlabelled = [replace(sample, mask=None) for sample in drawn(pool, max(args.unlabelled, count), seed)]
    budget = Budget(**args.budget)

    def load() -> Pipeline:
        given = {"before": before, "seed": seed}
        out = generator(folder, folder / "ours", recipe.model, plain, unlabelled, budget, **given)
        return Pipeline.load(out, device="cpu")

    pairs = made(folder, load, real, budget, seed)
    together = [*real, *(sample for kind in pairs.values() for sample, _ in kind)]
    images = MaskedImages(together, **sizes, workers=1)
    places = {sample.id: place for place, sample in enumerate(together)}
    for arm, name in made_arms:
        train_row(
            arm, name, images, [*range(count), *(places[each.id] for each in chosen(arm, pairs, count))]
        )


def _row(args: argparse.Namespace, count: int, seed: int, segmenter: str, arm: str) -> bool:
    """Whether a training is done."""
    key = (str(count), str(seed), segmenter, arm)
    return any(tuple(row[column] for column in KEY) == key for row in read_csv(args.out / NAME))


def _add(args: argparse.Namespace, row: Row) -> None:
    """A row more, and the table and the picture of all."""
    rows = [*read_csv(args.out / NAME), row]
    write_csv(args.out / NAME, COLUMNS, rows)
    write_atomic(args.out / "made_pairs.md", markdown(HEAD, compared(rows)).encode())
    write_atomic(args.out / "made_pairs.png", encode_png(charts(rows)))
    print(", ".join(f"{column} {row[column]}" for column in COLUMNS), flush=True)


def options() -> argparse.Namespace:
    """The options; `--smoke` sets those of a run on phantoms that are not given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fold", type=int, default=3)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 20, 50, 100, 300])
    parser.add_argument("--seeds", type=int, default=3, help="their number")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--segmenters", nargs="+", choices=SEGMENTERS, default=list(SEGMENTERS))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=200, help="of each segmenter")
    parser.add_argument("--unlabelled", type=int, default=300, help="images for the cDDPM")
    parser.add_argument("--test", type=int, default=200, help="maximum number of test images")
    parser.add_argument("--smoke", action="store_true")
    if "--smoke" in sys.argv:
        parser.set_defaults(counts=[6, 9], seeds=1, size=64, steps=3, unlabelled=12, test=4)
    args = smoke_or_data(parser, 20)
    args.budget = {"style": 2, "cddpm": 1, "first_cddpm": 2, "evaluations": 2} if args.smoke else {}
    return args


def main() -> None:
    """Train what is missing, print the table."""
    args = options()
    torch.set_num_threads(1)
    if {row["steps"] for row in read_csv(args.out / NAME)} - {str(args.steps)}:
        stop(f"{args.out / NAME} has trainings of other --steps")
    try:
        pool = hold_out(discover(args.data), args.fold)
        if max(args.counts) > len(pool):
            found = f"{len(pool)} images outside fold {args.fold}"
            stop(f"{args.data}: {found}, and --counts asks for {max(args.counts)}")
        for seed in range(args.seeds):
            before: Path | None = None
            for count in sorted(args.counts):
                run_set(args, count, seed, before)
                out = args.out / f"seed{seed}-{count}" / "cddpm"
                before = out if (out / CONFIG).exists() else before
    except MhvaeError as error:
        stop(str(error))
    table(HEAD, *compared(read_csv(args.out / NAME)))


if __name__ == "__main__":
    main()
