"""Appendix D: data folders, splits and folds by subject, and augmented batches of images and masks.

A data folder contains `images/` and `masks/`, paired by file stem, and optionally `index.csv` with a column
id and optional columns fold and subject. Images of one subject are never divided between two splits.
"""

import csv
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import AugmentConfig
from ..errors import InputError, UsageError, input_error
from ..filesystem import open_regular
from ..hashing import seed_of
from ..images.read import read_mask, read_scan
from ..images.scan import Scan, stored, upright
from ..images.transforms import to_square
from ..vae.boundary import NUDGES
from ..vae.fitting import rim
from .augmentation import Affine, crop, identity_maps, resample, similarity, tone
from .mask_checks import fault_of

POSES = AugmentConfig(rotate=60.0, scale=0.4, shift=0.1, flip_x=False, flip_y=False)
"""Ranges of the random poses for `Objective.consistency`."""

OVERSIZE = 4 / 3
"""Images are stored at this multiple of the model's input size, so that augmentation loses little detail."""

OVERSIZE_CROPPED = 2.0
"""The multiple for training with random crops."""

FILL = 0.7
"""The fraction of a validation crop, in width or in height, that the object spans."""

FILLS = (0.5, 0.95)
"""The range of this fraction in training crops."""

MAX_OFFSET = 0.1
"""Maximum offset of the object from the centre of a training crop, in crop sides."""


@dataclass(frozen=True)
class Sample:
    """The files of one image and its mask, if any."""

    id: str
    image: Path
    mask: Path | None
    subject: str
    fold: int | None


@dataclass(frozen=True)
class Batch:
    """An augmented batch of float32 tensors.

    image (B, C, S, S) in [-1, 1]; mask (B, S, S) in [0, 1]; rim (B, N, 2), the points xy of the true contour,
    float64, and their weights (B, N); standard normal noise for theta (B, P) and z (B, Z), and for outlines
    (B, NUDGES); random poses (B, 2, 3) as in `Latents`.
    """

    image: Tensor
    mask: Tensor
    rim: np.ndarray
    rim_weight: Tensor
    eps_theta: Tensor
    eps_z: Tensor
    pose: Tensor
    nudges: Tensor


def discover(folder: Path, *, masks: bool = True) -> list[Sample]:
    """The samples of a data folder, sorted by id.

    Raises InputError for a folder without images, unpaired files, and an invalid index.csv.
    """
    images = _files(folder / "images")
    if not images:
        needed = "images/ and masks/" if masks else "images/"
        raise InputError(
            f"{folder}: no files in {folder / 'images'}", hint=f"a data folder contains {needed}"
        )
    mask_files = _files(folder / "masks") if masks else {}
    if masks and (unpaired := sorted(images.keys() ^ mask_files.keys())):
        names = [f"{i} ({'no mask' if i in images else 'no image'})" for i in unpaired[:5]]
        more = f" and {len(unpaired) - 5} more" if len(unpaired) > 5 else ""
        hint = "an image and its mask have the same file name, except for the suffix"
        raise InputError(f"{folder}: unpaired files: {', '.join(names)}{more}", hint=hint)
    rows = _read_index(folder / "index.csv")
    samples = [_sample(i, images[i], mask_files.get(i), rows.get(i, {})) for i in sorted(images)]
    folds = {s.subject: s.fold for s in samples}
    if divided := sorted({s.subject for s in samples if s.fold != folds[s.subject]}):
        raise InputError(f"{folder / 'index.csv'}: subject {divided[0]} is in more than one fold")
    return samples


def split(samples: Sequence[Sample], *, fraction: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Split by subject into (training, validation), with about `fraction` of the subjects for validation.

    The order of subjects depends on `seed` and their names alone, so that a subject added later moves few
    others. Raises InputError for a single subject.
    """
    subjects = sorted({s.subject for s in samples}, key=lambda s: seed_of(f"{seed}/{s}", size=6))
    if len(subjects) < 2:
        raise InputError("one subject cannot be split into training and validation")
    chosen = set(subjects[: min(max(1, round(fraction * len(subjects))), len(subjects) - 1)])
    return [s for s in samples if s.subject not in chosen], [s for s in samples if s.subject in chosen]


def folds_of(samples: Sequence[Sample], count: int, seed: int) -> list[list[Sample]]:
    """Divide samples into `count` folds: those of index.csv if it defines that many, else random by subject.

    Raises UsageError for fewer subjects than folds.
    """
    defined = {s.fold for s in samples}
    if None not in defined and len(defined) == count:
        return [[s for s in samples if s.fold == n] for n in sorted(n for n in defined if n is not None)]
    subjects = sorted({s.subject for s in samples}, key=lambda s: seed_of(f"{seed}/{s}", size=6))
    if len(subjects) < count:
        raise UsageError(f"too few subjects for {count} folds: {len(subjects)}")
    folds = {subject: i % count for i, subject in enumerate(subjects)}
    return [[s for s in samples if folds[s.subject] == n] for n in range(count)]


class Images:
    """Images in memory, and augmented batches of them.

    The augmentation of an image depends on (seed, epoch, id) alone: it is the same in any order, with any
    number of processes, and after resuming. The constructor decodes all files; it raises InputError with
    the names of those that cannot be used.
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
            loaded = list(pool.map(self._load_or_error, self.samples))
        errors = [x for x in loaded if isinstance(x, str)]
        if errors:
            more = f" (and {len(errors) - 5} more)" if len(errors) > 5 else ""
            raise InputError("; ".join(errors[:5]) + more, hint="repair or remove these files")
        usable = [x for x in loaded if not isinstance(x, str)]
        self.images = torch.from_numpy(np.stack([x[0] for x in usable]))
        self.sizes = np.array([x[1] for x in usable])
        self.aspects = self.sizes[:, 1] / self.sizes[:, 0]
        self.keys = [seed_of(s.id, size=6) for s in self.samples]
        self._store([x[2] for x in usable])

    def __len__(self) -> int:
        return len(self.samples)

    def plain(self, indices: Sequence[int]) -> Tensor:
        """Images (B, C, S, S) in [-1, 1], without augmentation."""
        return self._images(indices, identity_maps(len(indices)))

    def augmented(
        self, indices: Sequence[int], augment: AugmentConfig, *, seed: int, epoch: int
    ) -> tuple[Tensor, list[np.random.Generator], list[Affine]]:
        """Augmented images (B, C, S, S) in [-1, 1], with the generator and the transform of each."""
        rngs = [np.random.default_rng([seed, epoch, self.keys[i]]) for i in indices]
        affines = [similarity(r, augment, a) for r, a in zip(rngs, self.aspects[indices], strict=True)]
        if augment.crop > 0:
            affines = [
                self._random_crop(i, a, r, augment) for i, a, r in zip(indices, affines, rngs, strict=True)
            ]
        image = self._images(indices, np.stack([a.backward for a in affines]))
        image = torch.stack([tone(x, r, augment) for x, r in zip(image, rngs, strict=True)])
        return image, rngs, affines

    def _load_or_error(
        self, sample: Sample
    ) -> tuple[np.ndarray, tuple[int, int], tuple[np.ndarray, ...]] | str:
        """The image uint8 (C, side, side), its original height and width, and other data; or an error."""
        try:
            scan = read_scan(sample.image)
            extra = self._load_extra(sample, scan)
            square = to_square(scan.pixels, self.side, self.channels, window=scan.window)
            levels = np.rint((square + 1) * 127.5).astype(np.uint8)
            return levels, scan.pixels.shape[:2], extra
        except Exception as error:
            return str(input_error(error, str(sample.image)))

    def _random_crop(
        self, index: int, affine: Affine, rng: np.random.Generator, augment: AugmentConfig
    ) -> Affine:
        raise TypeError("images without masks have no object to crop to")

    def _load_extra(self, sample: Sample, scan: Scan) -> tuple[np.ndarray, ...]:
        """The data of a sample other than its image. Raises InputError if it cannot be used."""
        return ()

    def _store(self, extras: list[tuple[np.ndarray, ...]]) -> None:
        """Store what `_load_extra` returned for each sample."""

    def _images(self, indices: Sequence[int], backward: np.ndarray) -> Tensor:
        images = self.images[torch.as_tensor(indices)].float()
        size = [len(indices), self.channels, self.image_size, self.image_size]
        return resample(images, backward, size, padding="border") / 127.5 - 1


class MaskedImages(Images):
    """Images with their masks and contours."""

    def _load_extra(self, sample: Sample, scan: Scan) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        assert sample.mask is not None
        mask = read_mask(sample.mask)
        h, w = stored(scan.pixels, scan.orientation).shape[:2]
        if mask.shape != (h, w):
            size = f"{mask.shape[1]} x {mask.shape[0]} px"
            raise InputError(f"{sample.mask}: {size}, but its image is {w} x {h} px")
        mask = upright(mask, scan.orientation)
        if fault := fault_of(mask):
            raise InputError(f"{sample.mask}: {fault}")
        coverage = np.rint((to_square(mask, self.side, 1)[0] + 1) * 127.5).astype(np.uint8)
        return coverage, *rim(mask)

    def _store(self, extras: list[tuple[np.ndarray, ...]]) -> None:
        self.masks = torch.from_numpy(np.stack([x[0] for x in extras]))
        self.rims = np.stack([x[1] for x in extras])
        self.rim_weights = np.stack([x[2] for x in extras])

    @property
    def full_masks(self) -> list[str]:
        """The files of masks that cover their whole image: some objects do, but so do mistaken masks."""
        full = (self.masks == 255).all((1, 2)).tolist()
        return [str(sample.mask) for sample, is_full in zip(self.samples, full, strict=True) if is_full]

    def with_masks(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images as in `plain`, and masks (B, S, S) in [0, 1]."""
        return self.plain(indices), self._masks(indices, identity_maps(len(indices)))

    def object_crops(self, indices: Sequence[int]) -> tuple[Tensor, Tensor, np.ndarray]:
        """Images and masks as in `with_masks`, each cropped so that its object spans the fraction FILL.

        Also returns the side (B,) of each crop as a fraction of the image's side.
        """
        identity = Affine(np.eye(2, 3), np.eye(2, 3))
        backward = np.stack([crop(identity, self.rims[i], fill=FILL).backward for i in indices])
        return self._images(indices, backward), self._masks(indices, backward), backward[:, 0, 0]

    def batch(
        self, indices: Sequence[int], augment: AugmentConfig, *, seed: int, epoch: int, dims: tuple[int, int]
    ) -> Batch:
        """An augmented batch, with noise for theta and z of lengths `dims`."""
        image, rngs, affines = self.augmented(indices, augment, seed=seed, epoch=epoch)
        mask = self._masks(indices, np.stack([a.backward for a in affines]))
        forward = [a.forward for a in affines]
        rims = np.stack([p @ f[:, :2].T + f[:, 2] for p, f in zip(self.rims[indices], forward, strict=True)])
        weights = self.rim_weights[indices] * (np.abs(rims) < 0.99).all(-1)
        eps = [[torch.from_numpy(r.standard_normal(d, np.float32)) for d in dims] for r in rngs]
        poses = [similarity(r, POSES, a).backward for r, a in zip(rngs, self.aspects[indices], strict=True)]
        return Batch(
            image,
            mask,
            rims,
            torch.from_numpy(weights).float(),
            torch.stack([e[0] for e in eps]),
            torch.stack([e[1] for e in eps]),
            torch.from_numpy(np.stack(poses)).float(),
            torch.from_numpy(np.stack([r.standard_normal(NUDGES, np.float32) for r in rngs])),
        )

    def _random_crop(
        self, index: int, affine: Affine, rng: np.random.Generator, augment: AugmentConfig
    ) -> Affine:
        """With probability `augment.crop`, add a random crop around the object to the transform."""
        if rng.random() >= augment.crop:
            return affine
        fill = np.exp(rng.uniform(*np.log(FILLS)))
        return crop(affine, self.rims[index], fill=fill, offset=rng.uniform(-MAX_OFFSET, MAX_OFFSET, 2))

    def _masks(self, indices: Sequence[int], backward: np.ndarray) -> Tensor:
        masks = self.masks[torch.as_tensor(indices), None].float()
        return resample(masks, backward, [len(indices), 1, self.image_size, self.image_size])[:, 0] / 255


def _files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    files: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if not p.is_dir() and not p.name.startswith(".")):
        if path.stem in files:
            raise InputError(f"{folder}: {files[path.stem].name} and {path.name} differ only in their suffix")
        files[path.stem] = path
    return files


def _read_index(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        with io.TextIOWrapper(open_regular(path), "utf-8-sig", newline="") as file:
            return {row["id"]: row for row in csv.DictReader(file)}
    except (KeyError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file with an id column") from error


def _sample(stem: str, image: Path, mask: Path | None, row: dict[str, str]) -> Sample:
    fold = row.get("fold") or None
    try:
        number = None if fold is None else int(fold)
    except ValueError:
        raise InputError(f"index.csv: fold {fold!r} of {stem} is not an integer") from None
    return Sample(stem, image, mask, row.get("subject") or stem, number)
