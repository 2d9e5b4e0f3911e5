"""Appendix G: the density that new latent codes are drawn from."""

from dataclasses import dataclass

import numpy as np

from ..errors import UsageError

MIN_SD = 1e-6
"""Least standard deviation of an entry of the latent code (the prior's is 1): unused entries hardly vary."""


@dataclass(frozen=True)
class Density:
    """Appendix G: the density that new latent codes [z, theta] are drawn from, a Gaussian of full covariance.

    mean float64 (D,); factor float64 (D, D), the covariance's lower Cholesky factor; D = z_dim + theta_dim.
    Deliberately a Gaussian and not a kernel density: it contains no patient's latent code.
    """

    mean: np.ndarray
    factor: np.ndarray
    z_dim: int

    @classmethod
    def prior(cls, z_dim: int, theta_dim: int) -> "Density":
        """N(0, I), which training pulls the latent codes towards (section 3.4) without fully reaching it."""
        return cls(np.zeros(z_dim + theta_dim), np.eye(z_dim + theta_dim), z_dim)

    @classmethod
    def fit(cls, z: np.ndarray, theta: np.ndarray) -> "Density":
        """The aggregate posterior of training codes z (N, Z) and theta (N, P); N >= 2, also below D.

        Means and standard deviations are the sample's; the correlations are shrunk towards zero by the
        intensity that minimises their expected squared error (Schaefer and Strimmer, 2005), which vanishes
        for large N. Raises UsageError if N < 2.
        """
        codes = np.concatenate([z, theta], axis=1, dtype=np.float64)
        if len(codes) < 2:
            raise UsageError("a density of latent codes needs at least two images")
        mean = codes.mean(0)
        sd = np.maximum(codes.std(0, ddof=1), MIN_SD)
        factor = sd[:, None] * np.linalg.cholesky(_correlations((codes - mean) / sd))
        return cls(mean, factor, z.shape[1])

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One latent code: z float32 (Z,) and theta float32 (P,)."""
        code = self.mean + self.factor @ rng.standard_normal(len(self.mean))
        return code[: self.z_dim].astype(np.float32), code[self.z_dim :].astype(np.float32)


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
