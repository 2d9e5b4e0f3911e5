"""Figure 1: the multi-headed VAE."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import ModelConfig
from .decoder import FEATURE_SIZE, ImageHead, SegmentationHead
from .encoder import Encoder
from .latents import Gaussian, Latents
from .warp import Warp


@dataclass(frozen=True)
class Output:
    """One training pass: posteriors, sampled codes, soft mask (B, S, S), reconstruction (B, C, S, S)."""

    q_theta: Gaussian | None
    q_z: Gaussian
    z: Tensor
    theta: Tensor
    mask_pred: Tensor | None
    recon: Tensor


class MultiHeadedVAE(nn.Module):
    """Splits an image into style z and position theta; `single_head` drops theta and the warp (figure 3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.warp = None if config.single_head else Warp(config.warp)
        self.encoder = Encoder(config, self.theta_dim)
        self.segmentation_head = SegmentationHead(config.edge, config.reference)
        self.image_head = ImageHead(config)

    @property
    def theta_dim(self) -> int:
        """Length P of the position code; 0 for a single-headed VAE."""
        return 0 if self.warp is None else self.warp.theta_dim

    def forward(self, image: Tensor, eps_theta: Tensor, eps_z: Tensor) -> Output:
        """One pass with sampled codes: image (B, C, S, S) in [-1, 1]; normal noise (B, P) and (B, Z)."""
        q_theta, q_z = self.encoder(image)
        z = q_z.rsample(eps_z)
        if q_theta is None:
            return Output(None, q_z, z, z[:, :0], None, self.image_head(z, None))
        theta = q_theta.rsample(eps_theta)
        mask_pred = self.mask(theta, (image.shape[2], image.shape[3]))
        return Output(q_theta, q_z, z, theta, mask_pred, self.decode(Latents(z, theta)))

    def encode(self, image: Tensor) -> Latents:
        """The posterior means of an image (B, C, S, S)."""
        q_theta, q_z = self.encoder(image)
        theta = q_z.mean.new_zeros(len(image), 0) if q_theta is None else q_theta.mean
        return Latents(q_z.mean, theta)

    def mask(self, theta: Tensor, size: tuple[int, int], pose: Tensor | None = None) -> Tensor:
        """Soft mask (B, h, w) in (0, 1) at `size` from theta (B, P) and a user's edit `pose` (B, 2, 3)."""
        mask: Tensor = self.segmentation_head(self._warp(theta, size, pose))
        return mask

    def level(self, theta: Tensor, points: np.ndarray) -> np.ndarray:
        """The mask's level function, float64 (N,), positive inside, of theta (1, P) at `points` (N, 2).

        {p : level(p) >= 0} is the object exactly, at any size (equation 10).
        """
        return self.level_of(theta)(points)

    @torch.inference_mode()
    def level_of(self, theta: Tensor) -> Callable[[np.ndarray], np.ndarray]:
        """`level` of one theta (1, P), for many calls."""
        # float64: the contour's roots are found to 1e-12 of an edge.
        warp = self.warp
        assert warp is not None
        parameters = warp.parameters_of(theta.to(warp.identity))[0].cpu().double().numpy()

        @torch.inference_mode()
        def level(points: np.ndarray) -> np.ndarray:
            source = torch.from_numpy(warp.sources(points, parameters).T)
            return self.segmentation_head.level(source[None, :, None])[0, 0].numpy()

        return level

    def decode(self, latents: Latents) -> Tensor:
        """The VAE's reconstruction x_hat (B, C, S, S), about [-1, 1]."""
        if self.warp is None:
            unwarped: Tensor = self.image_head(latents.z, None)
            return unwarped
        source = self._warp(latents.theta, (FEATURE_SIZE, FEATURE_SIZE), latents.pose)
        image: Tensor = self.image_head(latents.z, source.permute(0, 2, 3, 1))
        return image

    def locate(self, image: Tensor) -> Gaussian:
        """Theta's posterior of an image (B, C, S, S); runs neither the style head nor the image head."""
        return self.encoder.locate(image)

    def _warp(self, theta: Tensor, size: tuple[int, int], pose: Tensor | None) -> Tensor:
        if self.warp is None:
            raise TypeError("a single-headed VAE has no position code")
        source: Tensor = self.warp(theta, size, pose)
        return source


class NoDraws(TorchFunctionMode):
    """Skips random initialisation of meta tensors, for which torch would import its compiler, for seconds."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        if func in (Tensor.normal_, Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def build(config: ModelConfig, *, seed: int | None = 0) -> MultiHeadedVAE:
    """A model with weights initialised from `seed`; None: on the meta device, for loaded weights."""
    if seed is None:
        with torch.device("meta"), NoDraws():
            model = MultiHeadedVAE(config)
        for module in model.modules():
            if isinstance(module, Warp):
                module.materialise()
        return model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultiHeadedVAE(config)
