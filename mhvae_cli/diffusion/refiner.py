"""Section 4: the cDDPM that sharpens the VAE's image x_hat, and the density of the training codes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ..config import STEPS, DiffusionConfig
from ..errors import UsageError
from .density import Density
from .frames import Frames
from .noise import path_noise
from .score import Known, ScoreNetwork
from .solvers import END, SOLVERS

STORED = ("marginals", "factor", "cut", "spread", "found")
"""The parts of the `Density` of the training codes that a model folder holds."""


class Refiner(nn.Module):
    """The score network, and the marginals (len(KNOTS), D), factor (D, D), cut (), spread () and found ()
    of the `Density` of the training codes [z, theta], where z includes the texture code, if the network sees
    the texture. `frames`: those of the training images, if they have any."""

    codes_marginals: Tensor
    codes_factor: Tensor
    codes_cut: Tensor
    codes_spread: Tensor
    codes_found: Tensor
    frames: Frames | None = None

    def __init__(self, config: DiffusionConfig, *, channels: int, codes: int) -> None:
        super().__init__()
        self.network = ScoreNetwork(config, channels)
        self.store(Density.prior(codes, 0))

    def store(self, density: Density) -> None:
        """Keep the density of the training codes."""
        device = next(self.network.parameters()).device
        for name in STORED:
            values = torch.as_tensor(getattr(density, name), dtype=torch.float32, device=device)
            self.register_buffer(f"codes_{name}", values)

    def density(self, z_dim: int) -> Density:
        """The density of the training codes, as it was stored; `z_dim` of their entries are of style."""
        marginals, factor, *limits = (
            getattr(self, f"codes_{name}").cpu().double().numpy() for name in STORED
        )
        return Density(marginals, factor, z_dim, *map(float, limits))

    def frame_of(self, image: Tensor) -> Tensor:
        """Where (B, 1, S, S) images (B, C, S, S) in [-1, 1] are black as a part of their frame."""
        return self._framed(image, Frames.own)

    def _framed(self, image: Tensor, find: Callable[[Frames, np.ndarray], np.ndarray]) -> Tensor:
        if self.frames is None or image.shape[2:] != self.frames.masks.shape[1:]:
            return torch.zeros_like(image[:, :1], dtype=torch.bool)
        found = np.stack([find(self.frames, square) for square in image.float().cpu().numpy()])
        return torch.from_numpy(found)[:, None].to(image.device)

    @torch.inference_mode()
    def refine(
        self,
        x_hat: Tensor,
        keys: Sequence[str],
        *,
        seed: int = 0,
        steps: int = STEPS,
        solver: str = "dpm++2m-sde",
        strength: float | None = None,
        level: Tensor | None = None,
        texture: Tensor | None = None,
        known: Known | None = None,
    ) -> Tensor:
        """A sample of p(x | x_hat), (B, C, H, W) in [-1, 1], for the VAE's images x_hat, of any H and W.

        Solves equation 15 in `steps` evaluations of the network, starting at t = `strength`, by default the
        model's own. 1 samples the full p(x | x_hat); below 1, noise is added to x_hat up to that time, as in
        SDEdit, and structures coarser than the noise are kept. The noise depends only on seed, key and shape.
        With `known`, only the rest is drawn: what is known drives the process where and while it is known.
        Images of which nothing is known get the frame that suits x_hat, which is then known.
        The last three are `Given`.
        Raises UsageError for an unknown solver, and for a strength outside (0.001, 1].
        """
        network = self.network
        start = network.config.strength if strength is None else strength
        if solver not in SOLVERS:
            raise UsageError(f"no solver {solver!r}", hint=f"available: {', '.join(SOLVERS)}")
        if not END < start <= 1:
            raise UsageError(f"strength {start:g}: must be above {END:g} and at most 1")
        frame = self._framed(x_hat, Frames.choose)
        if known is not None:
            frame &= known.weight.amax((1, 2, 3), keepdim=True) == 0
        if self.frames is not None:
            x_hat = x_hat.masked_fill(frame, -1)
            known = in_frame(x_hat, frame, known)
        noise = path_noise(keys, tuple(x_hat.shape[1:]), seed=seed, device=x_hat.device)
        first = x_hat if known is None else torch.lerp(x_hat, known.image, known.weight)
        still, sd = network.sde.marginal(network.target(first, x_hat, texture), start)
        hints = network.hints(x_hat, level, texture, known)
        shown = None if known is None else network.target(known.image, x_hat, texture)

        def score(u: Tensor, t: float) -> Tensor:
            drawn = network.score(u, t, x_hat, hints)
            if known is None or shown is None:
                return drawn
            # The score of a distribution that holds the known image alone: its noised copy is then what the
            # network sees there at every time, whatever the solver.
            alpha, variance = network.sde.alpha(t), network.sde.sigma(t) ** 2
            fixed = (alpha * shown - u) / variance
            return torch.lerp(drawn, fixed, known.weight * (known.until <= t))

        u = SOLVERS[solver](
            score,
            still + sd * noise(),
            network.sde,
            steps=steps,
            noise=noise,
            start=start,
        )
        return network.image(u, x_hat, texture).clamp(-1, 1).masked_fill(frame, -1)


def in_frame(image: Tensor, frame: Tensor, known: Known | None = None) -> Known:
    """What is known of images (B, C, S, S): where their frame (B, 1, S, S) is, and `known`."""
    if known is None:
        nothing = torch.zeros_like(image[:, :1])
        known = Known(image, nothing, nothing, nothing)
    blackened = known.image.masked_fill(frame, -1)
    weight, sharp = (part.masked_fill(frame, 1) for part in (known.weight, known.sharp))
    return Known(blackened, weight, known.until.masked_fill(frame, 0), sharp)
