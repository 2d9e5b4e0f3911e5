"""Figure 1 and section 4 on a device: the networks of a model folder, arrays in, arrays out."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from .checkpoint import load_state, model_config, read_config
from .edit import Code, Density
from .errors import InputError, ModelError
from .imaging import Scan, to_square
from .vae.contour import contours
from .vae.encoder import fold_batch_norms
from .vae.latents import Latents
from .vae.model import MultiHeadedVAE, build
from .vae.raster import Level, rasterise

if TYPE_CHECKING:
    from .diffusion.refiner import Refiner


class Networks:
    """The VAE of a model folder and, once it is asked for, its cDDPM."""

    def __init__(
        self, model: MultiHeadedVAE, *, name: str, folder: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        fold_batch_norms(model.eval().encoder.convnet)
        self.model = model.to(device=device, memory_format=torch.channels_last)
        self.model.encoder.convnet.to(dtype)
        self.model.segmentation_head.cpu()  # outlines are evaluated in float64, which MPS has not
        self.config = model.config
        self.name, self.folder, self.device, self.dtype = name, folder, device, dtype

    def __str__(self) -> str:
        number = str(self.dtype).removeprefix("torch.")
        return f"{self.name} ({self.folder}), {self.device}, {number}"

    @cached_property
    def refiner(self) -> "Refiner":
        """The cDDPM of the folder; ModelError if it has none."""
        from .diffusion.refiner import load_refiner  # segmenting needs none of it

        return load_refiner(self.folder, device=self.device, dtype=self.dtype)

    @property
    def density(self) -> Density:
        """What the codes of the training images were drawn from; ModelError for a folder without a cDDPM."""
        mean, factor = self.refiner.codes_mean, self.refiner.codes_factor
        return Density(mean.cpu().double().numpy(), factor.cpu().double().numpy(), z_dim=self.config.z_dim)

    @property
    def one_by_one(self) -> bool:
        """Whether pictures are made one at a time, so that a batch's size leaves no trace in their bits."""
        return self.device.type == "cpu" or torch.are_deterministic_algorithms_enabled()

    def prepare(self, scan: Scan) -> np.ndarray:
        """The network's input, float32 (C, S, S) in [-1, 1]; runs no torch, so any thread may call it."""
        return to_square(scan.pixels, self.config.image_size, self.config.channels)

    @torch.inference_mode()
    def locate(self, batch: np.ndarray) -> np.ndarray:
        """The posterior mean of theta, float32 (B, P), of `prepare`d images (B, C, S, S)."""
        self.need_position()
        return self.model.locate(self._image(batch)).mean.cpu().numpy()

    @torch.inference_mode()
    def encode(self, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The posterior means z (B, Z) and theta (B, P), float32, of `prepare`d images (B, C, S, S).

        P is 0 for a single-headed VAE.
        """
        found = [self.model.encode(self._image(batch[part])) for part in self._parts(len(batch))]
        z, theta = torch.cat([each.z for each in found]), torch.cat([each.theta for each in found])
        return z.float().cpu().numpy(), theta.float().cpu().numpy()

    @torch.inference_mode()
    def decode(self, codes: Sequence[Code]) -> np.ndarray:
        """The VAE's pictures x_hat, float32 (B, C, S, S), about [-1, 1]."""
        made = [self.model.decode(self._latents(codes[part])) for part in self._parts(len(codes))]
        return torch.cat(made).float().cpu().numpy()

    @torch.inference_mode()
    def refine(
        self,
        recon: np.ndarray,
        keys: Sequence[str],
        *,
        seed: int = 0,
        steps: int = 20,
        solver: str = "dpm++2m-sde",
        strength: float | None = None,
    ) -> np.ndarray:
        """Section 4: sharp pictures (B, C, S, S) in [-1, 1] drawn about the VAE's `recon`, of the same shape.

        A picture's noise depends on `seed` and its key alone. `strength` in (0.001, 1], by default the
        model's own, is the time from which it is solved back. ModelError for a model without a cDDPM.
        """
        refine = partial(self.refiner.refine, seed=seed, steps=steps, solver=solver, strength=strength)
        drawn = [refine(self._image(recon[part]), keys[part]) for part in self._parts(len(recon))]
        return torch.cat(drawn).float().cpu().numpy()

    def mask(self, theta: np.ndarray, size: tuple[int, int], pose: np.ndarray | None = None) -> np.ndarray:
        """The mask bool (h, w) of theta (P,), evaluated at that size; nothing is resized.

        `pose` (2, 3) is where the user moved it (see `edit.Code`).
        """
        return rasterise(self._level(theta, pose), size)

    def contour(
        self, theta: np.ndarray, size: tuple[int, int], pose: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """The exact outline of theta (P,) in an image of `size` (h, w): closed polygons (n, 2) xy in pixels.

        The frame is 0..w by 0..h, pixel centres at +0.5; outer rings have a positive shoelace area. `pose` as
        in `mask`.
        """
        level = self._level(theta, pose)
        polygons = contours(level) or contours(level, cells=512)
        return [(p + 1) / 2 * [size[1], size[0]] for p in polygons]

    def centre(self, code: Code) -> tuple[float, float]:
        """The centre of a code's object, xy in native pixels; InputError if there is no object."""
        ys, xs = np.nonzero(self.mask(code.theta, code.size, code.pose))
        if not len(xs):
            raise InputError("no object is found in it", hint="--about image needs none")
        return float(xs.mean() + 0.5), float(ys.mean() + 0.5)

    def _image(self, batch: np.ndarray) -> torch.Tensor:
        image = torch.from_numpy(np.require(batch, requirements="W"))
        return image.to(self.device, memory_format=torch.channels_last)

    def _latents(self, codes: Sequence[Code]) -> Latents:
        z = torch.from_numpy(np.stack([code.z for code in codes])).to(self.device)
        theta = torch.from_numpy(np.stack([code.theta for code in codes])).to(self.device)
        if all(code.pose is None for code in codes):
            return Latents(z, theta)
        still = np.eye(2, 3)
        poses = np.stack([still if code.pose is None else code.pose for code in codes])
        return Latents(z, theta, torch.from_numpy(poses))

    def _parts(self, count: int) -> list[slice]:
        """The slices of a batch that are worked on at once."""
        return [slice(i, i + 1) for i in range(count)] if self.one_by_one else [slice(0, count)]

    def _level(self, theta: np.ndarray, pose: np.ndarray | None) -> Level:
        self.need_position()
        level = partial(self.model.level, torch.from_numpy(theta)[None])
        return level if pose is None else lambda points: level(points @ pose[:, :2].T + pose[:, 2])

    def need_position(self) -> None:
        """ModelError for a single-headed VAE, which has no position code and no masks."""
        if self.model.warp is None:
            raise ModelError(f"{self.name}: a single-headed VAE finds no object")


def load_model(folder: Path) -> tuple[MultiHeadedVAE, str]:
    """The model of a folder and its name: no weights are drawn, those of the file are taken over."""
    content = read_config(folder)
    model = build(model_config(content, folder), seed=None)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    state = load_state(folder, expected=shapes)
    ready = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    model.load_state_dict(ready, assign=True)
    return model, content["name"]
