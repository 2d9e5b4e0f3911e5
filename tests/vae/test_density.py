"""The density of latent codes is the Gaussian of those it was fitted to, shrunk as published."""

import numpy as np
import pytest
from scipy import stats

from mhvae_cli.errors import UsageError
from mhvae_cli.vae.density import Density


def correlated(count: int, *, seed: int = 0) -> np.ndarray:
    """(count, 12) codes of unequal spread, the first ten of which vary in three ways together."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((3, 10))
    first = rng.standard_normal((count, 3)) @ mixing + 0.3 * rng.standard_normal((count, 10))
    return np.concatenate([first * np.linspace(0.1, 4, 10) + 2, rng.standard_normal((count, 2))], axis=1)


def covariance(density: Density) -> np.ndarray:
    return density.factor @ density.factor.T


def test_the_density_of_many_codes_is_their_gaussian() -> None:
    codes = correlated(20_000)
    density = Density.fit(codes[:, :5], codes[:, 5:])
    np.testing.assert_allclose(density.mean, codes.mean(0))
    sd = codes.std(0, ddof=1)
    assert (np.abs(covariance(density) - np.cov(codes.T)) / np.outer(sd, sd)).max() < 2e-3
    assert (np.triu(density.factor, 1) == 0).all()
    rng = np.random.default_rng(1)
    drawn = np.array([np.concatenate(density.draw(rng)) for _ in range(20_000)])
    assert (np.abs(drawn.mean(0) - codes.mean(0)) / sd).max() < 0.05
    assert (np.abs(np.cov(drawn.T) - np.cov(codes.T)) / np.outer(sd, sd)).max() < 0.05


def test_shrinkage_is_schaefers_and_strimmers() -> None:
    """Their equations for the correlations, entry by entry."""
    codes = correlated(8)
    n, d = codes.shape
    x = (codes - codes.mean(0)) / codes.std(0, ddof=1)
    r, noise = np.eye(d), np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            w = x[:, i] * x[:, j]
            if i != j:
                r[i, j] = n / (n - 1) * w.mean()
                noise[i, j] = n / (n - 1) ** 3 * ((w - w.mean()) ** 2).sum()
    share = noise.sum() / (r**2 - np.eye(d)).sum()
    assert 0.01 < share < 0.99
    truth = np.outer(codes.std(0, ddof=1), codes.std(0, ddof=1)) * ((1 - share) * r + share * np.eye(d))
    np.testing.assert_allclose(covariance(Density.fit(codes[:, :4], codes[:, 4:])), truth, rtol=1e-9)


def test_few_codes_foretell_others_better_than_no_correlations_do() -> None:
    few, others = correlated(9, seed=1), correlated(500, seed=2)
    density = Density.fit(few[:, :5], few[:, 5:])
    alone = np.diag(few.var(0, ddof=1))
    ours = stats.multivariate_normal(density.mean, covariance(density)).logpdf(others).mean()
    assert ours > stats.multivariate_normal(few.mean(0), alone).logpdf(others).mean() + 1


def test_unused_entries_and_copies_do_no_harm() -> None:
    z, theta = np.zeros((5, 3)), np.tile(np.arange(5.0)[:, None], (1, 4))
    for density in (Density.fit(z, theta), Density.fit(z[:2], z[:2, :2])):
        drawn_z, _ = density.draw(np.random.default_rng(0))
        assert np.isfinite(density.factor).all() and np.abs(drawn_z).max() < 1e-4
    with pytest.raises(UsageError, match="two images"):
        Density.fit(z[:1], theta[:1])


def test_a_draw_is_the_generators_and_parts_the_code() -> None:
    density = Density.prior(4, 7)
    z, theta = density.draw(np.random.default_rng(3))
    truth = np.random.default_rng(3).standard_normal(11)
    assert z.dtype == theta.dtype == np.float32 and z.shape == (4,)
    np.testing.assert_allclose(np.concatenate([z, theta]), truth, rtol=1e-6)
    assert density.draw(np.random.default_rng(3))[0].tolist() == z.tolist()
