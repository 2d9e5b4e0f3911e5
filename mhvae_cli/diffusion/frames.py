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
CLUSTERS, ROUNDS, STRIDE = 160, 30, 4
"""Frames are found as up to CLUSTERS modes of black areas, in at most ROUNDS, in every STRIDE-th pixel."""
SURE = 0.75
"""The share of a cluster's images that are black where its frame is."""
UNLIKE = 0.1
"""The share of pixels from which on the black areas of a cluster are those of shadows, not of one frame."""
STRAIGHT = 1 / 32
"""What is narrower, in image sides, is no part of a frame's outline, but of shadows, noise or writing."""
BOX = 0.005
"""The share of an image from which on black within the field of view is a box, or a curved probe."""
SMALLEST, SPECK = 0.01, 0.001
"""The shares of an image below which a frame is none, and a part of one is a speck."""
NEAR = 1 / 36
"""How far an image's black may lie from its frame, in image sides, to be a part of it."""
ALIKE = 0.012
"""The share of an image whose pixels tell as much as a single one: neighbours are alike."""
TONES = 64
"""Number of tones in [-1, 1] that x_hat is told apart by."""


@dataclass(frozen=True)
class Frames:
    """The frames of a training set: straight edges, boxes and bars, which a VAE can only draw blurred.

    masks: bool (K, S, S), where each is black, for squares of the side S that the cDDPM draws. evidence:
    float32 (TONES,), the log ratio of how often x_hat has a tone where images are black up to their edge, and
    elsewhere. prior: float32 (K + 1,), the log of the shares of images that have each, and none. Each mask is
    where most images of at least LEAST subjects are black, its outline straightened.
    """

    masks: np.ndarray
    evidence: np.ndarray
    prior: np.ndarray

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
            if np.minimum(share, 1 - share).mean() > UNLIKE:
                continue
            mask = _straight(_tidy(share >= SURE))
            if SMALLEST <= mask.mean() < 1:
                found.append((len(members), mask))
        if not found:
            return None
        found.sort(key=lambda each: -each[0])
        masks = np.stack([mask for _, mask in found[:MOST]])
        none = np.zeros_like(masks[:1])
        modes = np.concatenate([masks, none])[:, ::STRIDE, ::STRIDE].reshape(len(masks) + 1, -1)
        counts = np.bincount(_distances(points, modes).argmin(1), minlength=len(modes)) + 1
        return cls(masks, evidence, np.log(counts / counts.sum()).astype(np.float32))

    def choose(self, x_hat: np.ndarray) -> np.ndarray:
        """Where (S, S) the image should be black whose reconstruction is x_hat (C, S, S), in [-1, 1].

        That of the frame, or of no frame, that is most likely by the tones of x_hat and by how many images
        have it.
        """
        likely = np.tensordot(self.masks, self.evidence[_tones(x_hat)], 2) / (ALIKE * self.masks[0].size)
        best = int((np.append(likely, 0) + self.prior).argmax())
        return self.masks[best] if best < len(self.masks) else np.zeros_like(self.masks[0])

    def own(self, image: np.ndarray) -> np.ndarray:
        """Where (S, S) an image (C, S, S) in [-1, 1] is black as a part of its frame, and not by a shadow."""
        border = black_border(image)
        coarse = border[::STRIDE, ::STRIDE]
        differ = (self.masks[:, ::STRIDE, ::STRIDE] ^ coarse).mean((1, 2))
        best = int(differ.argmin())
        if differ[best] > coarse.mean():
            return np.zeros_like(border)
        if best not in self._wider:  # only of frames that images have: all of them take half a second
            from scipy.ndimage import binary_dilation

            reach = round(NEAR * self.masks.shape[-1])
            self._wider[best] = binary_dilation(self.masks[best], iterations=reach)
        found: np.ndarray = border & self._wider[best]
        return found

    @cached_property
    def _wider(self) -> dict[int, np.ndarray]:
        return {}

    def arrays(self) -> dict[str, np.ndarray]:
        """What `of_arrays` restores: as small as it can be stored."""
        packed = zlib.compress(np.packbits(self.masks).tobytes(), 9)
        shape = np.array(self.masks.shape[:2], np.int32)
        return {
            "masks": np.frombuffer(packed, np.uint8),
            "shape": shape,
            "evidence": self.evidence,
            "prior": self.prior,
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], side: int) -> "Frames":
        """The frames for squares of this side. ValueError for arrays that are not those of such `arrays`."""
        count, size = map(int, arrays.get("shape", (0, 0)))
        lengths = {name: array.shape for name, array in arrays.items() if name != "masks"}
        if lengths != {"shape": (2,), "evidence": (TONES,), "prior": (count + 1,)} or "masks" not in arrays:
            raise ValueError("its tensors are not masks, shape, evidence and prior")
        if not 0 < count <= MOST or size != side:
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
        masks = bits.reshape(count, side, side).astype(bool)
        return cls(masks, *(arrays[name].astype(np.float32) for name in ("evidence", "prior")))


def black_border(image: np.ndarray) -> np.ndarray:
    """Where (S, S) an image (C, S, S) in [-1, 1] is black up to its edge, as outside a scan's sector."""
    from scipy.ndimage import label

    areas, _ = label(_opened(np.asarray((image < BLACK).all(0)), 3))
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
    chosen = points[rng.integers(len(points))][None]
    near = _distances(points, chosen)[:, 0]
    count = min(CLUSTERS, len(points) // LEAST)
    while len(chosen) < count and near.any():  # as k-means++
        chosen = np.concatenate([chosen, points[rng.choice(len(points), p=near / near.sum())][None]])
        near = np.minimum(near, _distances(points, chosen[-1:])[:, 0])
    nearest: np.ndarray = _distances(points, chosen).argmin(1)
    for _ in range(ROUNDS):
        members = [nearest == k for k in range(len(chosen))]
        kept = [own for own in members if len(set(subjects[own].tolist())) >= LEAST]
        if not kept:
            return np.full(len(points), -1)
        modes = np.stack([(points[own].mean(0) >= 0.5).astype(np.float32) for own in kept])
        done = modes.shape == chosen.shape and (modes == chosen).all()
        chosen, nearest = modes, _distances(points, modes).argmin(1)
        if done:
            break
    return nearest


def _distances(points: np.ndarray, modes: np.ndarray) -> np.ndarray:
    """Mean absolute differences (N, K) between binary points (N, D) and modes (K, D)."""
    found: np.ndarray = (points @ (1.0 - modes).T + (1 - points) @ modes.T) / points.shape[1]
    return found


def _straight(mask: np.ndarray) -> np.ndarray:
    """A mask (S, S) whose field of view is convex but for boxes and a probe's curve; True if there is none.

    What lies apart from the field of view, such as a bar of grey values, stays as it is.
    """
    from scipy.ndimage import binary_dilation, label
    from scipy.spatial import ConvexHull

    width = max(3, round(STRAIGHT * len(mask)))
    areas, _ = label(~mask)
    largest = areas == np.bincount(areas[areas > 0], minlength=2).argmax()
    view = _opened(largest, width)
    if min(view.any(axis).sum() for axis in (0, 1)) < 2:
        return np.ones_like(mask)
    sides = ConvexHull(np.argwhere(view)).equations
    points = np.indices(mask.shape).reshape(2, -1).T
    hull = (points @ sides[:, :2].T + sides[:, 2] <= 1e-6).all(1).reshape(mask.shape)
    boxes = _without_specks(_opened(hull & ~view, width), BOX)
    near = binary_dilation(boxes, np.ones((4 * width, 4 * width)))
    straight: np.ndarray = (mask | largest) & ~(hull & ~(near & _opened(~view, width)))
    return straight


def _opened(mask: np.ndarray, width: int) -> np.ndarray:
    """A mask (S, S) without the parts that no square of this width fits into; beyond its edge it goes on."""
    from scipy.ndimage import binary_opening

    wide = binary_opening(np.pad(mask, width, mode="edge"), np.ones((width, width)))
    found: np.ndarray = wide[width:-width, width:-width]
    return found


def _tidy(mask: np.ndarray) -> np.ndarray:
    """A mask (S, S) without specks and pinholes."""
    return ~_without_specks(~_without_specks(mask, SPECK), SPECK)


def _without_specks(mask: np.ndarray, share: float) -> np.ndarray:
    """A mask (S, S) without the parts that are smaller than this share of it."""
    from scipy.ndimage import label

    areas, _ = label(mask)
    kept: np.ndarray = mask & (np.bincount(areas.ravel()) >= share * mask.size)[areas]
    return kept
