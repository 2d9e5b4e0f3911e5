"""What the cDDPM is shown of an image in training: its mask and, with a hole in it, the image itself.

An edit that carries an image's pixels leaves holes: where the object was, and what lies beyond the edge of
the image it comes from. Training makes such holes, for the network to learn to fill them from the rest.
"""

import math

import torch
from torch import Tensor

from ..diffusion.refiner import Refiner, in_frame
from ..diffusion.score import Known
from ..inference.texturing import given_of, with_texture
from ..vae.latents import Latents
from ..vae.model import MultiHeadedVAE

HOLE_NUMBERS = 6
"""Random numbers in [0, 1) that define the hole of one image."""
BLANK, CUT = 0.75, 0.3
"""Share of images of which nothing is known, and of the others whose object is cut by an edge."""
RIM = 0.05
"""Width of the soft rim of a hole, and of the margin around an object, in [-1, 1] units of the image."""


def make_hints(
    refiner: Refiner,
    vae: MultiHeadedVAE,
    image: Tensor,
    x_hat: Tensor,
    latents: Latents,
    numbers: Tensor,
    frame: Tensor,
) -> tuple[Tensor | None, Tensor | None]:
    """`ScoreNetwork.hints` of training images (B, C, S, S), and their texture if the network sees it.

    `latents` are the VAE's; `numbers` (B, 6) define the images' holes; `frame` (B, 1, S, S), which is black
    in x_hat, is known of all images.
    """
    network = refiner.network
    longer = with_texture(vae, network, image, x_hat, latents)
    given = given_of(vae, network, longer, image.shape[-1])
    level, texture = given.get("level"), given.get("texture")
    if not network.sees_known or level is None:
        return network.hints(x_hat, level, texture), texture
    # The hole is where an object between this image's and another's would have been.
    share = 0.2 + numbers[:, 1:2]
    theta = torch.lerp(latents.theta, latents.theta.roll(1, 0), share)
    other = vae.level_map(theta, (image.shape[-2], image.shape[-1]))
    weight = known_weight(level, other, numbers)
    free = torch.zeros_like(weight)
    known = in_frame(image, frame, Known(image, weight, free, torch.ones_like(weight)))
    return network.hints(x_hat, level, texture, known), texture


def known_weight(level: Tensor, other: Tensor, numbers: Tensor) -> Tensor:
    """What is known of images (B, 1, S, S), in [0, 1]: all but the hole that another object leaves.

    `level` and `other` (B, 1, S, S) are the level functions of the image's object and of the other one,
    `numbers` (B, 6) in [0, 1): nothing is known of an image if the first is below BLANK; the third is for the
    cut of its object by a line, the next two for the line's direction and distance.
    """
    new, old = _soft(level), _soft(other)
    ticks = torch.linspace(-1, 1, level.shape[-1], device=level.device)
    columns = numbers[:, :, None, None].unbind(1)
    angle, offset = 2 * math.pi * columns[3], columns[4]
    along = ticks[None, :] * torch.cos(angle) + ticks[:, None] * torch.sin(angle)
    beyond = (along > offset).to(level.dtype)[:, None] * (columns[2][:, None] < CUT)
    hole = torch.maximum(old * (1 - new), new * beyond)
    weight: Tensor = (1 - hole) * (columns[0][:, None] >= BLANK)
    return weight


def _soft(level: Tensor) -> Tensor:
    """1 inside an object and its margin, falling to 0 over the rim."""
    # The level's unit is the reference's, whose disc has a radius of 0.5; the object's own gives the scale.
    radius = (4 * (level > 0).float().mean((1, 2, 3), keepdim=True) / math.pi).sqrt().clamp_min(0.1)
    return (2 + level * radius / (0.5 * RIM)).clamp(0, 1)
