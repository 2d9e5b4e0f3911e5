"""Figure 1: the multi-headed VAE."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..config import ModelConfig
from .boundary import BoundaryHead, outlines, refitted, relative_error
from .decoder import FEATURE_SIZE, ImageHead, SegmentationHead
from .encoder import Encoder
from .latents import Gaussian, Latents
from .tones import join, split
from .warp import Warp


@dataclass(frozen=True)
class Output:
    """One training pass: posteriors, sampled codes, soft mask (B, S, S), reconstruction (B, C, S, S), and the
    encoder's fine maps, unless they have been used to refine theta."""

    q_theta: Gaussian | None
    q_z: Gaussian
    z: Tensor
    theta: Tensor
    mask_pred: Tensor | None
    recon: Tensor
    maps: list[Tensor]


@dataclass(frozen=True)
class Examination:
    """Theta's posterior, its mean moved to the boundary that the image shows if there is a boundary head, and
    the encoder's features (B, F). `summary` (B, R) is what quality control and intervals see of these: their
    means over the image, after `boundary.relative_error` if there is one.
    """

    q_theta: Gaussian
    features: Tensor
    summary: Tensor


class MultiHeadedVAE(nn.Module):
    """Splits an image into style z and position theta; `single_head` drops theta and the warp (figure 3)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.warp = None if config.single_head else Warp(config.warp)
        self.encoder = Encoder(config, self.theta_dim)
        self.segmentation_head = SegmentationHead(config.edge, config.reference)
        channels = config.channels + sum(self.encoder.convnet.map_channels)
        self.boundary_head = BoundaryHead(channels) if config.boundary else None
        self.image_head = ImageHead(config)

    @property
    def theta_dim(self) -> int:
        """Length P of the position code; 0 for a single-headed VAE."""
        return 0 if self.warp is None else self.warp.theta_dim

    def forward(self, image: Tensor, eps_theta: Tensor, eps_z: Tensor, *, refined: bool = False) -> Output:
        """One pass with sampled codes: image (B, C, S, S) in [-1, 1]; normal noise (B, P) and (B, Z).

        With `refined`, theta's mean is where `examine` finds the object, as after training.
        """
        maps: list[Tensor] = []
        if refined or self.warp is None:
            q_theta, q_z = self.posteriors(image)
        else:
            flat, maps = self.encoder.features(image)
            q_theta = self.encoder.position(flat)
            q_z = self.style(image, flat, q_theta)
        z = q_z.rsample(eps_z)
        if q_theta is None:
            return Output(None, q_z, z, z[:, :0], None, self._decode(z, None), maps)
        theta = q_theta.rsample(eps_theta)
        mask_pred = self.mask(theta, (image.shape[2], image.shape[3]))
        return Output(q_theta, q_z, z, theta, mask_pred, self.decode(Latents(z, theta)), maps)

    def posteriors(self, image: Tensor) -> tuple[Gaussian | None, Gaussian]:
        """The posteriors of theta, None for a single-headed VAE, and of z, of an image (B, C, S, S)."""
        if self.warp is None:
            return None, self.style(image, self.encoder.features(image)[0], None)
        seen = self.examine(image)
        return seen.q_theta, self.style(image, seen.features, seen.q_theta)

    def style(self, image: Tensor, flat: Tensor, q_theta: Gaussian | None) -> Gaussian:
        """z's posterior from an image, the encoder's `features` of it, and its posterior of theta."""
        if not self.config.tones:
            return self.encoder.style(flat)
        assert q_theta is not None
        return self.encoder.style_of_layers(self.layers(image, q_theta.mean))

    @torch.no_grad()
    def layers(
        self, image: Tensor, theta: Tensor, pose: Tensor | None = None, *, side: int | None = None
    ) -> Tensor:
        """The layers (B, 2, C, t, t) of an image (B, C, S, S) whose object has this theta (B, P) and pose.

        t is `side`, by default that of the tones. The image may be of any kind and number of channels.
        """
        assert self.warp is not None
        side, theta = side or self.config.tones, theta.float()
        with torch.autocast(image.device.type, enabled=False):
            affine = self.warp.affine_part(self.warp.parameters_of(theta))
            if pose is not None:
                linear = affine[:, :, :2] @ pose.to(affine)
                affine = torch.cat([linear[:, :, :2], linear[:, :, 2:] + affine[:, :, 2:]], dim=2)
            source = self.warp(theta, (side, side), pose)
            return split(image, affine, source, self.segmentation_head.level, side)

    @torch.no_grad()
    def joined(self, layers: Tensor, latents: Latents, size: int) -> Tensor:
        """The image (B, C, size, size) of `layers` (B, 2, C, t, t) whose object has this position."""
        source = self._warp(latents.theta, (size, size), latents.pose).to(layers)
        return join(layers, source, self.segmentation_head.level)

    def encode(self, image: Tensor) -> Latents:
        """The posterior means of an image (B, C, S, S)."""
        q_theta, q_z = self.posteriors(image)
        theta = q_z.mean.new_zeros(len(image), 0) if q_theta is None else q_theta.mean
        return Latents(q_z.mean, theta)

    def mask(self, theta: Tensor, size: tuple[int, int], pose: Tensor | None = None) -> Tensor:
        """Soft mask (B, h, w) in (0, 1) at `size` from theta (B, P) and a user's edit `pose` (B, 2, 3)."""
        mask: Tensor = self.segmentation_head(self._warp(theta, size, pose))
        return mask

    def level_map(self, theta: Tensor, size: tuple[int, int], pose: Tensor | None = None) -> Tensor:
        """The mask's level function (B, 1, h, w), positive inside, at the pixel centres of `size`."""
        level: Tensor = self.segmentation_head.level(self._warp(theta, size, pose))[:, None]
        return level

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

        return lambda points: self.segmentation_head.level_at(warp.sources(points, parameters))

    def decode(self, latents: Latents) -> Tensor:
        """The VAE's reconstruction x_hat (B, C, S, S), about [-1, 1].

        Of a longer style code, which includes the cDDPM's texture code, only the first Z numbers are used.
        """
        z = latents.z[:, : self.config.z_dim]
        if self.warp is None:
            return self._decode(z, None)
        return self._decode(z, self._warp(latents.theta, (FEATURE_SIZE, FEATURE_SIZE), latents.pose))

    def locate(self, image: Tensor) -> Gaussian:
        """Theta's posterior of an image (B, C, S, S); runs neither the style head nor the image head."""
        return self.examine(image).q_theta

    def examine(self, image: Tensor) -> Examination:
        """What the encoder and, if there is one, the boundary head say of an image (B, C, S, S)."""
        flat, maps = self.encoder.features(image)
        q_theta = self.encoder.position(flat)
        means = flat.unflatten(1, (self.config.encoder.reduce, -1)).mean(2)
        if self.boundary_head is None:
            return Examination(q_theta, flat, means)
        assert self.warp is not None
        found = outlines(self.warp, q_theta.mean)
        points, normals = (torch.from_numpy(each).to(q_theta.mean) for each in (found.points, found.normals))
        distance, log_error = self.boundary_head([image, *maps], points, normals)
        theta = refitted(self.warp, q_theta.mean, found, distance, log_error)
        summary = torch.cat([relative_error(found, log_error)[:, None].to(means), means], dim=1)
        return Examination(replace(q_theta, mean=theta), flat, summary)

    def _decode(self, z: Tensor, source: Tensor | None) -> Tensor:
        image: Tensor = self.image_head(z, source, self.segmentation_head.level)
        return image

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
