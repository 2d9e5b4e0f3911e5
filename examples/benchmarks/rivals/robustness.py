"""Dice against the strength of what disturbs a test image, for every trained model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rows import read_csv, write_csv
from scipy.ndimage import gaussian_filter

from mhvae_cli.evaluation.metrics import measure
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.hashing import seed_of
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.plot import COLOURS, line_chart
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.images.scan import scan_of, upright
from mhvae_cli.images.transforms import to_uint8
from mhvae_cli.training.augmentation import resample
from mhvae_cli.training.datasets import Sample

from .testing import Candidate

STRENGTHS: dict[str, tuple[float, ...]] = {
    "noise": (0, 0.05, 0.1, 0.2, 0.4),
    "blur": (0, 0.005, 0.01, 0.02, 0.04),
    "contrast": (0, 0.25, 0.5, 0.75, 0.9),
    "rotation": (0, 90, 180, 270),
    "size": (0, 0.25, 0.5, 0.65),
    "rim": (0, 0.1, 0.2, 0.3, 0.5),
}
"""0 changes nothing. What the numbers are: TITLES."""
TITLES = {
    "noise": "Gaussian noise, sd, of the range",
    "blur": "Gaussian blur, sd, of the shorter side",
    "contrast": "contrast lost, about the mean",
    "rotation": "rotation, degrees",
    "size": "size lost, about the centre",
    "rim": "rim hidden, of its angle",
}
COLUMNS = ("model", "fold", "kind", "strength", "n", "dice", "hausdorff")
BAND = 0.3
"""Half the width of the band that hides a rim, of the object's mean radius."""


def disturbed(
    kind: str, strength: float, pixels: np.ndarray, truth: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """An image uint8 (H, W) or (H, W, 3), and its mask bool (H, W), under one disturbance."""
    if strength == 0:
        return pixels, truth
    level = pixels.astype(np.float64)
    if kind == "noise":
        level = level + rng.normal(0, 255 * strength, level.shape)
    elif kind == "blur":
        sd = strength * min(truth.shape)
        level = gaussian_filter(level, (sd, sd, 0)[: level.ndim])
    elif kind == "contrast":
        level = level.mean() + (1 - strength) * (level - level.mean())
    elif kind == "rotation":
        turns = round(strength / 90)
        level, truth = np.rot90(level, turns), np.rot90(truth, turns)
    elif kind == "size":
        level, truth = (
            _shrunk(level, 1 - strength, "border"),
            _shrunk(1.0 * truth, 1 - strength, "zeros") > 0.5,
        )
    elif kind == "rim":
        level[hidden(truth, strength, rng.uniform(-np.pi, np.pi))] = level.mean()
    return np.clip(np.rint(level), 0, 255).astype(np.uint8), truth


def hidden(truth: np.ndarray, share: float, start: float) -> np.ndarray:
    """Where a rim is hidden, bool (H, W): a band along it, over a share of the angle about the centroid."""
    from scipy.ndimage import distance_transform_edt

    ys, xs = np.indices(truth.shape)
    cy, cx = (axis[truth].mean() for axis in (ys, xs))
    angle = np.mod(np.arctan2(ys - cy, xs - cx) - start, 2 * np.pi)
    padded = np.pad(truth, 1)
    inside, outside = (distance_transform_edt(x)[1:-1, 1:-1] for x in (padded, ~padded))
    radius = np.sqrt(truth.sum() / np.pi)
    return (np.maximum(inside, outside) <= BAND * radius) & (angle < 2 * np.pi * share)


def measure_all(candidates: Sequence[Candidate], test: Sequence[Sample], fold: int, path: Path) -> None:
    """Append the mean Dice and HD (paper256) of each model at each strength to a CSV file, where missing."""
    for candidate in candidates:
        for kind, strengths in STRENGTHS.items():
            rows = read_csv(path)
            done = {(r["model"], r["fold"], r["kind"], float(r["strength"]), r["n"]) for r in rows}
            for strength in strengths:
                key = (candidate.name, str(fold), kind, float(strength), str(len(test)))
                if key not in done:
                    dice, distance = _mean(candidate, kind, strength, test)
                    values = (
                        candidate.name,
                        fold,
                        kind,
                        strength,
                        len(test),
                        f"{dice:.4f}",
                        f"{distance:.3f}",
                    )
                    rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
                    write_csv(path, COLUMNS, rows)


def figure(rows: Sequence[dict[str, str]], chosen: Sequence[str]) -> bytes:
    """A PNG: for each disturbance, Dice against its strength, a line per model, eight at most."""
    charts = []
    for kind, title in TITLES.items():
        lines = {}
        for name in chosen[: len(COLOURS)]:
            here = [r for r in rows if r["model"] == name and r["kind"] == kind]
            if strengths := sorted({float(r["strength"]) for r in here}):
                lines[name] = [
                    (x, float(np.mean([float(r["dice"]) for r in here if float(r["strength"]) == x])))
                    for x in strengths
                ]
        charts.append(line_chart(lines, title=f"Dice: {kind}", x_label=title, size=(320, 720)))
    return encode_png(np.concatenate([np.concatenate(charts[i : i + 2], axis=1) for i in (0, 2, 4)]))


def write_figure(csv_path: Path, chosen: Sequence[str], path: Path) -> None:
    """The figure of what a CSV file holds."""
    write_atomic(path, figure(read_csv(csv_path), chosen))


def _mean(candidate: Candidate, kind: str, strength: float, test: Sequence[Sample]) -> tuple[float, float]:
    found = []
    for sample in test:
        assert sample.mask is not None
        scan = read_scan(sample.image)
        truth = upright(read_mask(sample.mask), scan.orientation)
        rng = np.random.default_rng(seed_of(f"{kind}/{strength}/{sample.id}", size=6))
        pixels, truth = disturbed(kind, strength, to_uint8(scan.pixels, scan.window), truth, rng)
        scores = measure(candidate.segment(scan_of(pixels)), truth, profile="paper256")
        found.append((scores.dice, scores.px.hausdorff))
    dice, distance = np.mean(found, axis=0)
    return float(dice), float(distance)


def _shrunk(level: np.ndarray, scale: float, padding: str) -> np.ndarray:
    """An image (H, W) or (H, W, 3) shrunk about its centre, in a frame of the same size."""
    planes = np.moveaxis(np.atleast_3d(level), 2, 0)
    sd = 0.5 * (1 / scale - 1)
    planes = np.stack([gaussian_filter(plane, sd) for plane in planes])[None]
    maps = np.array([[[1 / scale, 0, 0], [0, 1 / scale, 0]]])
    small = resample(torch.from_numpy(planes).float(), maps, list(planes.shape), padding=padding)[0].numpy()
    return small[0] if level.ndim == 2 else np.moveaxis(small, 0, 2)
