"""Section 5.1 (tables 1 and 2): Dice, IoU, Hausdorff, HD95 and ASSD of two masks; scores of empty masks.

Convention: masks are bool (H, W), True on the object; `spacing` is the width and height of one
pixel, and distances are between pixel centres, in its unit. The boundary of a mask is every object pixel with
one of its four neighbours outside the mask or outside the image.

Empty masks: two empty masks are correct (Dice 1, distance 0); one is a missed or a false object (Dice 0,
distance = the image's diagonal, edge to edge). The code behind the published tables gave the latter a
distance of 0, which favours a model that finds nothing; no profile here does.

Profiles: `native` measures the masks unchanged. `paper256` first resizes both to 256 x 256 by nearest
neighbour and so gives the published tables' numbers if neither mask is empty; for an empty one the distance
is the diagonal of that square.
"""

from dataclasses import dataclass
from math import hypot
from typing import Literal

import numpy as np

from ..images.scan import Spacing

Profile = Literal["native", "paper256"]
PIXELS = Spacing(1.0, 1.0)
PAPER_SIZE = 256
LEAST_JACCARD = 0.65
"""The threshold of the ISIC challenges: below it a lesion counts as missed."""


@dataclass(frozen=True)
class Distances:
    """The distance of two masks: three measures in one unit, each in [0, diagonal]."""

    hausdorff: float
    hd95: float
    assd: float


@dataclass(frozen=True)
class Scores:
    """The scores of one prediction.

    `px` is in pixels of the profile's image, `mm` in millimetres if the spacing is known. `pred_empty` and
    `truth_empty` refer to the masks as measured: resized under `paper256`.
    """

    dice: float
    iou: float
    px: Distances
    mm: Distances | None
    pred_empty: bool
    truth_empty: bool

    @property
    def thresholded_jaccard(self) -> float:
        """The score of the ISIC 2018 challenge: the IoU, 0 if it is below `LEAST_JACCARD`."""
        return self.iou if self.iou >= LEAST_JACCARD else 0.0


def dice(pred: np.ndarray, truth: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|), in [0, 1]; 1 where both are empty."""
    total = np.count_nonzero(pred) + np.count_nonzero(truth)
    return float(2 * np.count_nonzero(pred & truth) / total) if total else 1.0


def iou(pred: np.ndarray, truth: np.ndarray) -> float:
    """|A and B| / |A or B|, in [0, 1]; 1 where both are empty."""
    union = np.count_nonzero(pred | truth)
    return float(np.count_nonzero(pred & truth) / union) if union else 1.0


def hausdorff(pred: np.ndarray, truth: np.ndarray, *, spacing: Spacing = PIXELS) -> float:
    """The symmetric maximum over ALL object pixels of the distance to the nearest pixel of the other mask.

    Inner pixels count: the centre of a disc may be the farthest from a ring around it.
    """
    return distances(pred, truth, spacing=spacing).hausdorff


def hd95(pred: np.ndarray, truth: np.ndarray, *, spacing: Spacing = PIXELS) -> float:
    """The greater of the two directed 95th percentiles (linear) of boundary-to-boundary distances."""
    return distances(pred, truth, spacing=spacing).hd95


def assd(pred: np.ndarray, truth: np.ndarray, *, spacing: Spacing = PIXELS) -> float:
    """The mean distance to the other's boundary over the boundary pixels of both masks, pooled."""
    return distances(pred, truth, spacing=spacing).assd


def distances(pred: np.ndarray, truth: np.ndarray, *, spacing: Spacing = PIXELS) -> Distances:
    """`hausdorff`, `hd95` and `assd` of two masks of one shape, by two exact distance transforms."""
    from scipy.ndimage import distance_transform_edt  # slow to import, and not needed for Dice alone

    union = pred | truth
    if not union.any():
        return Distances(0.0, 0.0, 0.0)
    if not (pred.any() and truth.any()):
        return _missed(pred.shape, spacing)
    box = _bounding_box(union)
    pred, truth = pred[box], truth[box]
    edge_pred, edge_truth = _boundary(pred), _boundary(truth)
    to_pred = distance_transform_edt(~edge_pred, sampling=(spacing.y, spacing.x))
    to_truth = distance_transform_edt(~edge_truth, sampling=(spacing.y, spacing.x))
    # The nearest pixel of a mask from outside is on its boundary: two transforms suffice for all measures.
    farthest = max(to_truth[pred & ~truth].max(initial=0.0), to_pred[truth & ~pred].max(initial=0.0))
    forth, back = to_truth[edge_pred], to_pred[edge_truth]
    return Distances(
        hausdorff=float(farthest),
        hd95=float(max(np.percentile(forth, 95), np.percentile(back, 95))),
        assd=float((forth.sum() + back.sum()) / (forth.size + back.size)),
    )


def squash(mask: np.ndarray, *, size: int = PAPER_SIZE) -> np.ndarray:
    """`mask` (H, W) as (size, size), ignoring its aspect ratio: nearest neighbour at each pixel's centre."""
    rows, columns = (((2 * np.arange(size) + 1) * length) // (2 * size) for length in mask.shape)
    return mask[np.ix_(rows, columns)]


def measure(
    pred: np.ndarray | None,
    truth: np.ndarray,
    *,
    profile: Profile = "native",
    spacing: Spacing | None = None,
) -> Scores:
    """Every metric of one pair of masks, bool (H, W) of one shape.

    `pred=None` means that there is no prediction: a missed object, even if the truth is empty. `spacing` is
    in mm per native pixel and needed for `mm`; under `paper256` it is rescaled with the image.
    """
    height, width = truth.shape
    if profile == "paper256":
        pred, truth = None if pred is None else squash(pred), squash(truth)
        if spacing is not None:
            spacing = Spacing(spacing.x * width / PAPER_SIZE, spacing.y * height / PAPER_SIZE)
    empty = not truth.any()
    if pred is None:
        mm = None if spacing is None else _missed(truth.shape, spacing)
        return Scores(0.0, 0.0, _missed(truth.shape, PIXELS), mm, pred_empty=False, truth_empty=empty)
    px = distances(pred, truth)
    mm = None if spacing is None else _in_mm(pred, truth, px, spacing)
    return Scores(dice(pred, truth), iou(pred, truth), px, mm, pred_empty=not pred.any(), truth_empty=empty)


def _in_mm(pred: np.ndarray, truth: np.ndarray, px: Distances, spacing: Spacing) -> Distances:
    scale = spacing.x
    if spacing.y != scale:
        return distances(pred, truth, spacing=spacing)
    return Distances(px.hausdorff * scale, px.hd95 * scale, px.assd * scale)


def _missed(shape: tuple[int, ...], spacing: Spacing) -> Distances:
    diagonal = hypot(shape[0] * spacing.y, shape[1] * spacing.x)
    return Distances(diagonal, diagonal, diagonal)


def _bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _boundary(mask: np.ndarray) -> np.ndarray:
    """The boundary pixels; all outside counts as background, so cropping to the mask changes nothing."""
    around = np.pad(mask, 1)
    inner = around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    edge: np.ndarray = mask & ~inner
    return edge
