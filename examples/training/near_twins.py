"""Assign near-duplicate images, in one or several data folders, to one subject and one fold.

    python examples/training/near_twins.py OUT/ ISIC2018/ HAM10000/

Two images are near-duplicates if the correlation of their grey 48 x 48 thumbnails is above 0.95. For each
data folder, OUT/ contains a folder of the same name: images/ and masks/ with symbolic links, and index.csv
(id, fold, subject). Near-duplicates, and their near-duplicates in turn, share a subject and the highest fold
among them: the last fold, which is used for testing, keeps all its images, and `--hold-out` excludes every
image like them. Only pairs with at least one image of the first folder are compared. An image without a fold
gets that of its near-duplicates, if any.
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
MIN_CORRELATION = 0.95
ROWS = 1024
"""Number of rows of the correlation matrix computed at a time."""
Assignment = tuple[str, int | None]
"""A subject and a fold."""


def thumbnail(path: Path) -> np.ndarray:
    """The grey thumbnail float32 (SIDE * SIDE,), with mean 0 and norm 1; zeros for a uniform image."""
    with Image.open(path) as image:
        grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel()
    grey = grey - grey.mean()
    return grey / max(float(np.linalg.norm(grey)), 1e-6)


def groups(thumbnails: np.ndarray, first: int) -> np.ndarray:
    """The group (N,) of each thumbnail (N, D), from pairs with at least one of the `first` thumbnails."""
    pairs = []
    for start in range(0, first, ROWS):
        similar = thumbnails[start : min(start + ROWS, first)] @ thumbnails.T > MIN_CORRELATION
        pairs.append(np.argwhere(similar) + np.array([start, 0]))
    return components(np.concatenate(pairs), len(thumbnails))


def components(pairs: np.ndarray, count: int) -> np.ndarray:
    """The connected component (count,) of each node of the graph with the edges `pairs` (E, 2)."""
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def write(out: Path, folder: Path, samples: Sequence[Sample], assignments: Sequence[Assignment]) -> None:
    """Write a data folder of symbolic links, with an index of subjects and folds."""
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
        for sample, (subject, fold) in zip(samples, assignments, strict=True):
            table.writerow([sample.id, "" if fold is None else fold, subject])


def main(out: Path, folders: Sequence[Path]) -> None:
    """Write the data folders, and print the number of near-duplicates."""
    per_folder = [discover(folder) for folder in folders]
    samples = [sample for each in per_folder for sample in each]
    labels = groups(np.stack([thumbnail(s.image) for s in samples]), len(per_folder[0]))
    # Images of one subject belong together too: merge their groups with that of its first image.
    subjects = [(i, s.subject) for i, each in enumerate(per_folder) for s in each]
    first = {key: labels[i] for i, key in reversed(list(enumerate(subjects)))}
    pairs = np.array([[labels[i], first[key]] for i, key in enumerate(subjects)])
    labels = components(pairs, labels.max() + 1)[labels]
    folds: dict[int, int] = {}
    for label, sample in zip(labels, samples, strict=True):
        if sample.fold is not None:
            folds[label] = max(sample.fold, folds.get(label, sample.fold))
    assignments = [(f"group{label}", folds.get(label)) for label in labels]
    changed = sum(
        s.fold is not None and s.fold != fold for s, (_, fold) in zip(samples, assignments, strict=True)
    )
    counts = np.bincount(labels)
    start = 0
    for folder, each in zip(folders, per_folder, strict=True):
        own = assignments[start : start + len(each)]
        write(out, folder, each, own)
        duplicates = sum(counts[label] > 1 for label in labels[start : start + len(each)])
        in_fold = sum(fold is not None for _, fold in own)
        print(f"{folder.name}: {len(each)} images, {duplicates} with near-duplicates, {in_fold} in a fold")
        start += len(each)
    print(f"{changed} images changed folds; the largest group has {counts.max()} images")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
