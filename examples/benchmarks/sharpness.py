"""How sharp a model's pictures are: their spectrum and their patches beside those of held-out images.

A part of generation.py: held-out images are reconstructed, and the VAE's pictures and the refined ones
compared with the images themselves, all in the model's square:
  spectrum  log10 of the power at each whole frequency, averaged around the ring, then over the images; mean
            absolute difference over the frequencies above 1/8 of Nyquist's. Under a Hann window; the power of
            rounding to 8 bits is added to all, so that black has a logarithm. Of colour images, the lightness
            and two differences of colours count alike: the detail of colours is weak, and its errors show.
  patches   sliced Wasserstein distance of 7 x 7 patches of each level of the Laplacian pyramid, down to 16
            px (Karras et al. 2018): |difference| of the sorted projections, mean over 256 directions, then
            over the levels. Channels are normalised by the images' own mean and sd: where each set is by its
            own, as published, a picture that is blurred only weakens the finest level and loses nothing.
Patches lie at the same places in all sets, so a set is at no distance from itself. "real halves" is one half
of the images against the other: other images, and half as many, so refined pictures can lie below it. Errors
are standard errors: a jackknife over ten parts of the images. Target: the refined ones at most half as far
as the VAE's.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from common import table, verdict  # first: see there

# isort: split
import numpy as np
from scipy.fft import dct
from scipy.ndimage import convolve1d

from mhvae_cli.images.read import read_scan
from mhvae_cli.images.transforms import to_square
from mhvae_cli.inference.networks import Networks
from mhvae_cli.training.datasets import discover
from mhvae_cli.vae.editing import LatentCode

BATCH = 8
ROUNDING = (2 / 255) ** 2 / 12
SIDE, PATCHES, DIRECTIONS = 7, 64, 256
SMALLEST = 16
TARGET = 0.5

Measure = Callable[[np.ndarray], np.ndarray]
"""Indices (n,) of the images that count -> figures of any shape."""

Figures = dict[str, dict[str, tuple[float, float]]]
"""By figure and column, the figure and its standard error."""


def log_spectrum(images: np.ndarray) -> np.ndarray:
    """log10 of the power of images (N, C, S, S) in [-1, 1] at 1 to S // 2 cycles an image: (N, C, S // 2).

    Colours are separated into lightness, red - blue, and green - magenta.
    """
    size = images.shape[-1]
    images = dct(images, axis=1, norm="ortho")
    window = np.outer(np.hanning(size + 1)[:-1], np.hanning(size + 1)[:-1])
    level = images - images.mean(axis=(2, 3), keepdims=True)
    power = np.abs(np.fft.fft2(level * window)) ** 2 / (window**2).sum()
    frequency = np.fft.fftfreq(size, 1 / size)
    ring = np.rint(np.hypot(frequency[:, None], frequency)).astype(int)
    rings = [power[..., ring == k].mean(axis=-1) for k in range(1, size // 2 + 1)]
    return np.log10(np.stack(rings, axis=-1) + ROUNDING)


def blur(images: np.ndarray) -> np.ndarray:
    """Burt and Adelson's five binomial taps along both sides of images (N, C, h, w), mirrored at the rim."""
    kernel = np.array([1, 4, 6, 4, 1], np.float32) / 16
    for axis in (-2, -1):
        images = convolve1d(images, kernel, axis=axis, mode="mirror")
    return images


def pyramid(images: np.ndarray) -> list[np.ndarray]:
    """The Laplacian pyramid of images (N, C, S, S), finest first; the last level, of 16 px or more, is a
    low-pass picture, and upscaling and adding gives the images back."""
    levels = [images]
    while levels[-1].shape[-1] >= 2 * SMALLEST:
        fine = levels.pop()
        coarse = blur(fine)[..., ::2, ::2]
        spread = np.zeros_like(fine)
        spread[..., ::2, ::2] = 4 * coarse
        levels += [fine - blur(spread), coarse]
    return levels


def projections(level: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """One level of several sets (N, C, h, w), the last one real -> projected patches (256, N, patches)."""
    count, channels, *size = level[-1].shape
    y, x = (rng.integers(0, length - SIDE + 1, (count, PATCHES, 1, 1)) for length in size)
    y, x = y + np.arange(SIDE)[:, None], x + np.arange(SIDE)
    image = np.arange(count)[:, None, None, None]
    patches = [np.moveaxis(each, 1, 3)[image, y, x] for each in level]  # (N, patches, 7, 7, C)
    mean, sd = (f(patches[-1], axis=(0, 1, 2, 3)) for f in (np.mean, np.std))
    axes = rng.standard_normal((SIDE**2 * channels, DIRECTIONS)).astype(np.float32)
    axes /= np.linalg.norm(axes, axis=0)
    flat = (((each - mean) / sd).reshape(count * PATCHES, -1) for each in patches)
    return [(each @ axes).T.reshape(DIRECTIONS, count, PATCHES) for each in flat]


def measure(sets: Sequence[np.ndarray], real: np.ndarray, *, seed: int = 0) -> Measure:
    """Prepare to compare sets of pictures with `real` images, all (N, C, S, S) in [-1, 1].

    What comes back takes the indices of the images that count and gives (sets, 1 + levels): the spectrum's
    distance to the real images, and the patches' at each level of the pyramid, finest first.
    """
    spectra = [log_spectrum(images) for images in (*sets, real)]
    high = np.arange(1, spectra[0].shape[-1] + 1) > real.shape[-1] / 16
    levels = []
    for number, level in enumerate(zip(*(pyramid(images) for images in (*sets, real)), strict=True)):
        levels.append(projections(level, np.random.default_rng([seed, number])))

    def distances(keep: np.ndarray) -> np.ndarray:
        means = [spectrum[keep].mean(axis=0)[:, high] for spectrum in spectra]
        columns = [[np.abs(mean - means[-1]).mean() for mean in means[:-1]]]
        for slices in levels:
            ordered = [np.sort(x[:, keep].reshape(DIRECTIONS, -1), axis=1) for x in slices]
            columns.append([np.abs(x - ordered[-1]).mean() for x in ordered[:-1]])
        return np.array(columns).T

    return distances


def jackknife(figures: Measure, count: int, groups: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Figures of `count` images, two at least, and their standard errors: from the figures without each of
    ten parts of the images."""
    every, groups = np.arange(count), min(groups, count)
    without = np.stack([figures(every[every % groups != group]) for group in range(groups)])
    return figures(every), np.sqrt((groups - 1) * without.var(axis=0))


def sharpness(vae: np.ndarray, refined: np.ndarray, real: np.ndarray) -> Figures:
    """Both sets of pictures beside the images they show, all (N, C, S, S) in [-1, 1], N at least 4."""

    def ratios(distances: Measure) -> Measure:
        def extended(keep: np.ndarray) -> np.ndarray:
            found = distances(keep)
            found = np.insert(found, 1, found[:, 1:].mean(axis=1), axis=1)
            return np.concatenate([found, found[1:] / found[:1]])

        return extended

    half = len(real) // 2
    parts = [jackknife(ratios(measure([vae, refined], real)), len(real))]
    parts.append(jackknife(ratios(measure([real[:half]], real[half : 2 * half])), half))
    values, errors = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    names = ["spectrum", "patches", *(f"patches at {x.shape[-1]} px" for x in pyramid(real[:1]))]
    columns = ["VAE", "refined", "ratio", "real halves"]
    return {
        name: {column: (float(values[i, j]), float(errors[i, j])) for i, column in enumerate(columns)}
        for j, name in enumerate(names)
    }


def show(figures: Figures) -> None:
    """Print what `sharpness` gives."""
    columns = list(next(iter(figures.values())))
    rows = ([name, *(pm(*row[column]) for column in columns)] for name, row in figures.items())
    table(["", *columns], *rows)
    for name in ("spectrum", "patches"):
        verdict(f"{name}, refined / VAE", figures[name]["ratio"][0], TARGET)


def pm(value: float, error: float, digits: int = 4) -> str:
    """A figure and its standard error."""
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def held_out(data: Path, fold: int, count: int) -> list[Path]:
    """`count` images of a fold, or all, drawn and ordered at random, always alike. Ends if there are few."""
    found = [sample.image for sample in discover(data, masks=False) if sample.fold == fold]
    if min(count, len(found)) < 4:
        sys.exit(f"{data}: {len(found)} images of fold {fold}, and four are the least")
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:count]]


def real_images(networks: Networks, paths: Sequence[Path]) -> np.ndarray:
    """Images (N, C, S, S) in [-1, 1] on the square on which the model's pictures are drawn."""
    channels, scans = networks.config.channels, (read_scan(path) for path in paths)
    return np.stack([to_square(s.pixels, networks.side, channels, window=s.window) for s in scans])


def pictures(
    networks: Networks, codes: Sequence[LatentCode], keys: Sequence[str], *, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """The VAE's pictures of codes and the refined ones, both (N, C, S, S) in [-1, 1]."""
    made: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for i in range(0, len(codes), BATCH):
        recon = networks.decode(codes[i : i + BATCH])
        made[0].append(recon.clip(-1, 1))
        part = slice(i, i + BATCH)
        made[1].append(networks.refine(recon, keys[part], steps=steps, codes=codes[part]))
    vae, refined = (np.concatenate(parts) for parts in made)
    return vae, refined
