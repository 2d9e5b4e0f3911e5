"""The networks of a model folder (figure 1, section 4) on a device: arrays in, arrays out."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..checkpoints.folder import read_config
from ..checkpoints.registry import resolve
from ..config import STEPS, texture_length
from ..devices import layout, resolve_device, resolve_dtype
from ..diffusion.density import Density
from ..errors import InputError, ModelError
from ..images.scan import Scan
from ..images.transforms import Box, to_square
from ..vae.decoder import resized
from ..vae.editing import LatentCode
from ..vae.encoder import fold_batch_norms
from ..vae.latents import Latents
from ..vae.model import MultiHeadedVAE
from ..vae.outline import mask, outline
from ..vae.tta import average_theta
from ..vae.warp import RADIUS
from .certainty import ErrorModel, parse_errors
from .loading import load_model, load_refiner
from .qc import LAYOUT, EncoderOutputs, QCStatistics, parse_statistics, smallest_jacobian

if TYPE_CHECKING:
    from ..diffusion.refiner import Refiner

GRID = 64
"""Side of the grid that is searched for folds."""
COARSE = 128
"""Side of masks that show where an object is."""


class Networks:
    """The VAE of a model folder and, loaded when it is first used, its cDDPM."""

    def __init__(
        self, model: MultiHeadedVAE, *, name: str, folder: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        fold_batch_norms(model.eval().encoder.convnet)
        self.model = model
        model.to(device=device, memory_format=layout(device))  # type: ignore[call-overload]  # missing from torch's stubs
        self.model.encoder.convnet.to(dtype)
        self.model.segmentation_head.cpu()  # outlines are evaluated in float64, which MPS lacks
        self.config = model.config
        self.name, self.folder, self.device, self.dtype = name, folder, device, dtype

    @classmethod
    def load(
        cls,
        ref: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = False,
        deterministic: bool = False,
    ) -> "Networks":
        """The networks of the model `ref`; see `Pipeline.load`."""
        if deterministic:
            torch.use_deterministic_algorithms(True)
        torch_device = resolve_device(device)
        torch_dtype = resolve_dtype(dtype, torch_device)
        folder = resolve(ref, offline=offline)
        model, name = load_model(folder)
        return cls(model, name=name, folder=folder, device=torch_device, dtype=torch_dtype)

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.name} ({self.folder}), {self.device}, {dtype}"

    @cached_property
    def refiner(self) -> "Refiner":
        """The cDDPM of the folder; ModelError if it has none."""
        return load_refiner(self.folder, device=self.device, dtype=self.dtype)

    @cached_property
    def _cddpm(self) -> dict[str, Any]:
        """The configuration of the cDDPM, which need not be loaded; empty for a folder without one."""
        found: dict[str, Any] = read_config(self.folder).get("cddpm", {}).get("model", {})
        return found

    @cached_property
    def side(self) -> int:
        """The side in pixels of the square in which images are generated: the cDDPM's, else the VAE's."""
        side: int = self._cddpm.get("image_size", 0) or self.config.image_size
        return side

    @property
    def style_dim(self) -> int:
        """The length of a style code: the VAE's z, and the texture code if the cDDPM sees the texture."""
        return self.config.z_dim + texture_length(self._cddpm.get("sees", ""))

    @cached_property
    def qc_statistics(self) -> QCStatistics | None:
        """The statistics for quality control; None if the folder has none, or those of an earlier version.

        ModelError if they are damaged.
        """
        content = read_config(self.folder).get("trust")
        if content is None or "errors" not in content or self.model.warp is None:
            return None
        channels = self.config.channels
        tones = 4 if channels == 1 else 11  # see `qc.tones`
        sizes = {"tones": tones, "layout": channels * LAYOUT**2, "features": self.feature_count}
        return parse_statistics(content, sizes, where=str(self.folder))

    @cached_property
    def error_model(self) -> ErrorModel | None:
        """The error model of the folder; None if it has none, ModelError if damaged."""
        content = read_config(self.folder)["trust"]["errors"] if self.qc_statistics else None
        if content is None:
            return None
        sizes = (self.feature_count, self.model.theta_dim)
        return parse_errors(content, *sizes, where=str(self.folder))

    @property
    def feature_count(self) -> int:
        """The length R of what QC and intervals see of an image's features."""
        return self.config.encoder.reduce + self.config.boundary

    @property
    def density(self) -> Density:
        """The density of the training images' latent codes; ModelError for a folder without a cDDPM."""
        return self.refiner.density(self.style_dim)

    def frame_of(self, square: np.ndarray) -> np.ndarray:
        """Where (S, S) an image (C, S, S) of the cDDPM's side shows a frame that the model knows."""
        if not self._cddpm:
            return np.zeros(square.shape[1:], bool)
        found: np.ndarray = self.refiner.frame_of(self.image(square[None]))[0, 0].cpu().numpy()
        return found

    @property
    def single_image_batches(self) -> bool:
        """Whether images are generated one at a time, so that their bits do not depend on the batch size."""
        return self.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()

    def prepare(self, scan: Scan, *, box: Box | None = None) -> np.ndarray:
        """The network's input, float32 (C, S, S) in [-1, 1], of a scan or a box of it.

        Runs no torch, so any thread may call it.
        """
        size, channels = self.config.image_size, self.config.channels
        return to_square(scan.pixels, size, channels, window=scan.window, box=box)

    @torch.inference_mode()
    def posterior(self, batch: np.ndarray, *, tta: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The posterior's mean and sd of theta, float32 (B, P), of `prepare`d images (B, C, S, S), and the
        features (B, R) of each image that QC and intervals use.

        `tta`: the mean is that over the image and its three mirror images, which takes four times as long.
        """
        self.need_position()
        if tta and self.model.segmentation_head.reference is not None:
            raise ModelError(f"{self.name}: --tta needs the disc as reference")
        image = self.image(batch)
        seen = self.model.examine(image)
        mean = average_theta(self.model, image, seen.q_theta.mean) if tta else seen.q_theta.mean
        found = (part.float().cpu().numpy() for part in (mean, seen.q_theta.sd, seen.summary))
        return next(found), next(found), next(found)

    @torch.inference_mode()
    def coarse_masks(self, thetas: np.ndarray) -> np.ndarray:
        """The masks bool (B, COARSE, COARSE) of thetas (B, P)."""
        self.need_position()
        level = self.model.level_map(torch.from_numpy(thetas).to(self.device), (COARSE, COARSE))
        inside: np.ndarray = (level[:, 0] >= 0).cpu().numpy()
        return inside

    @torch.inference_mode()
    def examine(self, batch: np.ndarray, *, style: bool = False, recon: bool = False) -> list[EncoderOutputs]:
        """The inputs of quality control; with `style` the style code, too.

        `recon` also decodes, which takes half as long again.
        """
        self.need_position()
        image = self.image(batch)
        seen = self.model.examine(image)
        q_theta = seen.q_theta
        parts = (part.float().cpu().numpy() for part in (q_theta.mean, q_theta.sd, seen.summary))
        found = [EncoderOutputs(*row) for row in zip(*parts, batch, strict=True)]
        if style or recon:
            z = self.model.style(image, seen.features, q_theta).mean
            found = [replace(each, z=row) for each, row in zip(found, z.cpu().numpy(), strict=True)]
        if recon:
            made = self.model.decode(Latents(z, q_theta.mean))
            errors = (made - image).abs().mean((1, 2, 3)).tolist()
            found = [replace(each, recon=error) for each, error in zip(found, errors, strict=True)]
        return found

    @torch.inference_mode()
    def encode(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The posterior means z (B, Z) and theta (B, P), float32, of `prepare`d images (B, C, S, S).

        P is 0 for a single-headed VAE.
        """
        found = [self.model.encode(self.image(batch[part])) for part in self._parts(len(batch))]
        z, theta = torch.cat([each.z for each in found]), torch.cat([each.theta for each in found])
        return z.float().cpu().numpy(), theta.float().cpu().numpy()

    @torch.inference_mode()
    def restyled(self, square: np.ndarray, code: LatentCode) -> LatentCode:
        """`code` with the style of a `prepare`d image (C, S, S) seen at the code's position."""
        if not self.config.tones:
            return code
        latents = self.latents([code])
        layers = self.model.layers(self.image(square[None]), latents.theta, latents.pose)
        return replace(code, z=self.model.encoder.style_of_layers(layers).mean[0].cpu().numpy())

    @torch.inference_mode()
    def decode(self, codes: Sequence[LatentCode]) -> np.ndarray:
        """The VAE's images x_hat, float32 (B, C, side, side), about [-1, 1]."""
        made = [self.model.decode(self.latents(codes[part])) for part in self._parts(len(codes))]
        return resized(torch.cat(made).float(), self.side).cpu().numpy()

    @torch.inference_mode()
    def refine(
        self,
        recon: np.ndarray,
        keys: Sequence[str],
        *,
        seed: int = 0,
        steps: int = STEPS,
        solver: str = "dpm++2m-sde",
        strength: float | None = None,
        codes: Sequence[LatentCode] = (),
        known: Sequence[np.ndarray] = (),
    ) -> np.ndarray:
        """Section 4: sharp images (B, C, S, S) in [-1, 1], sampled given the VAE's `recon` of the same shape.

        An image's noise depends only on `seed` and its key. `strength` in (0.001, 1], by default the model's
        own, is the time at which the reverse process starts. `codes` are the images' latent codes, needed if
        the cDDPM sees the mask or the texture; `known` the arrays of `score.Known`, if part of the images is
        known. ModelError for a model without a cDDPM.
        """
        from ..diffusion.score import Known  # with the cDDPM: segmentation needs neither
        from .texturing import given_of

        refine = partial(self.refiner.refine, seed=seed, steps=steps, solver=solver, strength=strength)
        drawn = []
        for part in self._parts(len(recon)):
            latents = self.latents(codes[part]) if codes else None
            given = given_of(self.model, self.refiner.network, latents, recon.shape[-1])
            if known:
                given["known"] = Known(*(self.image(array[part]) for array in known))
            drawn.append(refine(self.image(recon[part]), keys[part], **given))
        return torch.cat(drawn).float().cpu().numpy()

    def mask(self, theta: np.ndarray, size: tuple[int, int], pose: np.ndarray | None = None) -> np.ndarray:
        """The mask bool (h, w) of theta (P,), as `outline.mask`."""
        self.need_position()
        return mask(self.model, theta, size, pose)

    def mask_of(self, code: LatentCode, size: tuple[int, int] | None = None) -> np.ndarray:
        """The mask bool (h, w) of a latent code, at its own size or another."""
        return self.mask(code.theta, size or code.size, code.pose)

    def contour(
        self, theta: np.ndarray, size: tuple[int, int], pose: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """The exact outline of theta (P,) in an image of `size` (h, w), as `outline.outline`."""
        self.need_position()
        return outline(self.model, theta, size, pose)

    def radii(self, theta: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Distances (N,) from the reference's centre, where its rim is at 1, of points (N, 2) in [-1, 1]."""
        radii: np.ndarray = 1 - self.model.level_of(torch.from_numpy(theta)[None])(points) / RADIUS
        return radii

    @torch.inference_mode()
    def jacobian(self, theta: np.ndarray) -> float | None:
        """`smallest_jacobian` of the warp of theta (P,) in its object."""
        warp = self.model.warp
        assert warp is not None
        source = warp(torch.from_numpy(theta).to(self.device)[None], (GRID, GRID))[0].cpu()
        inside = self.model.segmentation_head.level(source[None])[0] >= 0
        return smallest_jacobian(source.numpy(), inside.numpy())

    def centre(self, code: LatentCode) -> tuple[float, float]:
        """The centre of a latent code's object, xy in native pixels; InputError if there is no object."""
        ys, xs = np.nonzero(self.mask_of(code))
        if not len(xs):
            raise InputError("no object found", hint="--about image needs none")
        return float(xs.mean() + 0.5), float(ys.mean() + 0.5)

    def image(self, batch: np.ndarray) -> torch.Tensor:
        """Arrays (B, C, S, S) as a tensor on the device."""
        image = torch.from_numpy(np.require(batch, requirements="W"))
        return image.to(self.device, memory_format=layout(self.device))

    def latents(self, codes: Sequence[LatentCode]) -> Latents:
        """Latent codes as tensors on the device."""
        z = torch.from_numpy(np.stack([code.z for code in codes])).to(self.device)
        theta = torch.from_numpy(np.stack([code.theta for code in codes])).to(self.device)
        if all(code.pose is None for code in codes):
            return Latents(z, theta)
        identity = np.eye(2, 3)
        poses = np.stack([identity if code.pose is None else code.pose for code in codes])
        return Latents(z, theta, torch.from_numpy(poses))

    def _parts(self, count: int) -> list[slice]:
        """The slices of a batch of `count` that are processed together."""
        return [slice(i, i + 1) for i in range(count)] if self.single_image_batches else [slice(0, count)]

    def need_position(self) -> None:
        """ModelError for a single-headed VAE, which has no position code and no masks."""
        if self.model.warp is None:
            raise ModelError(f"{self.name}: a single-headed VAE cannot find objects")
