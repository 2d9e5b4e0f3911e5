"""What the score network sees and starts from: the quality of phantoms hangs on it.

    python examples/benchmarks/conditioning.py [--steps 1200] [--paper]

Anybody can run it: images are 48-px skin-lesion phantoms, 400 to learn from and 64 others to test on. x_hat
stands in for a VAE's picture: the image under a Gaussian blur of 3 px, its colours moved a fifth of the way
to the mean colour of those 400. How far they were moved x_hat alone can tell. Small networks, alike but for
`sees`, `normalise` and `spectral` (one that sees x is asked for eps, for v is no function of x: see
`ScoreNetwork`), learn for `--steps` steps from the same batches, times and noise, and draw each test image
four times from its x_hat, in 20 evaluations of DPM-Solver++(2M) SDE:
  patches   sliced 2-Wasserstein distance of 7 x 7 patches to those of the test images, at each level of the
            Laplacian pyramid, in sd of the level (see sharpness.py); mean over the draws.
  mean      of an image's four draws, over squares of 8 x 8 px: root mean square of its difference from the
            image's, which should be small, and from x_hat's, which should be as in the row "image". Numbers
            are of [-1, 1].
  variance  of x - x_hat over all pixels, over its variance in the images: should be 1.
  colours   power of the finer half of the frequencies of the two differences of colours (see sharpness.py),
            over that in the images: should be 1.
  loop      Dice of an image's mask with the pixels of a draw, blurred by 1 px, that are nearer to the mean
            colour of the image's object than to that of its ground.
± is a standard error over the test images. "other images" are 64 more: the floor of patches, though draws,
being of the test images, can lie a little below it. "image" and "x_hat" stand for the draws in their rows.
`--paper` adds Euler-Maruyama with 1,000 evaluations, which is fifty times as much to draw. The first lines
follow from equation 13 alone and need no network.
"""

import argparse
import math
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

from common import table  # first: see there

# isort: split
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from sharpness import DIRECTIONS, jackknife, log_spectrum, pm, projections, pyramid
from torch import nn

from mhvae_cli.config import CDDPMConfig, DiffusionConfig, UNetConfig
from mhvae_cli.diffusion.refiner import Refiner
from mhvae_cli.diffusion.sde import SDE
from mhvae_cli.diffusion.spectrum import band_power
from mhvae_cli.images.transforms import to_square
from mhvae_cli.training.cddpm_task import times
from mhvae_cli.training.loop import schedule
from mhvae_cli.training.phantoms import phantom

SIZE, TRAIN, TEST, DRAWS = 48, 400, 64, 4
BLUR, FADED = 3.0, 0.2
BATCH, LR, WARMUP, DECAY, EMA = 16, 2e-3, 0.03, 1e-2, 0.99
UNET = UNetConfig(channels=24, levels=3, blocks=1, patch=2)
CONFIGS = [
    DiffusionConfig(sees="x", normalise=False, unet=UNET),
    DiffusionConfig(sees="residual", normalise=True, unet=UNET),
    DiffusionConfig(sees="residual+recon", normalise=False, unet=UNET),
    DiffusionConfig(sees="residual+recon", normalise=True, unet=UNET),
    DiffusionConfig(sees="residual+recon", normalise=True, spectral=True, unet=UNET),
    DiffusionConfig(sees="residual+recon+mask", normalise=True, spectral=True, unet=UNET),
]
"""The first is the paper's S(x, t), the last but one what `train-cddpm` takes if it is told nothing."""

SOLVED = ("dpm++2m-sde", 20)
PAPER = ("euler-maruyama", 1000)
POOLED = 8
FIGURES = (
    "patches, 48 px",
    "patches, 24 px",
    "mean to image",
    "mean to x_hat",
    "variance",
    "colours",
    "loop",
)
HIDDEN = 0.01


@dataclass(frozen=True)
class Pictures:
    """Images and their x_hat, both (N, 3, S, S) float32 in [-1, 1], and their masks bool (N, S, S)."""

    image: np.ndarray
    x_hat: np.ndarray
    mask: np.ndarray

    def level(self) -> torch.Tensor:
        """The masks' level functions (N, 1, S, S): the distance to the outline, above 0 inside it."""
        far = [distance_transform_edt(mask) - distance_transform_edt(~mask) for mask in self.mask]
        return torch.from_numpy(np.stack(far)[:, None].astype(np.float32) * 2 / SIZE)


def pictures() -> tuple[Pictures, Pictures, np.ndarray]:
    """Those to learn from, those to test on, and as many other images (N, 3, S, S)."""
    count = TRAIN + 2 * TEST
    drawn = [phantom("skin-lesion", seed, (SIZE, SIZE)) for seed in range(count)]
    image = np.stack([to_square(pixels, SIZE, 3) for pixels, _ in drawn])
    mask = np.stack([mask for _, mask in drawn])
    colour = image[:TRAIN].mean(axis=(0, 2, 3), keepdims=True)
    blurred = gaussian_filter(image, (0, 0, BLUR, BLUR), mode="mirror")
    x_hat = blurred + FADED * (colour - blurred)
    parts = (slice(0, TRAIN), slice(TRAIN, TRAIN + TEST))
    train, test = (Pictures(image[part], x_hat[part], mask[part]) for part in parts)
    return train, test, image[TRAIN + TEST :]


def hidden(sde: SDE, sd: float) -> float:
    """The share of uniform steps of t at which a residual of that sd has a signal-to-noise ratio (of powers)
    below `HIDDEN`."""
    return 1.0 - sde.time_of(math.log(math.sqrt(HIDDEN) / sd))


def trained(config: DiffusionConfig, train: Pictures, steps: int, *, seed: int = 0) -> Refiner:
    """The EMA of a network after `steps` steps of equation 8 on whole images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        refiner = Refiner(config, channels=3, codes=1)
    network, rng = refiner.network, np.random.default_rng(seed)
    image, x_hat = (torch.from_numpy(x) for x in (train.image, train.x_hat))
    if config.normalise:
        network.scale.copy_(network.target(image, x_hat).square().mean().sqrt())
    if network.spectrum is not None:
        network.spectrum.store(band_power(network.target(image, x_hat)))
    level = train.level()
    ema, optimizer = deepcopy(refiner), torch.optim.AdamW(network.parameters(), weight_decay=DECAY)
    for step in range(steps):
        picks = rng.integers(0, len(image), BATCH)
        t = times(network.sde, (np.arange(BATCH) + rng.random(BATCH)) / BATCH, CDDPMConfig())
        eps = torch.from_numpy(rng.standard_normal((BATCH, *image.shape[1:]), np.float32))
        hints = network.hints(x_hat[picks], level[picks])
        loss = network.loss(image[picks], x_hat[picks], t, eps, hints).mean()
        for group in optimizer.param_groups:
            group["lr"] = LR * schedule(step / steps, WARMUP)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        _follow(ema, refiner, min(EMA, (1 + step) / (10 + step)))
    return ema.eval()


@torch.no_grad()
def _follow(ema: nn.Module, module: nn.Module, decay: float) -> None:
    for mean, value in zip(ema.parameters(), module.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)


def drawn(refiner: Refiner, test: Pictures, *, solver: str, steps: int) -> list[np.ndarray]:
    """`DRAWS` sets of pictures (N, 3, S, S) from the x_hat of `test`. All networks get the same noise."""
    given, level = torch.from_numpy(test.x_hat), test.level()
    keys = [str(i) for i in range(len(given))]
    refine = partial(refiner.refine, given, keys, steps=steps, solver=solver, strength=1.0)
    sets = (refine(seed=k, level=level) for k in range(DRAWS))
    return [made.numpy() for made in sets]


def measured(draws: Sequence[np.ndarray], test: Pictures) -> list[str]:
    """The FIGURES of sets of pictures of the test images, (N, 3, S, S) each."""
    slices = []
    for number, level in enumerate(zip(*(pyramid(x) for x in (*draws, test.image)), strict=True)):
        slices.append(projections(level, np.random.default_rng(number)))
    mean, residual = np.mean(draws, axis=0), np.stack([x - test.x_hat for x in draws])
    missed = [_pooled(mean - x) for x in (test.image, test.x_hat)]
    colours = np.mean([_colours(x) for x in draws], axis=0), _colours(test.image)
    loop = np.mean([_loop(x, test) for x in draws], axis=0)

    def figures(keep: np.ndarray) -> np.ndarray:
        patches = [_sliced(level, keep) for level in slices]
        means = [math.sqrt(np.square(x[keep]).mean()) for x in missed]
        ratio = residual[:, keep].var() / (test.image - test.x_hat)[keep].var()
        weak = colours[0][keep].mean() / colours[1][keep].mean()
        return np.array([*patches, *means, ratio, weak, loop[keep].mean()])

    values, errors = jackknife(figures, len(test.image))
    return [pm(value, error, 3) for value, error in zip(values, errors, strict=True)]


def _sliced(level: Sequence[np.ndarray], keep: np.ndarray) -> float:
    """The mean over the sets of their sliced 2-Wasserstein distances to the last one."""
    *made, real = (np.sort(x[:, keep].reshape(DIRECTIONS, -1), axis=1) for x in level)
    return float(np.mean([math.sqrt(np.square(x - real).mean()) for x in made]))


def _colours(pictures: np.ndarray) -> np.ndarray:
    """The power (N,) of the finer half of the frequencies of the differences of colours."""
    power: np.ndarray = 10 ** log_spectrum(pictures)[:, 1:, SIZE // 4 :]
    return power.mean(axis=(1, 2))


def _loop(pictures: np.ndarray, test: Pictures) -> np.ndarray:
    """The Dice (N,) of the masks with what has the object's colour in pictures (N, 3, S, S)."""
    found = []
    for picture, image, mask in zip(pictures, test.image, test.mask, strict=True):
        soft = gaussian_filter(picture, (0, 1, 1), mode="mirror")
        far = [np.square(soft - image[:, part].mean(1)[:, None, None]).sum(0) for part in (mask, ~mask)]
        inside = far[0] < far[1]
        found.append(2 * (inside & mask).sum() / (inside.sum() + mask.sum()))
    return np.array(found)


def _pooled(pictures: np.ndarray) -> np.ndarray:
    """Means over squares of `POOLED` px: (N, C, S, S) -> (N, C, S / POOLED, S / POOLED)."""
    count, channels, side, _ = pictures.shape
    cells = pictures.reshape(count, channels, side // POOLED, POOLED, side // POOLED, POOLED)
    return cells.mean(axis=(3, 5))


def equation_13(train: Pictures) -> None:
    """Print what follows from the schedule and the residual's sd."""
    sde, sd = SDE(), float((train.image - train.x_hat).std())
    print(f"equation 13, share of uniform steps at a signal-to-noise ratio below {HIDDEN:g}:")
    cases = {"residual's sd 0.15": 0.15, f"residual's sd {sd:.3f}, as here": sd, "normalised": 1.0}
    table(["", "steps"], *([name, f"{hidden(sde, value):.0%}"] for name, value in cases.items()))


def main() -> None:
    """Learn, draw, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--paper", action="store_true")
    args = parser.parse_args()
    train, test, others = pictures()
    equation_13(train)
    blanks, yes = [""] * 4, ["no", "yes"]
    rows = [
        ["other images", *blanks, *measured([others], test)[:2], *[""] * 5],
        ["image", *blanks, *measured([test.image], test)],
        ["x_hat", *blanks, *measured([test.x_hat], test)],
    ]
    for config in CONFIGS:
        begun = time.perf_counter()
        refiner = trained(config, train, args.steps)
        learnt = time.perf_counter()
        for solver, steps in [SOLVED, PAPER] if args.paper else [SOLVED]:
            made = drawn(refiner, test, solver=solver, steps=steps)
            name = [config.sees, yes[config.normalise], yes[config.spectral], solver, str(steps)]
            rows.append([*name, *measured(made, test)])
        spent = f"{learnt - begun:.0f} s to learn, {time.perf_counter() - learnt:.0f} s to draw"
        print(f"{config}: {spent}", file=sys.stderr)
    print(f"{args.steps} steps, {TEST} test images, {DRAWS} draws of each")
    table(["sees", "normalised", "spectral", "solver", "evaluations", *FIGURES], *rows)


if __name__ == "__main__":
    main()
