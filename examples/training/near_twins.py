"""Put near-duplicate images of one or several data folders into one subject and one fold.

    python examples/training/near_twins.py OUT/ ISIC2018/ HAM10000/

Two images are near-twins if their grey 48 x 48 thumbnails correlate by more than 0.95. For each data folder
OUT/ gets a folder of the same name: images/ and masks/ of symbolic links, and index.csv (id, fold, subject).
Twins, and twins of twins, share a subject and the highest fold among them, so that the last fold, which is
reported, loses no image, and `--hold-out` leaves out all that resembles it. Only pairs with at least one
image of the first folder count; an image without a fold, and without a twin that has one, keeps none.
"""

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mhvae_cli.training.datasets import Sample, discover

SIDE = 48
ALIKE = 0.95
ROWS = 1024
"""Correlations are taken so many rows at a time."""
Name = tuple[str, int | None]
"""A subject and a fold."""


def thumbnail(path: Path) -> np.ndarray:
    """The grey thumbnail (SIDE * SIDE,), of mean 0 and length 1; zeros for a blank image."""
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    grey = grey - grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-6)


def groups(thumbnails: np.ndarray, first: int) -> np.ndarray:
    """The group (N,) of each thumbnail (N, D); every twin pair holds one of the `first` thumbnails."""
    pairs = []
    for start in range(0, first, ROWS):
        alike = thumbnails[start : min(start + ROWS, first)] @ thumbnails.T > ALIKE
        pairs.append(np.argwhere(alike) + np.array([start, 0]))
    return joined(np.concatenate(pairs), len(thumbnails))


def joined(pairs: np.ndarray, count: int) -> np.ndarray:
    """The number (count,) of each one's group, where `pairs` (E, 2) of them belong together."""
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def write(out: Path, folder: Path, samples: Sequence[Sample], names: Sequence[Name]) -> None:
    """A data folder of links, and an index of the samples' subjects and folds."""
    for part in ("images", "masks"):
        (out / folder.name / part).mkdir(parents=True, exist_ok=True)
    for sample in samples:
        for part, path in (("images", sample.image), ("masks", sample.mask)):
            link = out / folder.name / part / path.name
            link.unlink(missing_ok=True)
            link.symlink_to(path.resolve())
    with open(out / folder.name / "index.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "fold", "subject"])
        for sample, (subject, fold) in zip(samples, names, strict=True):
            table.writerow([sample.id, "" if fold is None else fold, subject])


def main(out: Path, folders: Sequence[Path]) -> None:
    """Group, write, and print how many twins there are."""
    found = [discover(folder) for folder in folders]
    samples = [sample for each in found for sample in each]
    labels = groups(np.stack([thumbnail(s.image) for s in samples]), len(found[0]))
    # Frames of one subject belong together as well: a subject is the group of its first sample.
    subjects = [(i, s.subject) for i, each in enumerate(found) for s in each]
    first = {key: labels[i] for i, key in reversed(list(enumerate(subjects)))}
    same = np.array([[labels[i], first[key]] for i, key in enumerate(subjects)])
    labels = joined(same, labels.max() + 1)[labels]
    folds: dict[int, int] = {}
    for label, sample in zip(labels, samples, strict=True):
        if sample.fold is not None:
            folds[label] = max(sample.fold, folds.get(label, sample.fold))
    names = [(f"group{label}", folds.get(label)) for label in labels]
    moved = sum(s.fold is not None and s.fold != fold for s, (_, fold) in zip(samples, names, strict=True))
    counts = np.bincount(labels)
    start = 0
    for folder, each in zip(folders, found, strict=True):
        own = names[start : start + len(each)]
        write(out, folder, each, own)
        twins = sum(counts[label] > 1 for label in labels[start : start + len(each)])
        placed = sum(fold is not None for _, fold in own)
        print(f"{folder.name}: {len(each)} images, {twins} with a twin, {placed} in a fold")
        start += len(each)
    print(f"{moved} images change their fold; the largest group has {counts.max()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
