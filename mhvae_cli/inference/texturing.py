"""What the cDDPM sees of latent codes: the texture code as a part of the style code, and the mask."""

from dataclasses import replace

import torch
from torch import Tensor

from ..config import TEXTURE
from ..diffusion.score import Given, ScoreNetwork
from ..diffusion.texture import SIDE, energies
from ..vae.latents import Latents
from ..vae.model import MultiHeadedVAE


def given_of(vae: MultiHeadedVAE, network: ScoreNetwork, latents: Latents | None, side: int) -> Given:
    """What the network sees of latent codes, for images (B, C, side, side); nothing without codes."""
    if latents is None or not network.sees_mask:
        return Given()
    level = vae.level_map(latents.theta, (side, side), latents.pose).float()
    return Given(level=level, texture=texture_maps(vae, network, latents, side))


@torch.no_grad()
def texture_layers(vae: MultiHeadedVAE, image: Tensor, x_hat: Tensor, latents: Latents) -> Tensor:
    """The layers (B, 2, M, SIDE, SIDE) of log energies of what x_hat lacks of images (B, C, S, S)."""
    return vae.layers(energies(image - x_hat), latents.theta, latents.pose, side=SIDE)


@torch.no_grad()
def with_texture(
    vae: MultiHeadedVAE, network: ScoreNetwork, image: Tensor, x_hat: Tensor, latents: Latents
) -> Latents:
    """The latent codes with images' texture codes at the end of z, if the network sees the texture."""
    if network.texture is None:
        return latents
    code = network.texture.encode(texture_layers(vae, image, x_hat, latents))
    return replace(latents, z=torch.cat([latents.z, code.to(latents.z)], dim=1))


@torch.no_grad()
def texture_maps(vae: MultiHeadedVAE, network: ScoreNetwork, latents: Latents, side: int) -> Tensor | None:
    """The log energies (B, M, side, side) of the images of latent codes, if the network sees the texture."""
    if network.texture is None:
        return None
    return vae.joined(network.texture.layers(latents.z[:, -TEXTURE:]), latents, side)
