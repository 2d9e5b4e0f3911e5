"""Appendix G: the density that new latent codes are drawn from."""

from dataclasses import dataclass
from math import erf
from statistics import NormalDist

import numpy as np

from ..errors import UsageError

KNOTS = np.linspace(-2.6, 2.6, 33)
"""The normal scores at which the distribution of each entry of the latent code is stored."""
CUT_SIDE = 64
"""The side of the square on which `cut_share` is measured."""


@dataclass(frozen=True)
class Density:
    """Appendix G: the density that new latent codes [z, theta] are drawn from, a Gaussian copula.

    marginals float64 (len(KNOTS), D): the values of each entry at KNOTS, linear between and beyond; factor
    float64 (D, D), the lower Cholesky factor of the correlations of the normal scores; D = z_dim + theta_dim.
    A plain Gaussian would do for neither part: an object's size is the inverse of the scale in theta, so that
    heads would fill the image, and a few images are far more unusual in z than all others. For z, a Gaussian
    copula would not do either: an image with one unusual entry has many, and others are even throughout. So
    the noise of z has a factor in common; its square is log-normal, and spread the sd of that logarithm.
    Deliberately no kernel density: it contains no patient's latent code.
    cut: the `cut_share` above which an object is not like those of the training images, 1 for any. found: the
    Dice below which the VAE finds an object in its own image x_hat worse than in those of training images, 0
    for any: entries that were drawn each for itself may leave an object that does not stand out.
    """

    marginals: np.ndarray
    factor: np.ndarray
    z_dim: int
    cut: float = 1.0
    spread: float = 0.0
    found: float = 0.0

    @classmethod
    def prior(cls, z_dim: int, theta_dim: int) -> "Density":
        """N(0, I), which training pulls the latent codes towards (section 3.4) without fully reaching it."""
        count = z_dim + theta_dim
        return cls.gaussian(np.zeros(count), np.eye(count), z_dim)

    @classmethod
    def gaussian(cls, mean: np.ndarray, factor: np.ndarray, z_dim: int) -> "Density":
        """The Gaussian of this mean (D,) and Cholesky factor (D, D) of its covariance."""
        sd = np.linalg.norm(factor, axis=1)
        return cls(mean + KNOTS[:, None] * sd, factor / sd[:, None], z_dim)

    @classmethod
    def fit(cls, z: np.ndarray, theta: np.ndarray, *, cut: float = 1.0, found: float = 0.0) -> "Density":
        """The aggregate posterior of training codes z (N, Z) and theta (N, P); N >= 2, also below D.

        The correlations of the normal scores are shrunk towards zero by the intensity that minimises their
        expected squared error (Schaefer and Strimmer, 2005), which vanishes for large N. Raises UsageError if
        N < 2.
        """
        codes = np.concatenate([z, theta], axis=1, dtype=np.float64)
        if len(codes) < 2:
            raise UsageError("a density of latent codes needs at least two images")
        from scipy.special import ndtr, ndtri  # only training needs it

        scores = ndtri((codes.argsort(axis=0, kind="stable").argsort(axis=0) + 0.5) / len(codes))
        factor = np.linalg.cholesky(_correlations(scores / scores.std(0, ddof=1)))
        marginals = np.quantile(codes, ndtr(KNOTS), axis=0, method="hazen")
        independent = np.linalg.solve(factor, scores.T).T[:, : z.shape[1]]
        return cls(marginals, factor, z.shape[1], cut, _spread_of(independent), found)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One latent code: z float32 (Z,) and theta float32 (P,)."""
        noise = rng.standard_normal(len(self.factor))
        if self.spread > 0:
            noise[: self.z_dim] = _scaled(noise[: self.z_dim], rng.standard_normal(), self.spread)
        scores = self.factor @ noise
        step = KNOTS[1] - KNOTS[0]
        low = ((scores - KNOTS[0]) // step).clip(0, len(KNOTS) - 2).astype(int)
        entries = np.arange(len(scores))
        below, above = self.marginals[low, entries], self.marginals[low + 1, entries]
        code = below + (scores - KNOTS[low]) / step * (above - below)
        return code[: self.z_dim].astype(np.float32), code[self.z_dim :].astype(np.float32)


def _spread_of(x: np.ndarray) -> float:
    """The `Density.spread` with which `_scaled` noise varies by row as x (N, D) does; 0 for few rows."""
    if len(x) < 20 or x.shape[1] < 4:
        return 0.0
    rng = np.random.default_rng(0)
    noise, common = rng.standard_normal((2000, 32)), rng.standard_normal((2000, 1))
    wanted = _common_spread(x)
    spread = wanted
    for _ in range(4):  # mapping each entry to be normal takes some of it away
        if (found := _common_spread(_scaled(noise, common, spread))) > 0:
            spread = min(2.0, spread * wanted / found)
    return spread


def _common_spread(x: np.ndarray) -> float:
    """The sd over rows of x (N, D) of the logarithm of the squared factor that their entries have in common.

    From how far the mean squares of two halves of the entries vary together, of which chance has no part.
    """
    halves = [np.log(np.square(x[:, start::2]).mean(1)) for start in (0, 1)]
    return float(np.sqrt(max(0.0, np.cov(*halves)[0, 1])))


def _scaled(noise: np.ndarray, common: float | np.ndarray, spread: float) -> np.ndarray:
    """Normal noise (..., D) times exp(spread / 2 * common), each entry mapped so that it is normal again.

    The distribution of an entry over all factors is a sum over the nodes of a Gauss-Hermite rule.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(11)
    wide = (noise * np.exp(spread / 2 * common))[..., None] / np.exp(spread / 2 * nodes)
    share = np.vectorize(erf)(wide / np.sqrt(2)) @ weights / weights.sum()
    found: np.ndarray = np.vectorize(NormalDist().inv_cdf)(((1 + share) / 2).clip(1e-9, 1 - 1e-9))
    return found


def cut_share(mask: np.ndarray) -> float:
    """How far the edge of a square cuts an object, 0 for not at all, by its mask bool (CUT_SIDE, CUT_SIDE).

    The length of the mask on the edge, as a part of the circumference of a disc of its area, at most 1. A
    density of each entry of theta, and of how two are correlated, does not know it: large heads lie in the
    middle.
    """
    on_edge = mask[0].sum() + mask[-1].sum() + mask[:, 0].sum() + mask[:, -1].sum()
    return float(min(1.0, on_edge / max(1.0, 2 * np.sqrt(np.pi * mask.sum()))))


def _correlations(x: np.ndarray) -> np.ndarray:
    """The shrunk correlations (D, D), positive definite, of standardised x (N, D)."""
    n = len(x)
    products = x.T @ x / n
    # `noise`: the estimated sampling variance of each correlation.
    noise = n / (n - 1) ** 3 * ((x**2).T @ x**2 - n * products**2)
    found = products * n / (n - 1)
    np.fill_diagonal(noise, 0.0)
    np.fill_diagonal(found, 0.0)
    signal = (found**2).sum()
    share = np.clip(noise.sum() / signal, 1e-6, 1.0) if signal > 0 else 1.0  # above 0: positive definite
    mixed: np.ndarray = (1 - share) * found + np.eye(x.shape[1])
    return mixed
