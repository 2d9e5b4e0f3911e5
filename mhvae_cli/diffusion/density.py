"""Appendix G: the density that new latent codes are drawn from."""

from dataclasses import dataclass

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
    heads would fill the image, and a few images are far more unusual in z than all others.
    Deliberately no kernel density: it contains no patient's latent code.
    cut: the `cut_share` above which an object is not like those of the training images, 1 for any.
    """

    marginals: np.ndarray
    factor: np.ndarray
    z_dim: int
    cut: float = 1.0

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
    def fit(cls, z: np.ndarray, theta: np.ndarray, *, cut: float = 1.0) -> "Density":
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
        return cls(np.quantile(codes, ndtr(KNOTS), axis=0, method="hazen"), factor, z.shape[1], cut)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One latent code: z float32 (Z,) and theta float32 (P,)."""
        scores = self.factor @ rng.standard_normal(len(self.factor))
        step = KNOTS[1] - KNOTS[0]
        low = ((scores - KNOTS[0]) // step).clip(0, len(KNOTS) - 2).astype(int)
        entries = np.arange(len(scores))
        below, above = self.marginals[low, entries], self.marginals[low + 1, entries]
        code = below + (scores - KNOTS[low]) / step * (above - below)
        return code[: self.z_dim].astype(np.float32), code[self.z_dim :].astype(np.float32)


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
