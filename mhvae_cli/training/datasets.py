"""Appendix D: folders of images and masks, splits by subject, folds, and augmentation that moves both.

A folder holds `images/` and `masks/` with one stem each, and may hold `index.csv` (id, and optionally fold
and subject: frames of one subject never straddle a split).
"""

import csv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import AugmentConfig
from ..errors import InputError, UsageError
from ..hashing import seed_of
from ..images.read import read_mask, read_scan
from ..images.scan import Scan, stored, upright
from ..images.transforms import to_square
from ..vae.fitting import rim
from .augmentation import Move, crop, identity_maps, resample, similarity, tone

POSES = AugmentConfig(rotate=60.0, scale=0.4, shift=0.1, flip_x=False, flip_y=False)
"""Range of the random edits for `Objective.consistency`."""

OVERSIZE = 4 / 3
"""Images are kept at this many times the model's side, so that augmentation resamples a finer image."""

FINER = 2.0
"""The same if they are cropped."""

FILL = 0.7
"""The part of a second look's window, in width or in height, that the object fills."""

FILLS = (0.5, 0.95)
OFF_CENTRE = 0.1
"""How training crops vary: the range of the part filled, and how far off the window's centre the object is at
most, in window sides."""


@dataclass(frozen=True)
class Sample:
    """One image and its mask on disk; `mask` is None in a folder without masks."""

    id: str
    image: Path
    mask: Path | None
    subject: str
    fold: int | None


@dataclass(frozen=True)
class Batch:
    """image (B, C, S, S) in [-1, 1]; mask (B, S, S) in [0, 1]; rim (B, N, 2) xy points of the true contour
    and their weights (B, N); noise for theta (B, P) and z (B, Z); random poses (B, 2, 3) as in `Latents`."""

    image: Tensor
    mask: Tensor
    rim: np.ndarray
    rim_weight: Tensor
    eps_theta: Tensor
    eps_z: Tensor
    pose: Tensor


def discover(folder: Path, *, masks: bool = True) -> list[Sample]:
    """The folder's samples, sorted by id. InputError names a file that has no partner."""
    images = _files(folder / "images")
    if not images:
        raise InputError(f"{folder}: no files in {folder / 'images'}", hint="DIR holds images/ and masks/")
    found = _files(folder / "masks") if masks else {}
    if masks and (lonely := sorted(images.keys() ^ found.keys())):
        where = [f"{i} ({'no mask' if i in images else 'no image'})" for i in lonely[:5]]
        more = f" and {len(lonely) - 5} more" if len(lonely) > 5 else ""
        raise InputError(f"{folder}: unpaired: {', '.join(where)}{more}", hint="one mask an image, same stem")
    rows = _index(folder / "index.csv")
    samples = [_sample(i, images[i], found.get(i), rows.get(i, {})) for i in sorted(images)]
    folds = {s.subject: s.fold for s in samples}
    if torn := sorted({s.subject for s in samples if s.fold != folds[s.subject]}):
        raise InputError(f"{folder / 'index.csv'}: subject {torn[0]} is in more than one fold")
    return samples


def split(samples: Sequence[Sample], *, fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """(training, validation): about `fraction` of the subjects, the same ones whatever other files exist."""
    subjects = sorted({s.subject for s in samples}, key=lambda s: seed_of(f"{seed}/{s}", size=6))
    if len(subjects) < 2:
        raise InputError("one subject cannot be split into training and validation")
    chosen = set(subjects[: min(max(1, round(fraction * len(subjects))), len(subjects) - 1)])
    return [s for s in samples if s.subject not in chosen], [s for s in samples if s.subject in chosen]


def folds_of(samples: Sequence[Sample], count: int, seed: int) -> list[list[Sample]]:
    """`count` parts: index.csv's folds where it has just that many, else subjects distributed by `seed`."""
    given = {s.fold for s in samples}
    if None not in given and len(given) == count:
        return [[s for s in samples if s.fold == fold] for fold in sorted(f for f in given if f is not None)]
    subjects = sorted({s.subject for s in samples}, key=lambda s: seed_of(f"{seed}/{s}", size=6))
    if len(subjects) < count:
        raise UsageError(f"{count} folds of {len(subjects)} subjects: too few")
    part = {subject: i % count for i, subject in enumerate(subjects)}
    return [[s for s in samples if part[s.subject] == fold] for fold in range(count)]


class Images:
    """Samples decoded once into memory, and batches of them, augmented by noise keyed on (seed, epoch, id).

    The same batch comes out whatever the order, the number of processes, or where a run was cut.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        image_size: int,
        channels: int,
        oversize: float = OVERSIZE,
        workers: int = 2,
    ) -> None:
        self.samples = list(samples)
        self.image_size, self.channels = image_size, channels
        self.side = round(image_size * oversize)
        with ThreadPoolExecutor(workers) as pool:
            loaded = list(pool.map(self._tried, self.samples))
        faults = [x for x in loaded if isinstance(x, str)]
        if faults:
            more = f" (and {len(faults) - 5} more)" if len(faults) > 5 else ""
            raise InputError("; ".join(faults[:5]) + more, hint="mend or remove these first")
        usable = [x for x in loaded if not isinstance(x, str)]
        self.images = torch.from_numpy(np.stack([x[0] for x in usable]))
        self.sizes = np.array([x[1] for x in usable])
        self.aspects = self.sizes[:, 1] / self.sizes[:, 0]
        self.keys = [seed_of(s.id, size=6) for s in self.samples]
        self._keep([x[2] for x in usable])

    def __len__(self) -> int:
        return len(self.samples)

    def plain(self, indices: Sequence[int]) -> Tensor:
        """Images (B, C, S, S) in [-1, 1], without augmentation."""
        return self._images(indices, identity_maps(len(indices)))

    def augmented(
        self, indices: Sequence[int], augment: AugmentConfig, *, seed: int, epoch: int
    ) -> tuple[Tensor, list[np.random.Generator], list[Move]]:
        """An augmented batch of images, each sample's generator for more, and its move."""
        rngs = [np.random.default_rng([seed, epoch, self.keys[i]]) for i in indices]
        moves = [similarity(r, augment, a) for r, a in zip(rngs, self.aspects[indices], strict=True)]
        if augment.crop > 0:
            moves = [self._cropped(i, m, r, augment) for i, m, r in zip(indices, moves, rngs, strict=True)]
        image = self._images(indices, np.stack([m for m, _ in moves]))
        toned = [tone(x, r, augment) for x, r in zip(image, rngs, strict=True)]
        return torch.stack(toned), rngs, moves

    def _tried(self, sample: Sample) -> tuple[np.ndarray, tuple[int, int], tuple[np.ndarray, ...]] | str:
        try:
            scan = read_scan(sample.image)
            extra = self._extra(sample, scan)
        except InputError as error:
            return str(error)
        square = to_square(scan.pixels, self.side, self.channels, window=scan.window)
        levels = np.rint((square + 1) * 127.5).astype(np.uint8)
        return levels, scan.pixels.shape[:2], extra

    def _cropped(self, index: int, move: Move, rng: np.random.Generator, augment: AugmentConfig) -> Move:
        raise TypeError("images without masks have no object to crop to")

    def _extra(self, sample: Sample, scan: Scan) -> tuple[np.ndarray, ...]:
        """The data of a sample other than its image. InputError if it cannot be used."""
        return ()

    def _keep(self, extras: list[tuple[np.ndarray, ...]]) -> None:
        pass

    def _images(self, indices: Sequence[int], moves: np.ndarray) -> Tensor:
        images = self.images[torch.as_tensor(indices)].float()
        size = [len(indices), self.channels, self.image_size, self.image_size]
        return resample(images, moves, size, padding="border") / 127.5 - 1


class MaskedImages(Images):
    """Images with the masks of one object; the masks' rims as points."""

    def _extra(self, sample: Sample, scan: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert sample.mask is not None
        mask = read_mask(sample.mask)
        h, w = stored(scan.pixels, scan.orientation).shape[:2]
        if mask.shape != (h, w):
            raise InputError(f"{sample.mask}: {mask.shape[1]} x {mask.shape[0]} px, its image {w} x {h}")
        mask = upright(mask, scan.orientation)
        if not mask.any():
            raise InputError(f"{sample.mask}: empty mask")
        area = np.rint((to_square(mask, self.side, 1)[0] + 1) * 127.5).astype(np.uint8)
        return area, *rim(mask)

    def _keep(self, extras: list[tuple[np.ndarray, ...]]) -> None:
        self.masks = torch.from_numpy(np.stack([x[0] for x in extras]))
        self.rims = np.stack([x[1] for x in extras])
        self.rim_weights = np.stack([x[2] for x in extras])

    def with_masks(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images as in `plain`, and masks (B, S, S) in [0, 1]."""
        return self.plain(indices), self._masks(indices, identity_maps(len(indices)))

    def second_look(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, np.ndarray]:
        """Images and masks as in `with_masks`, cropped so that the object fills FILL of the window; the side
        (B,) of each window as a part of the image's, 1 where it is the image."""
        still = np.eye(2, 3)
        moves = [crop((still, still), self.rims[i], fill=FILL) for i in indices]
        pull = np.stack([m for m, _ in moves])
        return self._images(indices, pull), self._masks(indices, pull), pull[:, 0, 0]

    def _cropped(self, index: int, move: Move, rng: np.random.Generator, augment: AugmentConfig) -> Move:
        """The move followed, as likely as `augment.crop`, by a jittered crop about the object."""
        if rng.random() >= augment.crop:
            return move
        fill = np.exp(rng.uniform(*np.log(FILLS)))
        return crop(move, self.rims[index], fill=fill, off_centre=rng.uniform(-OFF_CENTRE, OFF_CENTRE, 2))

    def batch(
        self, indices: Sequence[int], augment: AugmentConfig, *, seed: int, epoch: int, dims: tuple[int, int]
    ) -> Batch:
        """An augmented batch with noise for (theta, z) of lengths `dims`."""
        image, rngs, moves = self.augmented(indices, augment, seed=seed, epoch=epoch)
        mask = self._masks(indices, np.stack([m for m, _ in moves]))
        rims = np.stack(
            [p @ b[:, :2].T + b[:, 2] for p, (_, b) in zip(self.rims[indices], moves, strict=True)]
        )
        weights = self.rim_weights[indices] * (np.abs(rims) < 0.99).all(-1)
        eps = [[torch.from_numpy(r.standard_normal(d, np.float32)) for d in dims] for r in rngs]
        poses = [similarity(r, POSES, a)[0] for r, a in zip(rngs, self.aspects[indices], strict=True)]
        return Batch(
            image,
            mask,
            rims,
            torch.from_numpy(weights).float(),
            torch.stack([e[0] for e in eps]),
            torch.stack([e[1] for e in eps]),
            torch.from_numpy(np.stack(poses)).float(),
        )

    def _masks(self, indices: Sequence[int], moves: np.ndarray) -> Tensor:
        masks = self.masks[torch.as_tensor(indices), None].float()
        return resample(masks, moves, [len(indices), 1, self.image_size, self.image_size])[:, 0] / 255


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        if path.stem in files:
            raise InputError(f"{folder}: {files[path.stem].name} and {path.name}: two files of one stem")
        files[path.stem] = path
    return files


def _index(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {row["id"]: row for row in csv.DictReader(file)}
    except (KeyError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a table with an id column") from error


def _sample(stem: str, image: Path, mask: Path | None, row: dict[str, str]) -> Sample:
    fold = row.get("fold") or None
    try:
        number = None if fold is None else int(fold)
    except ValueError:
        raise InputError(f"index.csv: fold {fold!r} of {stem} is not a number") from None
    return Sample(stem, image, mask, row.get("subject") or stem, number)
