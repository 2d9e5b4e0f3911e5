"""Detail that moves with the object: what the images that an edit starts from show of the edited one.

A warp moves the mask, and it can move the pixels as well. Within the edited object, the pixels that the same
part of the object has in its image are shown; outside it, and outside the object's old position, the image's
own ground. What remains, the area that the object left and what lies beyond the image's edge, is unknown:
the cDDPM draws it, given the rest (`score.Known`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..diffusion.frames import black_border
from ..errors import InputError, ModelError
from ..images.resample import levels_of, pixels_of, resample
from ..images.scan import Scan
from ..images.transforms import limits_of, shown_by, to_square
from ..vae.correspondence import correspondence
from ..vae.editing import LatentCode
from ..vae.newton import Map
from ..vae.warp import pixel_centres
from .networks import Networks

RIM = 1 / 40
"""Width of the margin that moves with an object, and of the soft rim around it, in image sides."""
FREE = 0.2
"""The time below which the cDDPM may change the seams between what is known and what it draws."""
COARSE = 0.05
"""Scale in image sides above which blended images are averaged; finer detail keeps its variance."""
MAGNIFIED = 1.5
"""Magnification from which on the carried detail is too coarse, and the cDDPM adds what is finer."""
MOST = 0.9
"""The largest share of an image that may be unknown."""


@dataclass(frozen=True)
class Donor:
    """An image whose pixels an edit carries: its scan, its own latent code, and its share of the result."""

    scan: Scan
    code: LatentCode
    share: float = 1.0


@dataclass(frozen=True)
class _Moved:
    """One donor on the square that is drawn: its pixels (C, S, S), moved, and how well they are known (S, S).

    `object` (S, S) in [0, 1] is the share of the moved object in a pixel, `seam` (S, S) how far the pixel
    mixes places, `magnified` how much larger the object is than in its image.
    """

    donor: Donor
    to_source: Map
    square: np.ndarray
    known: np.ndarray
    object: np.ndarray
    seam: np.ndarray
    magnified: float


@dataclass(frozen=True)
class Carried:
    """What donors show of an edited image.

    `square` float32 (C, S, S) in [-1, 1] is the carried image, `known` float32 (S, S) in [0, 1] where it
    holds, `kept` (S, S) where it is kept to the pixel, `free` (S, S) the time in [0, 1] below which the cDDPM
    may change it, and `sharp` (S, S) where its detail is fine enough to be an example for the cDDPM.
    """

    parts: tuple[_Moved, ...]
    square: np.ndarray
    known: np.ndarray
    kept: np.ndarray
    free: np.ndarray
    sharp: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether nothing is left to draw."""
        return bool((self.kept >= 1).all())

    def settle(self, recon: np.ndarray) -> np.ndarray:
        """The VAE's image (C, S, S) with the coarse tones of what is known, spread into what is not.

        The known difference is averaged over ever larger areas until some of it is known everywhere.
        """
        from scipy.ndimage import gaussian_filter

        side = len(self.known)
        spread, rest = np.zeros_like(recon), np.ones((side, side), np.float32)
        for share in (1 / 40, 1 / 20, 1 / 10, 1 / 5, 1 / 2.5):
            sd = side * share
            cover = gaussian_filter(self.known, sd)
            low = gaussian_filter((self.square - recon) * self.known, (0, sd, sd)) / (cover + 1e-4)
            weight = rest * np.minimum(1, 4 * cover).astype(np.float32)
            spread += weight * low
            rest -= weight
        settled: np.ndarray = recon + spread
        return settled

    def compose(self, drawn: np.ndarray, like: Scan) -> np.ndarray:
        """The carried pixels with `drawn` (C, S, S) in [-1, 1] where they are not kept.

        At the size, bit depth and window of the scan `like`, and with its channels: as sharp as its donors.
        """
        size = like.pixels.shape[:2]
        levels = _blend([self._native(part, size) for part in self.parts], self._weights(size), size)
        planes = 1 if like.pixels.ndim == 2 else 3
        levels = shown_by(levels, planes)
        if not self.complete:
            kept = _enlarged(self.kept[None], size)
            levels += (1 - kept) * (shown_by(_enlarged(drawn, size), planes).clip(-1, 1) - levels)
        return pixels_of(levels, limits_of(like), like.pixels.dtype)

    def _native(self, part: _Moved, size: tuple[int, int]) -> np.ndarray:
        """A donor's moved pixels at their full resolution: planes (C, h, w), -1 and 1 black and white."""
        scan = part.donor.scan
        levels = levels_of(scan.pixels, limits_of(scan))
        same = scan.pixels.shape[:2] == size

        def still(begin: int, end: int) -> np.ndarray:
            return pixel_centres(size)[begin * size[1] : end * size[1]]

        def moved(begin: int, end: int) -> np.ndarray:
            return part.to_source(still(begin, end))

        ground = levels if same else resample(levels, still, size, shrink=_shrink(scan, size, 1))
        if not part.object.any():
            return ground
        made = resample(levels, moved, size, shrink=_shrink(scan, size, part.magnified))
        made -= ground
        made *= _enlarged(part.object[None], size)
        made += ground
        return made

    def _weights(self, size: tuple[int, int]) -> list[np.ndarray]:
        return [_enlarged(weight[None], size) for weight in _shares(self.parts)]


def carry_detail(networks: Networks, target: LatentCode, donors: Sequence[Donor]) -> Carried:
    """What `donors` show of the image of a latent code; InputError if they show next to nothing of it."""
    side = networks.side
    parts = tuple(_moved(networks, target, donor) for donor in donors if donor.share > 0)
    square = _blend([part.square for part in parts], _shares(parts), (side, side))
    known = 1 - np.prod([1 - part.known for part in parts], axis=0)
    if known.mean() < 1 - MOST:
        hint = "use --detail invent, which generates the whole image"
        raise InputError(f"the edit leaves {1 - known.mean():.0%} of the image to be drawn", hint=hint)
    seam = np.max([part.seam for part in parts], axis=0)
    coarse = np.max([part.object * (part.magnified > MAGNIFIED) for part in parts], axis=0)
    # Where the detail is too coarse, the cDDPM is free while its noise hides what is finer than the detail.
    magnified = max(part.magnified for part in parts)
    free = FREE + coarse * (min(0.5, 0.1 + FREE * magnified) - FREE)
    kept = _core(known) * (1 - seam) * (1 - coarse)
    return Carried(parts, square, *(x.astype(np.float32) for x in (known, kept, free, 1 - coarse)))


def _moved(networks: Networks, target: LatentCode, donor: Donor) -> _Moved:
    side, warp = networks.side, networks.model.warp
    if warp is None:
        raise ModelError(f"{networks.name}: a single-headed VAE finds no object")
    points = pixel_centres((side, side))
    to_source = correspondence(warp, donor.code, target)
    sources = to_source(points)
    seen = (np.abs(sources) <= 1).all(1).reshape(side, side)  # False for NaN
    with np.errstate(invalid="ignore"):
        far = np.abs(sources - points).max(1).reshape(side, side) * side / 2
    moves = np.nan_to_num(far, nan=1.0).clip(0, 1)
    masks = [networks.mask_of(code, (side, side)) for code in (target, donor.code)]
    new, old = (_soft(mask, side) for mask in masks)
    still = to_square(donor.scan.pixels, side, networks.config.channels, window=donor.scan.window)
    border, frame = _wider(black_border(still)), networks.frame_of(still)
    layers = np.concatenate([still, border[None], _wider(frame)[None]])
    *shown, behind, hidden = resample(
        layers, lambda begin, end: sources[begin * side : end * side], (side, side)
    )
    # The frame stays where it is and hides the object, whose part behind it is unknown. Black that may be a
    # shadow is a part of the object, but not of its margin, which takes none of it along and covers none.
    new *= (moves > 0) & ~frame & (masks[0] | (np.maximum(border, behind) < 0.5))
    old *= ~frame & (masks[1] | (border < 0.5))
    seen &= (hidden < 0.5) | (moves == 0)
    seam = 4 * new * (1 - new) * moves
    # A ground pixel is known unless the object lay there and has moved away.
    object_, ground = new * seen, (1 - new) * (1 - old * moves)
    known = object_ + ground
    # Each by what is known of it: at the seam, nothing of the object that has moved away shines through.
    share = np.divide(object_, known, out=np.zeros_like(known), where=known > 0)
    square = np.clip(still + share * (shown - still), -1, 1).astype(np.float32)
    return _Moved(donor, to_source, square, known, new, seam, _magnification(*masks))


def _wider(black: np.ndarray) -> np.ndarray:
    """1 in and near a black area (S, S), whose edge is blurred, by JPEG and by resampling; else 0."""
    from scipy.ndimage import binary_dilation

    wider: np.ndarray = binary_dilation(black, iterations=max(1, len(black) // 96))
    return wider.astype(np.float32)


def _magnification(target: np.ndarray, donor: np.ndarray) -> float:
    """How much larger the object is in the target's mask (S, S) than in its donor's, in length."""
    return float(np.sqrt(max(target.sum(), 1) / max(donor.sum(), 1)))


def _soft(mask: np.ndarray, side: int) -> np.ndarray:
    """1 on a mask (S, S) and its margin, falling to 0 over the soft rim."""
    from scipy.ndimage import distance_transform_edt

    rim = RIM * side
    if not mask.any():
        return np.zeros(mask.shape)
    soft: np.ndarray = np.clip(2 - distance_transform_edt(~mask) / rim, 0, 1)
    return soft


def _core(known: np.ndarray) -> np.ndarray:
    """What is known (S, S), without a border of some two pixels around what is not."""
    from scipy.ndimage import gaussian_filter

    inside = gaussian_filter((known >= 0.999).astype(np.float64), 1.0)
    core: np.ndarray = np.clip(2.5 * (inside - 0.5), 0, 1)
    return core


def _shares(parts: Sequence[_Moved]) -> list[np.ndarray]:
    """The weight (S, S) of each donor in a pixel: its share, as far as it knows the pixel; their sum is 1."""
    rows = [part.donor.share * (part.known + 1e-3) for part in parts]
    total = np.sum(rows, axis=0)
    return [(row / total).astype(np.float32) for row in rows]


def _blend(images: Sequence[np.ndarray], weights: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Images (C, h, w) cross-faded: their coarse tones are averaged, the finer detail keeps its variance."""
    if len(images) == 1:
        return images[0]
    from scipy.ndimage import gaussian_filter

    planes = max(len(image) for image in images)
    sds = (0, *(COARSE * length for length in size))
    coarse, fine, power = (np.zeros((planes, *size), np.float32) for _ in range(3))
    for image, weight in zip(images, weights, strict=True):
        shown = shown_by(image, planes)
        low = gaussian_filter(shown, sds, mode="nearest")
        coarse += weight * low
        fine += weight * (shown - low)
        power += weight * gaussian_filter((shown - low) ** 2, sds, mode="nearest")
    # Unlike images cancel each other's detail. What they have in common does not, so it is measured.
    left = gaussian_filter(fine**2, sds, mode="nearest")
    most = 1 / np.sqrt(np.sum([weight**2 for weight in weights], axis=0))
    blended: np.ndarray = coarse + fine * np.clip(np.sqrt(power / (left + 1e-8)), 1, most)
    return blended


def _enlarged(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Planes (C, S, S) float32 at `size` (h, w), bilinear."""
    from PIL import Image

    way = Image.Resampling.BICUBIC if len(planes) > 1 else Image.Resampling.BILINEAR
    rows = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in planes]
    return np.stack([np.asarray(row.resize((size[1], size[0]), way)) for row in rows])


def _shrink(scan: Scan, size: tuple[int, int], magnified: float) -> float:
    """Pixels of the scan per pixel of the result."""
    return float(np.sqrt(np.prod(scan.pixels.shape[:2]) / np.prod(size))) / magnified
