"""Image-mask pairs made from N images with masks, by a generator that has seen no other mask.

A part of made_pairs.py. The generator's position part is the segmenter trained on the N with ordinary
augmentation; its style and image heads are fitted to the N, and its cDDPM learns from images without masks.
Pairs are PNG files, so that a call that was interrupted goes on where it stopped:
  carried  twice N: each of the N warped at random, and each brought into the place and shape of another
           (swap-style). Pixels are carried from where the true masks say that the objects are: theta is
           fitted to the mask, not found in the image.
  sample   four times N, from the density of the latent codes of the images without masks.
The mask of a pair is the one that was asked for, `dice` its agreement with the object that the generator's
own VAE finds in the image, as in `mhvae sample --min-dice`. Pairs that cannot be made (an object moved
out of the image) have no Dice in pairs.csv and are left out.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import on_cpu
from rows import read_csv, write_csv
from steps import Fit, fitted

from mhvae_cli import Pipeline
from mhvae_cli.config import AugmentConfig, LossConfig, ModelConfig, TrainConfig
from mhvae_cli.errors import InputError
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.images.scan import upright
from mhvae_cli.inference.sampling import sample_code
from mhvae_cli.inference.synthesis import Draft, Source, Warping, make, swap_style, warp_image
from mhvae_cli.training.datasets import MaskedImages, Sample
from mhvae_cli.training.mask_checks import fault_of
from mhvae_cli.training.recipe import load_cddpm_recipe
from mhvae_cli.training.train import train_cddpm
from mhvae_cli.training.vae_task import ModelInfo, Objective, prepare_model, write_model
from mhvae_cli.vae.fitting import fit as fit_warp

KINDS = {"carried": 2, "sample": 4}
"""How many pairs of each kind are made for each of the N images."""
TONES, STYLE_LR = 32, 3e-4
STYLE = TrainConfig(
    part="style",
    loss=LossConfig(recon=10, coarse=30, consistency=0.1, kl_theta=0, kl_z=2e-6, kl_warmup=0),
    augment=AugmentConfig(shift=0.08, tone=0.1, noise=0),
)
"""As for the bundled lesion model."""
CDDPM: dict[str, Any] = {
    "diffusion": {
        "sees": "residual+recon+mask+known+place",
        "spectral": True,
        "unet": {"channels": 32, "levels": 3, "blocks": 2, "patch": 4},
    },
    "train": {
        "crop": 0,
        "crops": 1,
        "batch_size": 8,
        "ema": 0.99,
        "level": 0.0,
        "level_sd": 1.8,
        "val_fraction": 0.05,
        "augment": {"rotate": 180.0, "scale": 0.2, "shift": 0.08, "tone": 0.1, "noise": 0.0},
    },
}
ROTATE, SCALE, SHIFT = 90.0, 4 / 3, 0.1
"""Ranges of the warps: degrees, factor, and image sides."""
COLUMNS = ("id", "dice")
CONFIG = "config.json"
"""Written last: a folder that has it is a model."""
CARD = {"license": "not for use", "data": "of a benchmark"}
Pair = tuple[Sample, float]
"""The files of a pair, and its Dice."""


@dataclass(frozen=True)
class Budget:
    """Steps of the style and image heads and of the cDDPM, and evaluations per image."""

    style: int = 40
    cddpm: int = 100
    first_cddpm: int = 400
    evaluations: int = 10


def save(folder: Path, config: ModelConfig, state: Mapping[str, torch.Tensor]) -> None:
    """Write a VAE as a model folder."""
    write_model(folder, config, state, ModelInfo(folder.name, CARD, {}), {})


def generator(
    folder: Path,
    position: Path,
    config: ModelConfig,
    images: MaskedImages,
    unlabelled: Sequence[Sample],
    budget: Budget,
    *,
    before: Path | None,
    seed: int,
) -> Path:
    """A model folder with a cDDPM, whose VAE begins as the one in `position`.

    Its cDDPM begins as that of `before`, the generator of a smaller N of this seed, if there is one: it has
    seen nothing but the same images without masks.
    """
    vae, out = folder / "vae", folder / "cddpm"
    if not (vae / CONFIG).exists():
        config = replace(config, tones=TONES)
        start = {"part": "style", "start": str(position), "augment": STYLE.augment, "seed": seed}
        model, _ = prepare_model(config, images, **start)
        fit = Fit(budget.style, STYLE_LR, STYLE.augment, seed, dims=(model.theta_dim, config.z_dim))
        save(vae, config, fitted(Objective(model, STYLE), images, range(len(images)), fit))
    count = int(len(unlabelled) * (1 - CDDPM["train"]["val_fraction"]))
    steps = budget.cddpm if before else budget.first_cddpm
    epochs = math.ceil(steps / max(1, count // CDDPM["train"]["batch_size"]))
    length = {"epochs": epochs, "validate_every": epochs, "seed": seed}
    content = {**CDDPM, "train": {**CDDPM["train"], **length}}
    start_from = str(before) if before else "scratch"
    recipe, _ = load_cddpm_recipe(None, content, model=vae, start=start_from)
    train_cddpm(vae, unlabelled, recipe, on_cpu(out), out, start=start_from, callback=lambda event: None)
    return out


def made(
    folder: Path, load: Callable[[], Pipeline], samples: Sequence[Sample], budget: Budget, seed: int
) -> dict[str, list[Pair]]:
    """The pairs by kind; those that are there already are not made again, and need no `load`."""
    path = folder / "pairs.csv"
    rows = read_csv(path)
    if len(rows) < sum(KINDS.values()) * len(samples):
        pipeline, done = load(), {row["id"] for row in rows}
        for name, draft in chain(carried(pipeline, samples, seed), sampled(pipeline, samples, seed)):
            if name not in done:
                dice = _write(folder, name, pipeline, draft, budget) if draft else ""
                rows.append({"id": name, "dice": dice})
                write_csv(path, COLUMNS, rows)
    found: dict[str, list[Pair]] = {kind: [] for kind in KINDS}
    for row in rows:
        if row["dice"]:
            files = (folder / part / f"{row['id']}.png" for part in ("images", "masks"))
            kind = "sample" if row["id"].startswith("sample") else "carried"
            found[kind].append((Sample(row["id"], *files, row["id"], None), float(row["dice"])))
    return found


def carried(pipeline: Pipeline, samples: Sequence[Sample], seed: int) -> Iterator[tuple[str, Draft | None]]:
    """Names of pairs and their drafts, or None for those that cannot be made: two for each sample."""
    rng, networks = np.random.default_rng(seed), pipeline.networks
    sources = [true_source(pipeline, sample) for sample in samples]
    order = rng.permutation(len(sources))
    for number, place in enumerate(order):
        source, other = sources[place], sources[order[number - 1]]
        height, width = source.code.size
        edit = Warping(
            rotate=rng.uniform(-ROTATE, ROTATE),
            scale=SCALE ** rng.uniform(-1, 1),
            shift=(rng.uniform(-SHIFT, SHIFT) * width, rng.uniform(-SHIFT, SHIFT) * height),
        )
        drafts: dict[str, Draft | None] = {"warp": None, "swap": None}
        with suppress(InputError):
            drafts["warp"], _ = warp_image(networks, source, edit)
        with suppress(InputError):
            drafts["swap"] = swap_style(networks, source, other)
        for kind, draft in drafts.items():
            yield f"{kind}_{number:04d}", draft


def sampled(pipeline: Pipeline, samples: Sequence[Sample], seed: int) -> Iterator[tuple[str, Draft]]:
    """Names of pairs and their drafts, of the samples' sizes: four for each sample."""
    networks, density = pipeline.networks, pipeline.networks.density
    for index in range(KINDS["sample"] * len(samples)):
        size = read_scan(samples[index % len(samples)].image).pixels.shape[:2]
        yield f"sample_{index:04d}", sample_code(networks, density, index, seed=seed, size=size)


def true_source(pipeline: Pipeline, sample: Sample) -> Source:
    """An image as a source, with the theta that is fitted to its true mask."""
    networks, warp = pipeline.networks, pipeline.networks.model.warp
    assert warp is not None and sample.mask is not None
    source = pipeline.source(sample.image)
    scan = read_scan(sample.image)
    offset = fit_warp(warp, upright(read_mask(sample.mask), scan.orientation))
    with torch.inference_mode():
        parameters = warp.identity + torch.from_numpy(offset)[None].to(warp.identity)
        theta = warp.theta_of(parameters)[0].cpu().numpy()
    code = networks.restyled(networks.prepare(scan), replace(source.code, theta=theta, pose=None))
    return replace(source, code=code)


def _write(folder: Path, name: str, pipeline: Pipeline, draft: Draft, budget: Budget) -> str:
    """Make a pair and write its files; its Dice, or "" if there is no pair."""
    try:
        [pair] = make(pipeline.networks, [draft], steps=budget.evaluations)
    except InputError:
        return ""
    if fault_of(pair.mask):
        return ""
    write_atomic(folder / "images" / f"{name}.png", encode_png(pair.pixels))
    write_atomic(folder / "masks" / f"{name}.png", encode_png(pair.mask))
    return f"{pair.dice:.4f}"
