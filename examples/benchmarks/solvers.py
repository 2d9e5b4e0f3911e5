"""What a few evaluations by the fast solvers give beside a thousand by Euler-Maruyama, the paper's solver.

    python examples/benchmarks/solvers.py --data DIR --fold K --model REF [--count 24] [--crop 64]
    python examples/benchmarks/solvers.py --exact

First form: `--count` held-out images are reconstructed, and one square of each, `--crop` px wide and anywhere
in it, is refined by each solver, all in one batch: the network is fully convolutional. The distance is that
of patches to the same squares of the images (see sharpness.py); ± is its standard error over images, and that
of its difference from Euler-Maruyama's. Targets: the distance of 20 evaluations within a standard error of
Euler-Maruyama's, in a fiftieth of the time.
Second form: a mixture of Gaussians in 64 dimensions, whose score is known, in place of the network. The
sliced 2-Wasserstein distance of 4,096 points to as many true ones, over their sd, and that of two true sets.
± is the sd over five draws.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path

from common import table, verdict  # first: see there

# isort: split
import numpy as np
import torch
from sharpness import held_out, jackknife, measure, pm
from torch import Tensor

from mhvae_cli import Pipeline
from mhvae_cli.diffusion.sde import SDE
from mhvae_cli.diffusion.solvers import SOLVERS
from mhvae_cli.images.read import read_scan

PAPER = ("euler-maruyama", 1000)
FEW = [("euler-maruyama", 20), ("heun", 20)]
FEW += [(name, steps) for name in ("dpm++2m", "dpm++2m-sde", "unipc") for steps in (10, 15, 20)]
"""Solvers and their evaluations."""

POINTS, DIMENSIONS, COMPONENTS, SPREAD, DRAWS = 4096, 64, 8, 0.3, 5


def squares(pipeline: Pipeline, paths: list[Path], size: int) -> tuple[np.ndarray, Tensor, list[str]]:
    """One square of each image and of the VAE's picture of it, (N, C, size, size), and their noise's keys."""
    rng, found, keys = np.random.default_rng(0), [], []
    for path in paths:
        source = pipeline.source(path)
        both = np.stack(
            [pipeline.networks.prepare(read_scan(path)), *pipeline.networks.decode([source.code])]
        )
        y, x = rng.integers(0, both.shape[-1] - size + 1, 2)
        found.append(both[:, :, y : y + size, x : x + size])
        keys.append(source.key)
    real, recon = np.stack(found, axis=1)
    return real, torch.from_numpy(recon).to(pipeline.networks.device), keys


def on_network(pipeline: Pipeline, paths: list[Path], size: int) -> None:
    """The first form."""
    real, x_hat, keys = squares(pipeline, paths, size)
    refine = partial(pipeline.networks.refiner.refine, x_hat, keys, strength=1.0)
    refine(steps=2)  # the first call is slower
    seconds, made = [], []
    for solver, steps in (PAPER, *FEW):
        print(f"{solver}, {steps} evaluations", file=sys.stderr)
        begun = time.perf_counter()
        made.append(refine(solver=solver, steps=steps).float().cpu().numpy())
        seconds.append(time.perf_counter() - begun)
    distances = measure([*made, x_hat.cpu().numpy().clip(-1, 1)], real)

    def figures(keep: np.ndarray) -> np.ndarray:
        patches = distances(keep)[:, 1:].mean(axis=1)
        return np.stack([patches, patches - patches[0]])

    values, errors = jackknife(figures, len(real))
    names = [(*map(str, each), f"{s:.1f}") for each, s in zip((PAPER, *FEW), seconds, strict=True)]
    rows = []
    for i, name in enumerate([*names, ("none: the VAE's own", "0", "")]):
        rows.append([*name, pm(values[0, i], errors[0, i]), pm(values[1, i], errors[1, i])])
    table(["", "evaluations", "seconds", "distance", "less Euler-Maruyama's"], *rows)
    for i, (solver, steps) in enumerate(FEW, start=1):
        if steps == 20 and solver in ("dpm++2m", "dpm++2m-sde", "unipc"):
            verdict(f"{solver} 20: |difference| / standard error", abs(values[1, i]) / errors[0, 0], 1)
            verdict(f"{solver} 20: speed", seconds[0] / seconds[i], 50, least=True)


def on_mixture() -> None:
    """The second form."""
    sde, rng = SDE(), torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.empty(shape).normal_(generator=rng)

    centres = normal(COMPONENTS, DIMENSIONS) * (1 - SPREAD**2) ** 0.5
    axes = torch.nn.functional.normalize(normal(DIMENSIONS, 128), dim=0)

    def score(x: Tensor, t: float) -> Tensor:
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        variance = (alpha * SPREAD) ** 2 + sigma**2
        shares = torch.softmax(-torch.cdist(x, alpha * centres).square() / (2 * variance), dim=1)
        return (shares @ (alpha * centres) - x) / variance

    def noise() -> Tensor:
        return normal(POINTS, DIMENSIONS)

    def truth() -> Tensor:
        which = torch.randint(COMPONENTS, (POINTS,), generator=rng)
        return centres[which] + SPREAD * noise()

    def distance(made: Tensor) -> float:
        ordered = [torch.sort(x @ axes, dim=0).values for x in (made, truth())]
        sd = ordered[1].var(dim=0).mean().sqrt()
        return float((ordered[0] - ordered[1]).square().mean().sqrt() / sd)

    rows = [["two true sets", "", *_spread([distance(truth()) for _ in range(DRAWS)])]]
    for name, steps in (PAPER, *FEW):
        print(f"{name}, {steps} evaluations", file=sys.stderr)
        solved = [SOLVERS[name](score, noise(), sde, steps=steps, noise=noise) for _ in range(DRAWS)]
        rows.append([name, str(steps), *_spread([distance(each) for each in solved])])
    table(["", "evaluations", "distance"], *rows)


def main() -> None:
    """Choose the form."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fold", type=int)
    parser.add_argument("--model")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--crop", type=int, default=64)
    args = parser.parse_args()
    if args.exact:
        print(f"mixture of {COMPONENTS} Gaussians in {DIMENSIONS} dimensions, exact score, {POINTS} points")
        on_mixture()
        return
    if None in (args.data, args.fold, args.model):
        parser.error("--data, --fold and --model, or --exact")
    pipeline = Pipeline.load(args.model)
    paths = held_out(args.data, args.fold, args.count)
    print(f"{args.model} on fold {args.fold} of {args.data}: {len(paths)} squares of {args.crop} px", end="")
    print(f", {torch.get_num_threads()} threads")
    on_network(pipeline, paths, args.crop)


def _spread(values: list[float]) -> list[str]:
    return [pm(float(np.mean(values)), float(np.std(values, ddof=1)))]


if __name__ == "__main__":
    main()
