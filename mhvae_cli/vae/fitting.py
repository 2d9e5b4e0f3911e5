"""What is fitted, not trained: before training, warps to masks, to centre and scale theta
(`Warp.set_statistics`), and the linear part of the style code to the layers of images; after it, how much of
that part holds for new images."""

import numpy as np
import torch
from scipy import fft, ndimage
from torch import Tensor, nn

from .model import MultiHeadedVAE
from .warp import RADIUS, Warp

FIT_POINTS = 96
"""The number of boundary points that describe a mask."""

START_LOGVAR = -5.0
"""The log-variance of z's components when training begins: little noise, so that they are used."""

RIDGE = {"circular": 1e-4, "uniform": 1e-3}
"""How strongly a layout's points are kept where the affine puts them: few uniform ones affect the rim."""


def rim(mask: np.ndarray, *, count: int = FIT_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """`count` points on the boundary of a mask (H, W), in [-1, 1] xy, sorted by angle about its centroid.

    Returns points (count, 2) and weights (count,), 0 where the mask is cut off by the image's border.
    """
    h, w = mask.shape
    edge = mask & ~ndimage.binary_erosion(mask, border_value=0)
    ys, xs = np.nonzero(edge)
    cy, cx = (axis.mean() for axis in np.nonzero(mask))
    order = np.argsort(np.arctan2(ys - cy, xs - cx), kind="stable")
    picks = order[np.linspace(0, len(order), count, endpoint=False).astype(int)]
    ys, xs = ys[picks], xs[picks]
    points = np.stack([(2 * xs + 1) / w - 1, (2 * ys + 1) / h - 1], axis=1)
    cut = (xs < 1) | (ys < 1) | (xs > w - 2) | (ys > h - 2)
    # The boundary is half a pixel outside the outermost pixels' centres.
    outward = points - [(2 * cx + 1) / w - 1, (2 * cy + 1) / h - 1]
    points += outward / np.linalg.norm(outward, axis=1, keepdims=True).clip(1e-9) * [1 / w, 1 / h]
    return points, (~cut).astype(np.float64)


def affine_of(mask: np.ndarray) -> np.ndarray:
    """The symmetric affine (2, 3), target to source, that maps the mask's second moments to the disc's.

    Exact for an ellipse. A rotation of the disc changes nothing, hence the symmetric choice.
    """
    h, w = mask.shape
    ys, xs = np.nonzero(mask)
    points = np.stack([(2 * xs + 1) / w - 1, (2 * ys + 1) / h - 1])
    mean = points.mean(1)
    spread = np.cov(points, bias=True).reshape(2, 2) + np.diag([1 / (3 * w * w), 1 / (3 * h * h)])
    values, vectors = np.linalg.eigh(spread)
    root = (vectors / np.sqrt(values)) @ vectors.T * (RADIUS / 2)
    return np.concatenate([root, -(root @ mean)[:, None]], axis=1)


def fit(warp: Warp, mask: np.ndarray, *, rounds: int = 5) -> np.ndarray:
    """Offsets (2, M) float64 from the identity, of the warp that maps `mask` (H, W) to the disc.

    The affine from the mask's moments; for the spline, refined by ridge least squares so that the boundary
    points fall on the disc's rim, each at the angle where it already is.
    """
    affine = affine_of(mask)
    identity = warp.identity.double().cpu().numpy()
    if warp.points is None:
        straight: np.ndarray = affine - identity
        return straight
    start = warp.points @ affine[:, :2].T + affine[:, 2]
    points, weight = rim(mask)
    if weight.sum() < FIT_POINTS / 4:
        unbent: np.ndarray = start.T - identity
        return unbent
    basis = warp.basis(points[weight > 0])
    normal = basis.T @ basis / len(basis) + RIDGE[warp.config.points] * np.eye(len(start))
    sources = start
    for _ in range(rounds):
        landed = basis @ sources
        goal = RADIUS * landed / np.linalg.norm(landed, axis=1, keepdims=True).clip(1e-9)
        sources = start + np.linalg.solve(normal, basis.T @ (goal - basis @ start) / len(basis))
    offset: np.ndarray = sources.T - identity
    return offset


@torch.no_grad()
def fit_tones(model: MultiHeadedVAE, layers: Tensor) -> None:
    """Set the style head and the image head's tones to a principal component analysis of `layers`.

    `layers` (N, 2, C, t, t) float are those of training images (`MultiHeadedVAE.layers`). Afterwards z
    contains the largest components, in standard deviations, and x_hat is their reconstruction alone. Training
    would take far longer to find this: the pixels of a layer are nearly collinear.
    """
    style, tones = model.encoder.z, model.image_head.tones
    assert isinstance(style, nn.Linear) and tones is not None
    flat = layers.double().flatten(1)
    mean = flat.mean(0)
    _, values, vectors = torch.linalg.svd(flat - mean, full_matrices=False)
    z_dim = model.config.z_dim
    count = min(z_dim, int((values > 1e-6 * values[0]).sum()))
    spread, basis = values[:count] / len(flat) ** 0.5, vectors[:count]
    for parameter in (*style.parameters(), *tones.parameters(), *model.image_head.last.parameters()):
        parameter.zero_()
    forward = basis / spread[:, None]
    style.weight[:count] = forward.float()
    style.bias[:count] = (-forward @ mean).float()
    style.bias[z_dim:] = START_LOGVAR
    tones.weight[:, :count] = (basis * spread[:, None]).T.float()
    tones.bias.copy_(mean)


@torch.no_grad()
def shrink_tones(model: MultiHeadedVAE, z: Tensor, layers: Tensor) -> None:
    """Take out of the image head's tones what does not hold for new images: a Wiener filter.

    z (N, Z) and layers (N, 2, C, t, t) float are those of images that were not trained on. What the tones
    add to their mean is multiplied, in each half octave of spatial frequency of each layer's lightness and
    colours, by the gain in [0, 1] of the least squared error. The directions of thousands of pixels are
    learnt from some hundred images: in fine colours, nearly all that they say of a new one is noise.
    """
    tones = model.image_head.tones
    assert tones is not None
    shape, axes = model.image_head.layers_shape, (-3, -2, -1)

    def transformed(flat: Tensor) -> np.ndarray:
        found: np.ndarray = fft.dctn(flat.double().numpy().reshape(-1, *shape), axes=axes, norm="ortho")
        return found

    centre = z.mean(0)
    told, weights = transformed((z - centre) @ tones.weight.T), transformed(tones.weight.T)
    lacked = transformed(layers.flatten(1) - tones(centre))
    ticks = np.arange(shape[-1])
    bands = np.rint(2 * np.log2(1 + np.hypot(ticks[:, None], ticks))).astype(int)
    gains = np.ones(shape)
    for part in np.ndindex(shape[:2]):
        for band in range(bands.max() + 1):
            here = (slice(None), *part, bands == band)
            power = np.square(told[here]).sum()
            gain = (told[here] * lacked[here]).sum() / max(power, 1e-12)
            gains[(*part, bands == band)] = np.clip(gain, 0, 1)
    kept = fft.idctn(gains * weights, axes=axes, norm="ortho").reshape(len(weights), -1)
    mean = tones(centre)
    tones.weight.copy_(torch.from_numpy(kept.T))
    tones.bias.copy_(mean - tones.weight @ centre)


def distance_map(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask (H, W) as a reference: float32 (size, size), the signed distance to its rim, positive inside.

    In [-1, 1] units, of the mask resized to a square.
    """
    h, w = mask.shape
    rows, columns = (np.arange(size) * h // size, np.arange(size) * w // size)
    square = np.pad(mask[np.ix_(rows, columns)], 1)
    inside, outside = ndimage.distance_transform_edt(square), ndimage.distance_transform_edt(~square)
    pixels = np.where(square, inside - 0.5, 0.5 - outside)[1:-1, 1:-1]
    distances: np.ndarray = (pixels * 2 / size).astype(np.float32)
    return distances
