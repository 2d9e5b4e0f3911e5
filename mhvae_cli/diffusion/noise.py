"""Section 4.2: the noise that starts and drives equation 15, one seeded path per image."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..hashing import seed_of

Noise = Callable[[], Tensor]
"""Returns the next standard normal tensor, shaped like x."""


def path_noise(
    keys: Sequence[str], shape: Sequence[int], *, seed: int, device: torch.device | str = "cpu"
) -> Noise:
    """Noise for a batch of images named `keys`: each call gives (B, *shape) float32, shape (C, H, W).

    An image's path depends only on `seed`, its key and its shape: not on the batch, the order, the number of
    workers, or the device, since it is drawn on the CPU.
    """
    generators = [torch.Generator().manual_seed(seed_of(f"{seed}/{key}")) for key in keys]

    def draw() -> Tensor:
        noise = torch.empty(len(generators), *shape)
        for image, generator in zip(noise, generators, strict=True):
            image.normal_(generator=generator)
        return noise.to(device)

    return draw
