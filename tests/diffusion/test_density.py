"""The density of latent codes has their marginals and their rank correlations, shrunk as published."""

import numpy as np
import pytest
from scipy import stats

from mhvae_cli.diffusion.density import CUT_SIDE, KNOTS, Density, cut_share
from mhvae_cli.errors import UsageError


def correlated(count: int, *, seed: int = 0) -> np.ndarray:
    """(count, 12) codes of unequal spread, the first ten of which vary in three ways together."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).standard_normal((3, 10))
    first = rng.standard_normal((count, 3)) @ mixing + 0.3 * rng.standard_normal((count, 10))
    return np.concatenate([first * np.linspace(0.1, 4, 10) + 2, rng.standard_normal((count, 2))], axis=1)


def draws(density: Density, count: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([np.concatenate(density.draw(rng)) for _ in range(count)])


def test_the_density_of_a_gaussians_codes_is_that_gaussian() -> None:
    codes = correlated(20_000)
    sd = codes.std(0, ddof=1)
    drawn = draws(Density.fit(codes[:, :5], codes[:, 5:]), 20_000)
    assert (np.abs(drawn.mean(0) - codes.mean(0)) / sd).max() < 0.05
    assert (np.abs(np.cov(drawn.T) - np.cov(codes.T)) / np.outer(sd, sd)).max() < 0.05


def test_codes_of_any_distribution_are_drawn_with_their_own_marginals_and_rank_correlations() -> None:
    """Of inverse scales, which are never near zero, and of entries in which a few images are far out."""
    common = np.random.default_rng(0).standard_normal((3000, 1))
    normal = 0.6 * common + 0.8 * np.random.default_rng(1).standard_normal((3000, 3))
    codes = np.column_stack(
        [0.5 + np.exp(normal[:, 0]), stats.t(3).ppf(stats.norm.cdf(normal[:, 1])), normal[:, 2]]
    )
    drawn = draws(Density.fit(codes[:, :2], codes[:, 2:]), 3000)
    for ours, true in zip(drawn.T, codes.T, strict=True):
        assert stats.ks_2samp(ours, true).pvalue > 0.01
    assert drawn[:, 0].min() > 0.45
    np.testing.assert_allclose(stats.spearmanr(drawn)[0], stats.spearmanr(codes)[0], atol=0.05)
    gaussian = np.random.default_rng(2).multivariate_normal(codes.mean(0), np.cov(codes.T), 3000)
    assert stats.ks_2samp(gaussian[:, 0], codes[:, 0]).pvalue < 1e-9 and gaussian[:, 0].min() < 0


def test_shrinkage_is_schaefers_and_strimmers() -> None:
    """Their equations for the correlations of the normal scores, entry by entry."""
    codes = correlated(8)
    n, d = codes.shape
    x = stats.norm.ppf((stats.rankdata(codes, axis=0) - 0.5) / n)
    x = x / x.std(0, ddof=1)
    r, noise = np.eye(d), np.zeros((d, d))
    for i in range(d):
        for j in range(d):
            w = x[:, i] * x[:, j]
            if i != j:
                r[i, j] = n / (n - 1) * w.mean()
                noise[i, j] = n / (n - 1) ** 3 * ((w - w.mean()) ** 2).sum()
    share = noise.sum() / (r**2 - np.eye(d)).sum()
    assert 0.01 < share < 0.99
    factor = Density.fit(codes[:, :4], codes[:, 4:]).factor
    assert (np.triu(factor, 1) == 0).all()
    np.testing.assert_allclose(factor @ factor.T, (1 - share) * r + share * np.eye(d), atol=1e-12)


def test_few_codes_foretell_others_better_than_no_correlations_do() -> None:
    few, others = correlated(9, seed=1), correlated(500, seed=2)
    factor = Density.fit(few[:, :5], few[:, 5:]).factor
    sd = few.std(0, ddof=1)
    ours = stats.multivariate_normal(few.mean(0), np.outer(sd, sd) * (factor @ factor.T)).logpdf(others)
    assert ours.mean() > stats.multivariate_normal(few.mean(0), np.diag(sd**2)).logpdf(others).mean() + 1


def test_unused_entries_and_copies_do_no_harm() -> None:
    z, theta = np.zeros((5, 3)), np.tile(np.arange(5.0)[:, None], (1, 4))
    for density in (Density.fit(z, theta), Density.fit(z[:2], z[:2, :2])):
        drawn_z, drawn_theta = density.draw(np.random.default_rng(0))
        assert np.isfinite(density.factor).all() and (drawn_z == 0).all() and np.isfinite(drawn_theta).all()
    with pytest.raises(UsageError, match="two images"):
        Density.fit(z[:1], theta[:1])


def test_a_gaussian_is_drawn_exactly_however_far_out() -> None:
    """Its draw is the generator's, and parts the code."""
    density = Density.prior(4, 7)
    z, theta = density.draw(np.random.default_rng(3))
    truth = np.random.default_rng(3).standard_normal(11)
    assert z.dtype == theta.dtype == np.float32 and z.shape == (4,)
    np.testing.assert_allclose(np.concatenate([z, theta]), truth, rtol=1e-5, atol=1e-6)
    assert density.draw(np.random.default_rng(3))[0].tolist() == z.tolist()
    mean, factor = np.array([3.0, -1]), np.array([[2.0, 0], [1, 0.5]])
    drawn = draws(Density.gaussian(mean, factor, 1), 5000)
    truth = mean + np.random.default_rng(1).standard_normal((5000, 2)) @ factor.T
    np.testing.assert_allclose(drawn, truth, rtol=1e-5, atol=1e-5)
    assert np.abs((truth - mean) / np.linalg.norm(factor, axis=1)).max() > KNOTS[-1]


def test_the_edge_cuts_what_lies_on_it() -> None:
    ys, xs = np.mgrid[:CUT_SIDE, :CUT_SIDE] + 0.5
    for centre, share in ((32, 0.0), (0, np.sqrt(2) / np.pi)):  # whole, and half of it
        disc = (ys - 32) ** 2 + (xs - centre) ** 2 < 20**2
        assert cut_share(disc) == pytest.approx(share, abs=0.01)
    assert cut_share(np.ones((CUT_SIDE, CUT_SIDE), bool)) == 1
    assert cut_share(np.zeros((CUT_SIDE, CUT_SIDE), bool)) == 0


def test_images_are_unusual_in_many_entries_or_in_none() -> None:
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.7):
        factor = np.exp(spread / 2 * rng.standard_normal((4000, 1)))
        codes = np.concatenate(
            [factor * rng.standard_normal((4000, 40)), rng.standard_normal((4000, 3))], axis=1
        )
        density = Density.fit(codes[:, :40], codes[:, 40:])
        assert density.spread == pytest.approx(spread, abs=0.08)
        drawn = draws(density, 4000)
        for ours, true in zip(drawn.T, codes.T, strict=True):  # each entry alone is as before
            assert stats.ks_2samp(ours, true).statistic < 0.05
        ours, true = (np.square(x[:, :40]).mean(1) for x in (drawn, codes))
        assert np.quantile(ours, [0.05, 0.5, 0.95]) == pytest.approx(
            np.quantile(true, [0.05, 0.5, 0.95]), rel=0.1
        )
