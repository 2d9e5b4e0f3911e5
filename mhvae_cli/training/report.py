"""What a finished training is worth: scores on validation images, the worst of them, curves, and advice."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checkpoints.folder import read_config, rewrite_model
from ..checkpoints.model_card import MIN_FOLLOWS, model_card
from ..config import Family
from ..evaluation.metrics import measure
from ..filesystem import write_atomic
from ..images.encode import encode_png
from ..images.plot import line_chart
from ..images.read import read_mask, read_scan
from ..images.render import YELLOW, overlay, sheet
from ..images.scan import Scan, upright
from ..inference.pipeline import Pipeline
from ..vae.contour import contours
from .automatic import ELLIPTIC, FIT_SIZE, agreement
from .datasets import Sample
from .loop import Callback
from .validation import mask_level

MAX_IMAGES = 200
"""Maximum number of validation images that are segmented."""
FEW = 5
"""Figures of fewer validation images say little."""
WORST = 6
FALLING = 0.01
"""Fall of the validation loss over the last quarter of a training at which a longer one is advised."""
OVERFIT, RISING, NEAR_LIMIT = 0.03, 0.004, 0.015
"""Differences of Dice at which more images, a longer training or another warp are advised."""
GROUP = "validation, as segment does it"


@dataclass(frozen=True)
class Scored:
    """A validation image's true mask, reduced, and the Dice and Hausdorff distance (profile paper256)."""

    sample: Sample
    mask: np.ndarray
    dice: float
    distance: float


def report(
    pipeline: Pipeline, out: Path, val: Sequence[Sample], *, trained_on: int, callback: Callback
) -> None:
    """Segment the validation images of a finished training; write the figures into the model folder, and
    sheets/worst.png and sheets/curves.png; tell them and what to do next through `callback`.

    Warns of a model whose theta does not follow the image.
    """
    rows = _read_log(out / "log.csv")
    write_atomic(out / "sheets" / "curves.png", encode_png(_curves(rows)))
    if pipeline.networks.model.warp is None:
        return
    content = read_config(out)
    if content["figures"]["validation"]["follows"] < MIN_FOLLOWS:
        callback({"warning": f"{out}: predicts nearly the same mask for every image: do not use this model"})
    scored = sorted((_score(pipeline, sample) for sample in val[:MAX_IMAGES]), key=lambda each: each.dice)
    dice = float(np.mean([each.dice for each in scored]))
    distance = float(np.mean([each.distance for each in scored]))
    write_atomic(out / "sheets" / "worst.png", encode_png(_worst_sheet(pipeline, scored[:WORST])))
    group = {"images": len(scored), "paper256": {"dice": dice, "hausdorff px": distance}}
    content["figures"] = {**content["figures"], GROUP: group}
    rewrite_model(out, config=content, card=model_card(content))
    worst = ", ".join(f"{each.sample.id} ({each.dice:.2f})" for each in scored[:3])
    few = f" (of {len(scored)}: this says little)" if len(scored) < FEW else ""
    callback({"phase": f"validation: Dice {dice:.3f}, HD {distance:.1f} px of 256{few}; worst: {worst}"})
    family = pipeline.networks.model.config.warp.family
    for line in advise(rows, dice, family, [each.mask for each in scored], trained_on=trained_on):
        callback({"phase": f"next: {line}"})


def report_cddpm(out: Path, callback: Callback) -> None:
    """Tell through `callback` how far a finished training of a cDDPM has come, and draw its curves."""
    rows = _read_log(out / "log.csv")
    lines = {"training": "loss", "validation": "val_loss"}
    points = {label: [(row["epoch"], row[name]) for row in rows] for label, name in lines.items()}
    chart = line_chart(points, title="Loss", x_label="epoch")
    write_atomic(out / "sheets" / "curves.png", encode_png(chart))
    losses = [row["val_loss"] for row in rows]
    callback({"phase": f"validation loss {losses[0]:.3f} at first, {min(losses):.3f} at best"})
    newest = max((out / "sheets").glob("epoch*.png"))
    callback({"phase": f"next: look at {newest}: images beside the VAE's and the refined ones"})
    earlier = losses[: max(1, len(losses) * 3 // 4)]
    if len(losses) > 3 and min(earlier) - min(losses) > FALLING * min(losses):
        epochs = int(rows[-1]["epoch"])
        callback({"phase": f"next: a longer training (--epochs {2 * epochs}): it was still improving"})


def advise(
    rows: Sequence[dict[str, float]],
    dice: float,
    family: Family,
    masks: Sequence[np.ndarray],
    *,
    trained_on: int,
) -> list[str]:
    """At most two lines on what would improve a model, from its log, its Dice and the true masks."""
    last, lines = rows[-1], []
    limit = agreement(family, masks)
    if family == "affine" and limit - dice < NEAR_LIMIT and limit < ELLIPTIC + NEAR_LIMIT:
        lines.append(f"--warp tps: ellipses agree with these masks by a Dice of {limit:.3f} at best")
    elif family == "tps" and agreement("affine", masks) >= ELLIPTIC:
        lines.append("--warp affine: these masks are nearly ellipses")
    smoothed = [row["smoothed"] for row in rows]
    earlier = smoothed[: max(1, len(smoothed) * 3 // 4)]
    if len(rows) > 3 and max(smoothed) - max(earlier) > RISING:
        lines.append(f"a longer training (--epochs {2 * int(last['epoch'])}): it was still improving")
    if last.get("dice", 0.0) - last["val_dice"] > OVERFIT:
        known = f"its Dice is {last['dice']:.3f} on the {trained_on} images that it was trained on"
        lines.append(f"more images: {known}, {last['val_dice']:.3f} on others")
    return lines[:2] or ["look at sheets/worst.png: the figures speak for no change"]


def _score(pipeline: Pipeline, sample: Sample) -> Scored:
    scan, truth = _read(sample)
    scores = measure(pipeline.segment(scan).mask, truth, profile="paper256")
    rows, columns = (np.arange(FIT_SIZE) * side // FIT_SIZE for side in truth.shape)
    return Scored(sample, truth[np.ix_(rows, columns)], scores.dice, scores.px.hausdorff)


def _read(sample: Sample) -> tuple[Scan, np.ndarray]:
    """An image and its true mask, both upright."""
    assert sample.mask is not None
    scan = read_scan(sample.image)
    return scan, upright(read_mask(sample.mask), scan.orientation)


def _worst_sheet(pipeline: Pipeline, scored: Sequence[Scored]) -> np.ndarray:
    """A row per image: the image, and the true (yellow) and the found (cyan) outline on it."""
    rows = []
    for each in scored:
        scan, truth = _read(each.sample)
        size = np.array(truth.shape[::-1])
        true = [(polygon + 1) / 2 * size for polygon in contours(mask_level(truth.astype(float)), cells=64)]
        drawn = overlay(scan.pixels, true, colour=YELLOW)
        rows.append([scan.pixels, overlay(drawn, pipeline.segment(scan).contour())])
    return sheet(rows, ["image", "true, found"])


def _curves(rows: Sequence[dict[str, float]]) -> np.ndarray:
    """Charts of the loss, of the Dice of training and validation, and of the Hausdorff distance."""
    charts = [
        {"training": "loss"},
        {"training": "dice", "validation": "val_dice", "crops": "val_crop_dice"},
        {"validation": "val_hd", "crops": "val_crop_hd"},
    ]
    drawn = []
    for title, names in zip(("Loss", "Dice", "Hausdorff distance, px of 256"), charts, strict=True):
        lines = {
            label: [(row["epoch"], row[name]) for row in rows if name in row] for label, name in names.items()
        }
        drawn.append(line_chart({k: v for k, v in lines.items() if v}, title=title, x_label="epoch"))
    return np.concatenate(drawn, axis=1)


def _read_log(path: Path) -> list[dict[str, float]]:
    with path.open(newline="") as file:
        return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
