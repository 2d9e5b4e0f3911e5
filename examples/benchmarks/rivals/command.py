"""The command `rivals.py`: options, checks, and what is done in which order."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rows import read_csv, write_csv

from mhvae_cli.devices import resolve_device, resolve_dtype
from mhvae_cli.errors import MhvaeError, OutputError, UsageError
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.training.automatic import choose
from mhvae_cli.training.datasets import OVERSIZE_CROPPED, MaskedImages, Sample, discover, split
from mhvae_cli.training.loop import Diverged
from mhvae_cli.training.phantoms import write_phantoms
from mhvae_cli.training.recipe import load_recipe
from mhvae_cli.training.train import hold_out

from . import nnunet, ours, robustness, tables, training
from .nets import RIVALS, check_installed
from .ours import OURS
from .testing import Candidate, candidates, predict, score
from .training import Budget, Data, Stopped, Trained

MODELS = (*RIVALS, *OURS, nnunet.NAME)
STRIDE = 32


@dataclass(frozen=True)
class Setting:
    """What is the same for all models of a fold."""

    fold: int
    data: Data
    test: list[Sample]
    channels: int
    device: torch.device
    dtype: torch.dtype


def parser(about: str | None) -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = options.add_argument
    add("--data", type=Path, help="folder with images/, masks/ and index.csv (columns id and fold)")
    add("--out", type=Path, help="results, and the state of what is not finished")
    add(
        "--models",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help=f"all (but nnunet), or {', '.join(MODELS)}",
    )
    add("--fold", type=int, nargs="+", default=[3], metavar="K", help="held out and tested, one by one")
    length = options.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, help="training time of each model (20)")
    length.add_argument("--images", type=int, help="number of images shown to each model, instead")
    add("--size", type=int, default=128, help=f"side of the square input, a multiple of {STRIDE}")
    add("--batch", type=int, default=16)
    add("--train", type=int, help="maximum number of training images, validation included")
    add("--test", type=int, help="maximum number of test images")
    add("--reference", default="ours-tps", metavar="NAME", help="what the others are compared with")
    add("--robustness", action="store_true", help="disturb test images of the models in --out")
    add("--figure", nargs="+", metavar="NAME", help="what the figure of --robustness shows, eight at most")
    add("--smoke", action="store_true", help="two steps of each model, on phantoms")
    add("--seed", type=int, default=0)
    add("--device", default="auto")
    add("--dtype", default="auto")
    add("--threads", type=int)
    add("--workers", type=int, default=1)
    return options


def main(about: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run the command; exit with mhvae's codes, the error in one line."""
    args = parser(about).parse_args(arguments)
    try:
        if args.smoke:
            smoke(args)
        else:
            run(args)
    except MhvaeError as error:
        print(f"error: {error}", *([f"hint: {error.hint}"] if error.hint else []), sep="\n", file=sys.stderr)
        sys.exit(error.exit_code)
    except Stopped as stopped:
        print("stopped; the same command goes on", file=sys.stderr)
        sys.exit(128 + stopped.signal)


def smoke(args: argparse.Namespace) -> None:
    """Two steps of each model on phantoms, and all that follows."""
    with TemporaryDirectory() as folder:
        args.data, args.out = Path(folder, "phantoms"), args.out or Path(folder, "out")
        write_phantoms(args.data, "fetal-head", 8, size=(64, 80))
        args.fold, args.size, args.batch, args.minutes, args.images, args.test = [3], 64, 2, None, 4, 2
        run(args)


def run(args: argparse.Namespace) -> None:
    """Train and test what is missing; then write the tables."""
    names = chosen(args.models)
    check(args, names)
    if args.threads:
        torch.set_num_threads(args.threads)
    budget = Budget(args.minutes, args.images)
    if budget == Budget():
        budget = Budget(minutes=20.0)
    samples = discover(args.data)
    for fold in args.fold:
        hold_out(samples, fold)  # all folds exist, or nothing is begun
    check_settings(args, budget)
    failure = None
    for fold in args.fold:
        setting = prepare(args, samples, fold)
        if args.robustness:
            disturb(args, names, setting)
            continue
        for name in names:
            if any(r["model"] == name and r["fold"] == str(fold) for r in read_csv(args.out / "rivals.csv")):
                continue
            try:
                took = train_one(name, args, setting, budget)
            except Diverged as error:  # costs its own row and no other
                failure = Diverged(f"{name}, fold {fold}: {error}")
                print(f"error: {failure}", file=sys.stderr)
                continue
            for candidate in load(name, args, setting):
                test_one(candidate, args, setting, budget, took)
            tables.write_markdown(args.out)
    if args.robustness:
        lines = args.figure or [args.reference, *RIVALS, "ours-shipped"]
        robustness.write_figure(args.out / "robustness.csv", lines, args.out / "robustness.png")
        print(args.out / "robustness.png")
    else:
        tables.compare_all(args.out, args.reference)
        tables.write_markdown(args.out)
        print((args.out / "rivals.md").read_text(), end="")
    if failure is not None:
        sys.exit(failure.exit_code)


def check(args: argparse.Namespace, names: Sequence[str]) -> None:
    """UsageError for options without which nothing can be done, and for missing packages."""
    if args.data is None or args.out is None:
        raise UsageError("--data and --out are needed", hint="--smoke runs without")
    if args.size % STRIDE:
        raise UsageError(f"--size {args.size}: not a multiple of {STRIDE}")
    for name, least in (("minutes", 1e-3), ("images", 1), ("batch", 2), ("train", 1), ("test", 1)):
        if (value := getattr(args, name)) is not None and value < least:
            raise UsageError(f"--{name} {value:g}: must be {least:g} or more")
    if args.reference.removesuffix("-1look") not in MODELS:
        raise UsageError(f"--reference {args.reference}: no such model", hint=f"one of {', '.join(MODELS)}")
    check_installed(names)
    if nnunet.NAME in names:
        nnunet.check_installed()


def chosen(names: Sequence[str]) -> list[str]:
    """The models of --models. UsageError for one that does not exist."""
    if unknown := [name for name in names if name not in MODELS and name != "all"]:
        raise UsageError(f"--models {unknown[0]}: no such model", hint=f"all, or {', '.join(MODELS)}")
    every = "all" in names
    return [name for name in MODELS if name in names or (every and name != nnunet.NAME)]


def check_settings(args: argparse.Namespace, budget: Budget) -> None:
    """Note what all models in --out must share; OutputError if they were begun with other settings."""
    now = {
        "data": str(args.data.resolve()) if not args.smoke else "phantoms",
        "budget": str(budget),
        **{name: getattr(args, name) for name in ("size", "batch", "seed", "train", "test")},
    }
    path = args.out / "settings.json"
    before = json.loads(path.read_text()) if path.exists() else now
    shared = before if not args.robustness else before.keys() & {"data", "size"}
    if changed := [name for name in shared if before[name] != now.get(name)]:
        name = changed[0]
        hint = "choose a new folder, or the settings that it was begun with"
        raise OutputError(f"{args.out}: begun with {name} {before[name]}, now {now.get(name)}", hint=hint)
    if not args.robustness:
        write_atomic(path, json.dumps(now, indent=1).encode())


def prepare(args: argparse.Namespace, samples: Sequence[Sample], fold: int) -> Setting:
    """Read the images; split those outside the fold by subject."""
    recipe, _ = load_recipe("auto", None, {"train": {"seed": args.seed}})
    outside = some([s for s in hold_out(samples, fold) if s.mask], args.train)
    recipe = choose(recipe, {"model.channels", "train.val_fraction"}, outside)
    test = some([s for s in samples if s.fold == fold], args.test)
    parts = split(outside, fraction=recipe.train.val_fraction, seed=args.seed)
    size = {"image_size": args.size, "channels": recipe.model.channels}
    if args.robustness:
        parts = [], []
    train, val = (
        MaskedImages(part, **size, oversize=OVERSIZE_CROPPED, workers=max(1, args.workers)) if part else None
        for part in parts
    )
    data = Data(train, val, recipe.train.augment, args.batch, args.seed, args.workers)
    device = resolve_device(args.device)
    return Setting(fold, data, test, recipe.model.channels, device, resolve_dtype(args.dtype, device))


def some(samples: list[Sample], count: int | None) -> list[Sample]:
    """About `count` of the samples, spread evenly over them."""
    if count is None or count >= len(samples):
        return samples
    return [samples[i * len(samples) // count] for i in range(count)]


def place(args: argparse.Namespace, name: str, fold: int) -> Path:
    """Where a model is trained."""
    return args.out / name / f"fold{fold}"


def train_one(name: str, args: argparse.Namespace, setting: Setting, budget: Budget) -> Trained:
    """Train a model, unless it is trained."""
    out = place(args, name, setting.fold)
    if (took := training.trained(out)) is not None:
        return took

    def tell(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {name}, fold {setting.fold}: {text}", file=sys.stderr, flush=True)

    if name == nnunet.NAME:
        own = {"channels": setting.channels, "device": setting.device, "seed": args.seed}
        return nnunet.train(setting.data, budget, out, **own, tell=tell)
    how = {"device": setting.device, "dtype": setting.dtype, "tell": tell}
    if name in OURS:
        size = {"size": args.size, "channels": setting.channels}
        return ours.train(OURS[name], setting.data, budget, out, **size, **how)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(args.seed)
        net = RIVALS[name].build(setting.channels, args.size)
        return training.train(net, RIVALS[name], setting.data, budget, out, **how)


def load(name: str, args: argparse.Namespace, setting: Setting) -> list[Candidate]:
    """A trained model, ready to be tested."""
    return candidates(
        name,
        place(args, name, setting.fold),
        size=args.size,
        channels=setting.channels,
        batch_size=args.batch,
        device=setting.device,
        dtype=setting.dtype,
    )


def test_one(
    candidate: Candidate, args: argparse.Namespace, setting: Setting, budget: Budget, took: Trained
) -> None:
    """Segment the test images, score them, and add a row to OUT/rivals.csv."""
    (args.out / "truth").mkdir(parents=True, exist_ok=True)
    for sample in setting.test:
        shutil.copy(sample.mask, args.out / "truth" / sample.mask.name)
    milliseconds = predict(candidate, setting.test, args.out)
    scores = score(candidate.name, setting.test, setting.fold, args.out)
    row = {
        **{name: getattr(candidate, name) for name in ("title", "encoder", "start", "looks")},
        "model": candidate.name,
        "data": args.data.resolve().name,
        "fold": setting.fold,
        "size": args.size,
        "budget": budget,
        "batch": args.batch,
        "train_images": len(setting.data.train),
        "val_images": len(setting.data.val),
        "test_images": len(setting.test),
        "steps": took.steps,
        "shown": took.images,
        "minutes": f"{took.seconds / 60:.2f}",
        **tables.spreads(scores),
        "parameters_m": f"{candidate.parameters:.4g}",
        "gflop": f"{candidate.gflop:.4g}",
        "ms": f"{milliseconds:.1f}",
        "threads": torch.get_num_threads(),
        "dtype": str(setting.dtype).removeprefix("torch."),
        "device": device_name(setting.device),
        "date": date.today(),
    }
    path = args.out / "rivals.csv"
    fresh = {name: str(row[name]) for name in tables.COLUMNS}
    same = (fresh["model"], fresh["fold"])
    rows = [r for r in read_csv(path) if (r["model"], r["fold"]) != same]
    write_csv(path, tables.COLUMNS, [*rows, fresh])


def disturb(args: argparse.Namespace, names: Sequence[str], setting: Setting) -> None:
    """Measure the models of --out on disturbed test images."""
    ready = [name for name in names if training.trained(place(args, name, setting.fold)) is not None]
    if not ready:
        raise UsageError(
            f"{args.out}: no trained model of fold {setting.fold}", hint="omit --robustness first"
        )
    for name in ready:
        tested = load(name, args, setting)
        robustness.measure_all(tested, setting.test, setting.fold, args.out / "robustness.csv")


def device_name(device: torch.device) -> str:
    """The processor or the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return device.type
