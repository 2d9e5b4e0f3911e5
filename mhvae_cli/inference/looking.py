"""Looking twice: an object that was found is found again in a crop around it, where it is larger.

The crop lies inside the image and has its aspect ratio; the object found first spans the fraction `fill`, set
by the model's configuration, of the crop's side. A warp found in the crop is exactly one of the image, with
the map from the image to the crop as the `pose` of its latent code.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..images.scan import Scan
from ..images.transforms import resized, to_square
from ..polygons import signed_area
from ..vae.editing import LatentCode
from .certainty import Certainty, Evidence

if TYPE_CHECKING:
    from .networks import Networks
    from .qc import EncoderOutputs

POINTS = 64
"""Points of an outline at which two looks are compared."""
SMALLEST_SHARE, SMALLEST_GAP = 1e-4, 0.01
SMALLEST = 0.1
"""Smallest side of a crop, as a fraction of the image's side."""
KEPT = 8
"""Larger images are kept at this many times the side of the network's input, enough for most crops."""


@dataclass(frozen=True)
class View:
    """An image to look at: the network's input `square` (C, S, S), and the `scan` that crops are taken from.

    `size` (h, w) is the native one; the scan may have been reduced.
    """

    square: np.ndarray
    scan: Scan
    size: tuple[int, int]


@dataclass(frozen=True)
class Position:
    """Where an object was found: theta's posterior mean (P,) and sd (P,), float32, in the frame of `pose`.

    `pose` float64 (2, 3) maps points of the image to the crop that was looked at; None: the image itself.
    `features` (R,) are the encoder's, their mean over the looks, and `first` (P,) the theta found at the
    first of two looks.
    """

    theta: np.ndarray
    sd: np.ndarray
    features: np.ndarray
    pose: np.ndarray | None = None
    first: np.ndarray | None = None


def view_of(networks: "Networks", scan: Scan) -> View:
    """The view of a scan, without more of its pixels than crops need; runs no torch."""
    reduced = _reduced(scan, KEPT * networks.config.image_size)
    return View(networks.prepare(scan), reduced, scan.pixels.shape[:2])


def locate(
    networks: "Networks",
    views: Sequence[View],
    *,
    looks: int = 2,
    tta: bool = False,
    first: "Sequence[EncoderOutputs]" = (),
) -> list[Position]:
    """The positions of the objects in a batch of images, after one look or two.

    `tta`: see `Networks.posterior`, for the last look. `first` are the encoder's outputs of the first look,
    if they are known.
    """
    squares = np.stack([view.square for view in views])
    twice = looks > 1 and networks.config.fill > 0
    poses: list[np.ndarray | None] = [None] * len(views)
    thetas, sds = np.zeros((2, len(views), networks.model.theta_dim), np.float32)
    features = np.zeros((len(views), networks.feature_count), np.float32)
    if first:
        outputs = ([getattr(each, name) for each in first] for name in ("theta", "sd", "features"))
        thetas, sds, features = map(np.stack, outputs)
    elif twice or not tta:
        thetas, sds, features = networks.posterior(squares)
    firsts: list[np.ndarray | None] = [None] * len(views)
    if twice:
        poses = [_pose(inside, networks.config.fill) for inside in networks.coarse_masks(thetas)]
        firsts = [None if pose is None else theta for pose, theta in zip(poses, thetas, strict=True)]
    again = [i for i, pose in enumerate(poses) if tta or pose is not None]
    if again:
        thetas, sds, features = thetas.copy(), sds.copy(), features.copy()
        seen = np.stack([_seen(networks, views[i], poses[i]) for i in again])
        thetas[again], sds[again], last = networks.posterior(seen, tta=tta)
        features[again] = (features[again] + last) / 2 if first or twice else last
    return [Position(*row) for row in zip(thetas, sds, features, poses, firsts, strict=True)]


def encode(networks: "Networks", view: View) -> LatentCode:
    """The latent code of an image, whose object is looked at twice."""
    batch = view.square[None]
    if networks.model.warp is None:
        (z,), (theta,) = networks.encode(batch)
        return LatentCode(z=z, theta=theta, pose=None, size=view.size)
    [first] = networks.examine(batch, style=True)
    assert first.z is not None
    [position] = locate(networks, [view], first=[first])
    code = LatentCode(z=first.z, theta=position.theta, pose=position.pose, size=view.size)
    code = code if code.pose is None else networks.restyled(view.square, code)
    return code if networks.style_dim == len(code.z) else _textured(networks, code, view.scan)


def evidence_of(
    networks: "Networks", position: Position, rings: Sequence[np.ndarray], size: tuple[int, int]
) -> Evidence:
    """The evidence of a result with the outline `rings` in an image of `size` (h, w)."""
    gaps = None
    if position.first is not None and rings:
        ring = max(rings, key=len)
        points = ring[np.linspace(0, len(ring), POINTS, endpoint=False).astype(int)]
        gaps = np.log(networks.radii(position.first, points * 2 / size[::-1] - 1).clip(0.05, 20))
    area = abs(sum(map(signed_area, rings))) / (size[0] * size[1])
    looks = [np.nan, np.nan] if gaps is None else [np.sqrt(np.square(gaps).mean()), abs(gaps.mean())]
    first = [*np.log(np.array(looks) + SMALLEST_GAP), np.log(area + SMALLEST_SHARE), float(gaps is None)]
    inputs = np.concatenate([first, position.features]).astype(np.float64)
    return Evidence(np.nan if gaps is None else float(gaps.mean()), inputs)


def certainty_of(
    networks: "Networks", position: Position, rings: Sequence[np.ndarray], size: tuple[int, int]
) -> Certainty | None:
    """How certain a result is; None for a model without an error model."""
    model = networks.error_model
    return None if model is None else model.assess(evidence_of(networks, position, rings, size))


def _textured(networks: "Networks", code: LatentCode, scan: Scan) -> LatentCode:
    """The latent code of a scan with its texture code at the end of z."""
    from .texturing import with_texture  # with the cDDPM: segmentation needs neither

    square = to_square(scan.pixels, networks.side, networks.config.channels, window=scan.window)
    image, x_hat = (networks.image(each) for each in (square[None], networks.decode([code])))
    x_hat = x_hat.masked_fill(networks.refiner.frame_of(image), -1)
    longer = with_texture(networks.model, networks.refiner.network, image, x_hat, networks.latents([code]))
    return replace(code, z=longer.z[0].cpu().numpy())


def _pose(inside: np.ndarray, fill: float) -> np.ndarray | None:
    """The map (2, 3) from an image to the crop about a mask (n, n); None if the crop would be the image."""
    rows, columns = (np.flatnonzero(inside.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    low, high = (np.array([columns[i], rows[i]]) * 2 / len(inside) - 1 for i in (0, -1))
    high += 2 / len(inside)
    side = max(float((high - low).max()) / 2 / fill, SMALLEST)
    if side >= 1:
        return None
    centre = np.clip((low + high) / 2, side - 1, 1 - side)
    return np.column_stack([np.eye(2) / side, -centre / side])


def _seen(networks: "Networks", view: View, pose: np.ndarray | None) -> np.ndarray:
    """The network's input (C, S, S): the whole image, or the crop that a pose maps to the whole frame."""
    if pose is None:
        return view.square
    height, width = view.scan.pixels.shape[:2]
    low, high = ((corner - pose[:, 2]) / np.diag(pose) for corner in (-1, 1))
    left, top = ((low + 1) / 2 * [width, height]).clip(0)
    right, bottom = ((high + 1) / 2 * [width, height]).clip(max=[width, height])
    return networks.prepare(view.scan, box=(left, top, right, bottom))


def _reduced(scan: Scan, side: int) -> Scan:
    """The scan with 8-bit images of more than `side` pixels a side resized to it."""
    height, width = scan.pixels.shape[:2]
    if scan.bits != 8 or max(height, width) <= side:
        return scan
    share = side / max(height, width)
    size = (max(1, round(width * share)), max(1, round(height * share)))
    return replace(scan, pixels=resized(scan.pixels, size))
