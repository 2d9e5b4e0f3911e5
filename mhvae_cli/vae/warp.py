"""Section 3.2, appendices B and C: deformations of the reference disc, linear in the position code theta.

Convention. Points are xy; an image spans [-1, 1] edge to edge, y down; pixel i of N is centred at
(2i + 1) / N - 1 (`align_corners=False`). A warp D maps TARGET points (in the image) to SOURCE points (in the
reference), so to rotate an object by +45 degrees, D is composed with the INVERSE rotation. Both families are
linear in their parameters: D(p) = basis(p) @ (identity + offset)^T, offset = loc + modes @ theta.
"""

from functools import lru_cache
from threading import Lock

import numpy as np
import torch
from torch import Tensor, nn

from ..config import WarpConfig

RADIUS = 0.5
"""Radius of the reference disc R in [-1, 1] units: a quarter of the image's height (section 5.1)."""

_CACHE = Lock()
"""Guards the cached bases of all warps: the threads of a run share one model."""

MIN_MODE = 0.03
"""Least standard deviation of a mode of theta, in reference units."""


def pixel_centres(size: tuple[int, int]) -> np.ndarray:
    """(h * w, 2) float64 xy of the pixel centres of an image of `size` (h, w), row by row."""
    h, w = size
    ys, xs = (2 * np.arange(h) + 1) / h - 1, (2 * np.arange(w) + 1) / w - 1
    return np.stack([np.tile(xs, h), np.repeat(ys, w)], axis=1)


def control_points(layout: str) -> np.ndarray:
    """Appendix C, (K, 2). `circular`: 20 on a ring of radius 0.6, near any object's rim; `uniform`: 5 x 5."""
    if layout == "uniform":
        ticks = np.linspace(-1, 1, 5)
        return np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    angles = 2 * np.pi * np.arange(20) / 20
    return 0.6 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def kernel(r2: np.ndarray) -> np.ndarray:
    """U(r) = r^2 log r^2 of squared distances `r2`, any shape, U(0) = 0 (equation 12).

    Tiny negative squares, which rounding can give, are taken for 0.
    """
    u = torch.from_numpy(np.maximum(r2, np.finfo(r2.dtype).tiny))  # 0 times the logarithm of 0 would be NaN
    # torch's logarithm is vectorised on every processor, NumPy's of float64 with AVX-512 only.
    values: np.ndarray = torch.log(u).mul_(u).numpy()
    return values


class Warp(nn.Module):
    """A family of deformations. `theta` is (B, 2 M) standard normal a priori: M numbers for x', M for y'.

    Affine (equation 11): basis [x, y, 1], M = 3. Thin-plate spline (equations 12 and 21-23): the M = K
    parameters of an axis are the sources of the K fixed control points. theta = 0 with loc = 0 is the
    undeformed reference. `set_statistics` fits loc and modes to warps of the training masks: theta's entries
    are then their principal modes of variation, largest first. With a separate scale for each parameter,
    neighbouring control points would move apart as freely as whole objects move, and draws from N(0, I) would
    be crumpled.
    """

    loc: Tensor
    modes: Tensor
    identity: Tensor

    def __init__(self, config: WarpConfig) -> None:
        super().__init__()
        self.config = config
        if config.family == "affine":
            self.points = None
            self._distances = None
            self._coefficients, self._to_affine = np.eye(3), np.eye(3)
            identity = np.array([[1.0, 0, 0], [0, 1.0, 0]])
        else:
            self.points = control_points(config.points)
            # |p - q|^2 of all points p and control points q is a product with the rows 1, x, y and |p|^2.
            squares = (self.points**2).sum(1)
            self._distances = np.column_stack([squares, -2 * self.points, np.ones_like(squares)])
            self._coefficients = _tps_coefficients(self.points)
            self._to_affine = np.linalg.pinv(np.column_stack([self.points, np.ones(len(self.points))])).T
            identity = self.points.T
        self._identity = identity
        self.parameters_per_axis: int = identity.shape[1]
        self.register_buffer("identity", torch.tensor(identity, dtype=torch.float32), persistent=False)
        self.register_buffer("loc", torch.zeros(2, self.parameters_per_axis))
        self.register_buffer("modes", torch.tensor(np.eye(self.theta_dim), dtype=torch.float32))
        self._bases: dict[tuple[tuple[int, int], torch.device, torch.dtype], Tensor] = {}

    @property
    def theta_dim(self) -> int:
        """Length P of theta: 6 for affine, 2 K for the spline."""
        return 2 * self.parameters_per_axis

    def basis(self, points: np.ndarray) -> np.ndarray:
        """(N, M) float64 rows that turn parameters into source points, at `points` (N, 2) in [-1, 1]."""
        return self._combine(points, self._coefficients)

    def sources(self, points: np.ndarray, parameters: np.ndarray) -> np.ndarray:
        """Source points (N, 2) float64 of one sample's `parameters` (2, M): no basis is made."""
        c = self._coefficients @ parameters.T
        # In pieces whose (K, 1536) distances fit into the processor's cache, and for which torch's kernels
        # start no threads: they are called from many at once.
        pieces = (points[i : i + 1536] for i in range(0, max(1, len(points)), 1536))
        return np.concatenate([self._combine(piece, c).T for piece in pieces], axis=1).T

    def _combine(self, points: np.ndarray, c: np.ndarray) -> np.ndarray:
        """Rows [x, y, 1] @ c, or [U(|p - p_k|), 1, x, y] @ c, at points (N, 2); in memory, columns."""
        if self._distances is None:
            affine: np.ndarray = c[:2].T @ points.T + c[2][:, None]
            return affine.T
        k, rows = len(self._distances), np.ones((4, len(points)))
        rows[1:3] = points.T
        np.einsum("in,in->n", rows[1:3], rows[1:3], out=rows[3])
        columns: np.ndarray = c[:k].T @ kernel(self._distances @ rows) + c[k:].T @ rows[:3]
        return columns.T

    def parameters_of(self, theta: Tensor) -> Tensor:
        """theta (B, P) -> (B, 2, M): the affine matrix, or the x' and y' of the control points' sources."""
        parameters: Tensor = self.identity + self.loc + _product(theta, self.modes.T).unflatten(1, (2, -1))
        return parameters

    def theta_of(self, parameters: Tensor) -> Tensor:
        """The inverse of `parameters_of`: (B, 2, M) -> theta (B, P)."""
        theta: Tensor = torch.linalg.solve(self.modes, (parameters - self.identity - self.loc).flatten(1).T).T
        return theta

    def affine_part(self, parameters: Tensor) -> Tensor:
        """The affines (B, 2, 3) nearest to warps of `parameters` (B, 2, M), at the control points."""
        nearest: Tensor = parameters @ torch.from_numpy(self._to_affine).to(parameters)
        return nearest

    def forward(self, theta: Tensor, size: tuple[int, int], pose: Tensor | None = None) -> Tensor:
        """Source points of the pixel centres: theta (B, P) -> (B, 2, h, w), x' then y'.

        `pose` (B, 2, 3) is applied to target points before the warp: D(pose(p)), exact for both families.
        """
        parameters = self.parameters_of(theta)
        if pose is not None:
            return self._posed(parameters, size, pose)
        # (2B, M) @ (M, N): this order is 19 x faster than a batched product with 2 as the last dimension.
        basis = self._cached_basis(size, parameters.device, parameters.dtype)
        out: Tensor = _product(parameters.flatten(0, 1), basis).unflatten(0, (-1, 2)).unflatten(2, size)
        return out

    def grid(self, theta: Tensor, size: tuple[int, int], pose: Tensor | None = None) -> Tensor:
        """The same as (B, h, w, 2), the layout of `F.grid_sample`."""
        points: Tensor = self(theta, size, pose).permute(0, 2, 3, 1)
        return points

    def materialise(self) -> None:
        """Create the buffers that are not in checkpoints, for a module built on the meta device."""
        self.identity = torch.tensor(self._identity, dtype=torch.float32, device="cpu")

    def set_statistics(self, offsets: Tensor) -> None:
        """Fit `loc` and `modes` to `offsets` (N, 2, M) of warps fitted to training masks (`fitting.fit`)."""
        flat = offsets.double().flatten(1)  # float64: the smallest eigenvalues are far below the largest
        values, vectors = torch.linalg.eigh(torch.cov(flat.T, correction=0))
        # Directions that hardly vary in the training set must stay reachable, hence the floor. eigh sorts in
        # ascending order: flipped, the largest mode comes first.
        modes = (vectors * values.clamp_min(MIN_MODE**2).sqrt()).flip(1)
        self.loc.copy_(flat.mean(0).view_as(self.loc))
        self.modes.copy_(modes)

    def at(self, theta: Tensor, points: np.ndarray) -> Tensor:
        """Source points (B, 2, N) of each sample's own target points (B, N, 2)."""
        return self._sources(self.parameters_of(theta), points)

    def _sources(self, parameters: Tensor, points: np.ndarray) -> Tensor:
        bases = np.stack([self.basis(p).T for p in points.astype(np.float64)])
        return _product(parameters, torch.from_numpy(bases).to(parameters))

    def _posed(self, parameters: Tensor, size: tuple[int, int], pose: Tensor) -> Tensor:
        points = pixel_centres(size)
        moved = [points @ a[:, :2].T + a[:, 2] for a in pose.detach().double().cpu().numpy()]
        sources: Tensor = self._sources(parameters, np.stack(moved)).unflatten(2, size)
        return sources

    def _cached_basis(self, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> Tensor:
        key = (size, device, dtype)
        # Threads share the cache. Not in inference mode, whose tensors could not be used in training later.
        with _CACHE, torch.inference_mode(False):
            if key not in self._bases:
                if len(self._bases) >= 8:
                    self._bases.pop(next(iter(self._bases)))
                basis = self.basis(pixel_centres(size)).T.copy()
                self._bases[key] = torch.from_numpy(basis).to(device=device, dtype=dtype)
            return self._bases[key]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A product at full precision even under autocast, where bfloat16 would be off by up to a pixel."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b


@lru_cache(maxsize=4)
def _inverse(key: bytes) -> np.ndarray:
    """The inverse (K + 3, K + 3) of the spline's linear system; `key`: the control points' float64 bytes."""
    points = np.frombuffer(key).reshape(-1, 2)
    k = len(points)
    system = np.zeros((k + 3, k + 3))
    system[:k, :k] = kernel(((points[:, None] - points[None]) ** 2).sum(-1))
    system[:k, k] = system[k, :k] = 1
    system[:k, k + 1 :] = points
    system[k + 1 :, :k] = points.T
    return np.linalg.inv(system)


def _tps_coefficients(points: np.ndarray) -> np.ndarray:
    """(K + 3, K): maps the K sources to the K + 3 coefficients (equation 23, whose vector has K + 3 entries).

    The right-hand side ends in three zeros, the side conditions, so only the inverse's first K columns count.
    """
    return _inverse(np.ascontiguousarray(points, dtype=np.float64).tobytes())[:, : len(points)]
