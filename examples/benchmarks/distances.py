"""How far two sets of images lie apart by their features: a part of fidelity.py.

KID        kernel inception distance (Binkowski et al. 2018): the squared maximum mean discrepancy under the
           kernel (x.y / d + 1)^3, unbiased: 0 on average for two sets of one distribution, so it may be
           negative.
precision  the share of generated images within the real images' manifold: nearer to a real image than its
           fifth nearest real neighbour is; recall is the same with the roles exchanged (Kynkaanniemi et al.
           2019).
FID        Frechet inception distance (Heusel et al. 2017): the squared 2-Wasserstein distance of two normal
           distributions with the sets' means and covariances. It is biased: the fewer images, the larger,
           by about the same for any two sets of one size. Compare it with that of real images alone.
accuracy   leave-one-out accuracy of a nearest-neighbour classifier that tells the two sets apart (Lopez-Paz
           and Oquab 2017): 0.5 where it cannot, 1 where it always can. The mean over the two sets.
"""

import numpy as np

NEIGHBOURS = 5
REPEATS = 2000


def kid(x: np.ndarray, y: np.ndarray) -> float:
    """KID of features (N, D) and (M, D), N and M at least 2."""
    ones = np.ones((1, len(x))), np.ones((1, len(y)))
    return float(_discrepancy(*_kernels(x, y), *ones)[0])


def kid_interval(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The 95 % interval of `kid`: the percentiles over bootstrap samples of both sets.

    Pairs of copies of one image do not count, as they would bias the estimate.
    """
    counts = [rng.multinomial(len(each), np.full(len(each), 1 / len(each)), REPEATS) for each in (x, y)]
    low, high = np.percentile(_discrepancy(*_kernels(x, y), *(c.astype(float) for c in counts)), (2.5, 97.5))
    return float(low), float(high)


def fid(x: np.ndarray, y: np.ndarray) -> float:
    """FID of features (N, D) and (M, D), N and M at least 2."""
    centred = [(each - each.mean(0)) / np.sqrt(len(each) - 1) for each in (x, y)]
    # x'x and y'y are the covariances, and the trace of the root of their product is the sum of the singular
    # values of x y', or of what is left of it without rotations: no root of a singular matrix.
    first, second = (np.linalg.qr(each, mode="r") for each in centred)
    shared = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    apart = np.square(x.mean(0) - y.mean(0)).sum()
    return float(apart + sum(np.square(each).sum() for each in centred) - 2 * shared)


def precision_recall(real: np.ndarray, made: np.ndarray, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Precision and recall of generated features (M, D) for real ones (N, D), N and M greater than `k`."""
    across = _distances(real, made)
    precision = (across <= _radii(real, k)[:, None]).any(0).mean()
    recall = (across <= _radii(made, k)).any(1).mean()
    return float(precision), float(recall)


def two_sample_accuracy(x: np.ndarray, y: np.ndarray) -> float:
    """How often the nearest neighbour of an image of features (N, D) and (M, D) is of its own set."""
    both = np.concatenate([x, y])
    label = np.arange(len(both)) < len(x)
    distances = _distances(both, both)
    np.fill_diagonal(distances, np.inf)
    right = label[distances.argmin(1)] == label
    return float((right[label].mean() + right[~label].mean()) / 2)


def _kernels(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kernel's values in each set, without its diagonal, and between the two."""
    within = [_kernel(each, each) for each in (x, y)]
    for values in within:
        np.fill_diagonal(values, 0)
    return within[0], within[1], _kernel(x, y)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    values: np.ndarray = (x @ y.T / x.shape[1] + 1) ** 3
    return values


def _discrepancy(xx: np.ndarray, yy: np.ndarray, xy: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The unbiased estimate (R,) for images that count `u` (R, N) and `v` (R, M) times."""
    own = [
        np.einsum("ri,ij,rj->r", w, values, w, optimize=True) / (w.sum(1) ** 2 - (w**2).sum(1))
        for w, values in ((u, xx), (v, yy))
    ]
    between = np.einsum("ri,ij,rj->r", u, xy, v, optimize=True) / (u.sum(1) * v.sum(1))
    found: np.ndarray = own[0] + own[1] - 2 * between
    return found


def _radii(x: np.ndarray, k: int) -> np.ndarray:
    """The distance (N,) of each point of (N, D) to its k-th nearest other one."""
    distances = _distances(x, x)
    np.fill_diagonal(distances, np.inf)
    radii: np.ndarray = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances (N, M)."""
    squares = [(each**2).sum(1) for each in (x, y)]
    distances: np.ndarray = np.maximum(squares[0][:, None] + squares[1] - 2 * x @ y.T, 0)
    return distances
