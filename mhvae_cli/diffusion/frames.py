"""The frame of a scan: the black around its field of view, which a scanner draws alike for many subjects."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

BLACK = -1 + 2 * 6 / 255
"""The tone below which a pixel is black, in [-1, 1]: JPEGs are not exactly so."""
LEAST = 4
"""Number of subjects with the same frame from which on it is kept: it says nothing of any one of them."""
MOST = 48
"""Largest number of frames that a model has."""
CLUSTERS, ROUNDS, STRIDE = 96, 30, 4
"""Frames are found as up to CLUSTERS modes of black areas, in at most ROUNDS, in every STRIDE-th pixel."""
COARSE, FINE, RAGGED = 1 / 72, 1 / 192, 0.25
"""A mask whose outline would change by more pixels than RAGGED times its length if it were smoothed over
COARSE image sides is that of shadows; the others are smoothed over FINE ones."""
UNLIKE = 0.1
"""The share of pixels from which on the black areas of a cluster differ too much from their majority."""
SMALLEST, SPECK = 0.01, 0.001
"""The shares of an image below which a frame is none, and a part of one is a speck."""
NEAR = 1 / 36
"""How far an image's black may lie from its frame, in image sides, to be a part of it."""
TONES = 64
"""Number of tones in [-1, 1] that x_hat is told apart by."""


@dataclass(frozen=True)
class Frames:
    """The frames of a training set: straight edges, boxes and bars, which a VAE can only draw blurred.

    masks: bool (K, S, S), where each is black, for squares of the side S that the cDDPM draws. evidence:
    float32 (TONES,), the log ratio of how often x_hat has a tone where images are black up to their edge, and
    elsewhere. Each mask is that of the majority of at least LEAST subjects' images.
    """

    masks: np.ndarray
    evidence: np.ndarray

    @classmethod
    def fit(cls, borders: np.ndarray, subjects: Sequence[str], evidence: np.ndarray) -> "Frames | None":
        """The frames that images of several subjects share; None if there are none.

        borders: bool (N, S, S), `black_border` of each image; `evidence` as returned by `tone_evidence`.
        """
        points = borders[:, ::STRIDE, ::STRIDE].reshape(len(borders), -1).astype(np.float32)
        nearest = _clustered(points, np.asarray(subjects))
        found: list[tuple[int, np.ndarray]] = []
        for cluster in range(nearest.max() + 1):
            members = borders[nearest == cluster]
            share = members.mean(0)
            mask = _tidy(share >= 0.5)
            if mask.mean() < SMALLEST or np.minimum(share, 1 - share).mean() > UNLIKE:
                continue
            length = sum((mask ^ np.roll(mask, 1, axis)).sum() for axis in (0, 1))
            if (_smooth(mask, COARSE) ^ mask).sum() <= RAGGED * length:
                found.append((len(members), _smooth(mask, FINE)))
        if not found:
            return None
        found.sort(key=lambda each: -each[0])
        return cls(np.stack([mask for _, mask in found[:MOST]]), evidence)

    def choose(self, x_hat: np.ndarray) -> np.ndarray:
        """Where (S, S) the image should be black whose reconstruction is x_hat (C, S, S), in [-1, 1].

        That of the frame, or of no frame, under which the tones of x_hat are most likely.
        """
        likely = np.tensordot(self.masks, self.evidence[_tones(x_hat)], 2)
        best = int(likely.argmax())
        return self.masks[best] if likely[best] > 0 else np.zeros_like(self.masks[0])

    def own(self, image: np.ndarray) -> np.ndarray:
        """Where (S, S) an image (C, S, S) in [-1, 1] is black as a part of its frame, and not by a shadow."""
        border = black_border(image)
        coarse = border[::STRIDE, ::STRIDE]
        differ = (self.masks[:, ::STRIDE, ::STRIDE] ^ coarse).mean((1, 2))
        best = int(differ.argmin())
        if differ[best] > coarse.mean():
            return np.zeros_like(border)
        found: np.ndarray = border & self._wider[best]
        return found

    @cached_property
    def _wider(self) -> np.ndarray:
        from scipy.ndimage import binary_dilation

        reach = round(NEAR * self.masks.shape[-1])
        return np.stack([binary_dilation(mask, iterations=reach) for mask in self.masks])

    def arrays(self) -> dict[str, np.ndarray]:
        """What `of_arrays` restores: as small as it can be stored."""
        packed = zlib.compress(np.packbits(self.masks).tobytes(), 9)
        shape = np.array(self.masks.shape[:2], np.int32)
        return {"masks": np.frombuffer(packed, np.uint8), "shape": shape, "evidence": self.evidence}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], side: int) -> "Frames":
        """The frames for squares of this side. ValueError for arrays that are not those of such `arrays`."""
        if arrays.keys() != {"masks", "shape", "evidence"}:
            raise ValueError("its tensors are not masks, shape and evidence")
        count, size = map(int, arrays["shape"])
        if not 0 < count <= MOST or size != side or arrays["evidence"].shape != (TONES,):
            raise ValueError(f"{count} frames of {size} px, where the model draws {side} px")
        length = -(-count * side * side // 8)
        opened = zlib.decompressobj()
        try:
            packed = opened.decompress(arrays["masks"].tobytes(), length)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if len(packed) != length or opened.decompress(opened.unconsumed_tail, 1) or not opened.eof:
            raise ValueError(f"its masks are not {count} of {side} px")
        bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=count * side * side)
        return cls(bits.reshape(count, side, side).astype(bool), arrays["evidence"].astype(np.float32))


def black_border(image: np.ndarray) -> np.ndarray:
    """Where (S, S) an image (C, S, S) in [-1, 1] is black up to its edge, as outside a scan's sector."""
    from scipy.ndimage import binary_opening, label

    black = binary_opening((image < BLACK).all(0), np.ones((3, 3)))
    areas, _ = label(black)
    edge = np.concatenate([areas[0], areas[-1], areas[:, 0], areas[:, -1]])
    border: np.ndarray = np.isin(areas, np.unique(edge[edge > 0]))
    return border


def tone_counts(x_hat: np.ndarray, border: np.ndarray) -> np.ndarray:
    """How many pixels of x_hat (C, S, S) have each tone: int (2, TONES), outside and inside `border`."""
    tones = _tones(x_hat)
    return np.stack([np.bincount(tones[border == side], minlength=TONES) for side in (False, True)])


def tone_evidence(counts: np.ndarray) -> np.ndarray:
    """`Frames.evidence` of the sum of `tone_counts` of many images."""
    share = (counts + 1) / (counts + 1).sum(1, keepdims=True)
    found: np.ndarray = np.log(share[1] / share[0]).astype(np.float32)
    return found


def _tones(x_hat: np.ndarray) -> np.ndarray:
    """The number (S, S) of the tone that the lightest channel of x_hat (C, S, S) has."""
    tones: np.ndarray = ((x_hat.max(0) + 1) / 2 * TONES).astype(int).clip(0, TONES - 1)
    return tones


def _clustered(points: np.ndarray, subjects: np.ndarray) -> np.ndarray:
    """The cluster (N,) of binary points (N, D): k-modes, whose clusters of too few subjects dissolve."""
    rng = np.random.default_rng(0)

    def distances(modes: np.ndarray) -> np.ndarray:
        """Mean absolute differences (N, K)."""
        found: np.ndarray = (points @ (1 - modes).T + (1 - points) @ modes.T) / points.shape[1]
        return found

    chosen = points[rng.integers(len(points))][None]
    near = distances(chosen)[:, 0]
    count = min(CLUSTERS, len(points) // (2 * LEAST))
    while len(chosen) < count and near.any():  # as k-means++
        chosen = np.concatenate([chosen, points[rng.choice(len(points), p=near / near.sum())][None]])
        near = np.minimum(near, distances(chosen[-1:])[:, 0])
    nearest: np.ndarray = distances(chosen).argmin(1)
    for _ in range(ROUNDS):
        members = [nearest == k for k in range(len(chosen))]
        kept = [own for own in members if len(set(subjects[own].tolist())) >= LEAST]
        if not kept:
            return np.full(len(points), -1)
        modes = np.stack([(points[own].mean(0) >= 0.5).astype(np.float32) for own in kept])
        done = modes.shape == chosen.shape and (modes == chosen).all()
        chosen, nearest = modes, distances(modes).argmin(1)
        if done:
            break
    return nearest


def _smooth(mask: np.ndarray, sd: float) -> np.ndarray:
    """A mask (S, S) smoothed over `sd` image sides."""
    from scipy.ndimage import gaussian_filter

    smooth: np.ndarray = gaussian_filter(mask.astype(np.float32), sd * len(mask), mode="nearest") >= 0.5
    return smooth


def _tidy(mask: np.ndarray) -> np.ndarray:
    """A mask (S, S) without specks and pinholes."""
    from scipy.ndimage import label

    def without_specks(mask: np.ndarray) -> np.ndarray:
        areas, _ = label(mask)
        small = np.bincount(areas.ravel()) < SPECK * mask.size
        kept: np.ndarray = mask & ~small[areas]
        return kept

    return ~without_specks(~without_specks(mask))
