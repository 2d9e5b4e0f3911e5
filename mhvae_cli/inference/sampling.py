"""Appendix G: the latent codes of new images, and new places for the pixels of given ones."""

from dataclasses import replace

import numpy as np
import torch

from ..diffusion.density import CUT_SIDE, Density, cut_share
from ..errors import InputError
from ..evaluation.metrics import dice
from ..hashing import seed_of
from ..vae.decoder import resized
from ..vae.editing import LatentCode
from ..vae.latents import Latents
from ..vae.model import MultiHeadedVAE
from ..vae.outline import mask
from .carrying import carry_detail
from .networks import Networks
from .synthesis import Draft, Source, with_donors

DRAWS = 100
"""Most latent codes that are drawn to get one with an object."""
MOST_SCALED = 1.6
"""The largest change of an object's size that a sample carries: beyond, its detail would be too coarse."""


def sample_code(
    networks: Networks, density: Density, index: int, *, seed: int, size: tuple[int, int]
) -> Draft:
    """Appendix G: the draft of sample `index`, which depends only on `seed` and `index`; size (h, w).

    A latent code whose object has no pixel in the image, is cut by its edge more, or stands out less, than
    that of hardly any training image, is drawn again, up to DRAWS times; then InputError.
    """
    key = f"sample{index}"
    rng = np.random.default_rng(seed_of(f"{seed}/{key}/code", size=32))
    for _ in range(DRAWS):
        z, theta = density.draw(rng)
        code = LatentCode(z=z, theta=theta, pose=None, size=size)
        if not networks.mask_of(code).any() or not _holds(networks, density, theta):
            continue
        if density.found <= 0 or found_again(networks.model, networks.latents([code]))[0] >= density.found:
            return Draft(code, key)
    raise InputError(f"none of {DRAWS} latent codes has an object", hint="generate larger images: --size")


def vary_place(networks: Networks, density: Density, index: int, source: Source, *, seed: int) -> Draft:
    """The draft of sample `index`: the pixels of `source` with the object's place and shape drawn anew.

    Of up to DRAWS places the first is taken for which at most half of the image is left to be drawn, the
    object neither grows nor shrinks by more than MOST_SCALED, and is not cut by the edge as hardly any
    training object is; then InputError. A latent code has no pixels: InputError.
    """
    key = f"sample{index}"
    if source.scan is None:
        raise InputError("a latent file has no detail to carry", hint="give images to --from")
    rng = np.random.default_rng(seed_of(f"{seed}/{key}/place", size=32))
    for _ in range(DRAWS):
        _, theta = density.draw(rng)
        code = replace(source.code, theta=theta, pose=None)
        if not (networks.mask_of(code).any() and _holds(networks, density, theta)):
            continue
        draft = with_donors(networks, Draft(code, key, source.scan), [(source, 1.0)], carry=True)
        carried = carry_detail(networks, code, draft.donors)
        if carried.known.mean() >= 0.5 and 1 / MOST_SCALED <= carried.parts[0].magnified <= MOST_SCALED:
            return draft
    raise InputError(f"none of {DRAWS} places suits this image", hint="leave it out of --from")


@torch.inference_mode()
def found_again(vae: MultiHeadedVAE, latents: Latents) -> list[float]:
    """How well the VAE finds the object of each latent code in its own image x_hat: the Dice, in [0, 1]."""
    x_hat = resized(vae.decode(latents).float(), vae.config.image_size).clamp(-1, 1)
    pairs = zip(latents.theta.cpu().numpy(), vae.locate(x_hat).mean.float().cpu().numpy(), strict=True)
    return [dice(*(mask(vae, theta, (CUT_SIDE, CUT_SIDE)) for theta in pair)) for pair in pairs]


def _holds(networks: Networks, density: Density, theta: np.ndarray) -> bool:
    """Whether the image's edge cuts the object of theta no more than nearly all training objects."""
    return cut_share(networks.mask(theta, (CUT_SIDE, CUT_SIDE))) <= density.cut
