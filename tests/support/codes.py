"""A latent code of an image of one size."""

import numpy as np

from mhvae_cli.vae.editing import LatentCode

SIZE = (200, 300)


def code(z: float = 0.0, theta: float = 0.0, pose: np.ndarray | None = None, size=SIZE) -> LatentCode:
    return LatentCode(z=np.full(3, z, "f"), theta=np.full(6, theta, "f"), pose=pose, size=size)
