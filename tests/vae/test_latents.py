"""Posteriors of the latent codes, against torch's own distributions."""

import torch

from mhvae_cli.vae.latents import Gaussian


def test_kl_is_that_of_torch_distributions() -> None:
    rng = torch.Generator().manual_seed(1)
    mean, logvar = torch.randn(5, 7, generator=rng), torch.randn(5, 7, generator=rng)
    ours = torch.distributions.Normal(mean, (logvar / 2).exp())
    truth = torch.distributions.kl_divergence(ours, torch.distributions.Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(Gaussian(mean, logvar).kl(), truth)


def test_kl_of_the_prior_is_nil() -> None:
    assert Gaussian(torch.zeros(3, 4), torch.zeros(3, 4)).kl().tolist() == [0, 0, 0]


def test_drawn_codes_have_the_posteriors_moments() -> None:
    mean, logvar = torch.tensor([[1.5, -2.0]]), torch.tensor([[0.3, -1.2]])
    eps = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(2))
    drawn = Gaussian(mean, logvar).rsample(eps)
    torch.testing.assert_close(drawn.mean(0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(drawn.var(0), logvar[0].exp(), atol=0, rtol=0.02)
