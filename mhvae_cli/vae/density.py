"""Appendix G: the density that new codes are drawn from."""

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError

MIN_SD = 1e-6
"""The least standard deviation of a code's entry, of which the prior's is 1: unused entries hardly vary."""


@dataclass(frozen=True)
class Density:
    """Appendix G: the density that new codes [z, theta] are drawn from, a Gaussian of full covariance.

    mean float64 (D,); factor float64 (D, D), the covariance's lower Cholesky factor; D = z_dim + theta_dim.
    A Gaussian and not a kernel density on purpose: it holds no patient's code.
    """

    mean: np.ndarray
    factor: np.ndarray
    z_dim: int

    @classmethod
    def prior(cls, z_dim: int, theta_dim: int) -> "Density":
        """N(0, I), which training pulls the codes towards (section 3.4) and never quite reaches."""
        return cls(np.zeros(z_dim + theta_dim), np.eye(z_dim + theta_dim), z_dim)

    @classmethod
    def fit(cls, z: np.ndarray, theta: np.ndarray) -> "Density":
        """The aggregate posterior of training codes z (N, Z) and theta (N, P); N >= 2, also below D.

        Means and standard deviations are the codes' own; the correlations shrink towards none by the share
        that minimises their expected squared error (Schaefer and Strimmer, 2005), which many codes make nil.
        """
        codes = np.concatenate([z, theta], axis=1, dtype=np.float64)
        if len(codes) < 2:
            raise UsageError("a density of codes needs two images at least")
        mean = codes.mean(0)
        sd = np.maximum(codes.std(0, ddof=1), MIN_SD)
        factor = sd[:, None] * np.linalg.cholesky(_correlations((codes - mean) / sd))
        return cls(mean, factor, z.shape[1])

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One code: z float32 (Z,) and theta float32 (P,)."""
        code = self.mean + self.factor @ rng.standard_normal(len(self.mean))
        return code[: self.z_dim].astype(np.float32), code[self.z_dim :].astype(np.float32)


def _correlations(x: np.ndarray) -> np.ndarray:
    """The shrunk correlations (D, D), positive definite, of standardised x (N, D)."""
    n = len(x)
    products = x.T @ x / n
    noise = n / (n - 1) ** 3 * ((x**2).T @ x**2 - n * products**2)
    found = products * n / (n - 1)
    np.fill_diagonal(noise, 0.0)
    np.fill_diagonal(found, 0.0)
    signal = (found**2).sum()
    share = np.clip(noise.sum() / signal, 1e-6, 1.0) if signal > 0 else 1.0
    mixed: np.ndarray = (1 - share) * found + np.eye(x.shape[1])
    return mixed
