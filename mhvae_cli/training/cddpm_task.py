"""Section 4: the loss of the cDDPM for a frozen VAE, its validation, and its model folder."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.folder import save_model
from ..checkpoints.model_card import model_card
from ..config import CDDPMConfig, to_dict
from ..diffusion.density import CUT_SIDE, Density, cut_share
from ..diffusion.frames import TONES, Frames, black_border, tone_counts, tone_evidence
from ..diffusion.refiner import Refiner
from ..diffusion.sde import SDE
from ..diffusion.solvers import END
from ..diffusion.spectrum import band_power
from ..filesystem import write_atomic
from ..images.encode import encode_png
from ..images.render import sheet
from ..images.transforms import from_square
from ..inference.sampling import found_again
from ..inference.texturing import given_of, texture_layers, texture_maps, with_texture
from ..vae.decoder import resized
from ..vae.latents import Latents
from ..vae.model import MultiHeadedVAE
from ..vae.outline import mask
from .datasets import Images
from .holes import HOLE_NUMBERS, make_hints
from .loop import sheet_due, swap_weights

MAX_MEASURED_IMAGES = 512
"""Maximum number of training images used to measure the scale and the density of the latent codes."""
USUAL = 0.98
"""The share of training objects that limit how far sampled ones are cut by the edge, or fail to stand out."""

SHEET_ROWS = 6
Draw = Callable[[Tensor, Tensor, Tensor], Latents]
"""`CDDPMTask.draw`."""


@dataclass(frozen=True)
class CropBatch:
    """Augmented images (B, C, S, S) in [-1, 1], standard normal noise for theta (B, P) and z (B, Z), and k
    crops per image: their top left corners (B, k, 2) yx, times (B, k) and noise (B, k, C, crop, crop). The
    random numbers `holes` (B, 6) in [0, 1) define what is known of each image (`holes.known_weight`), and
    `frame` bool (B, 1, S, S) is where it is black as a part of its frame."""

    image: Tensor
    eps_theta: Tensor
    eps_z: Tensor
    corners: np.ndarray
    t: Tensor
    eps: Tensor
    holes: Tensor
    frame: Tensor


class Objective(nn.Module):
    """The loss of a batch as a module, which DistributedDataParallel can wrap.

    `draw` and `vae` are those of the task: the VAE is frozen, and not a part of the module.
    """

    def __init__(self, refiner: Refiner, vae: MultiHeadedVAE, draw: Draw) -> None:
        super().__init__()
        self.refiner = refiner
        self.draw = draw
        self.frozen = (vae,)  # a tuple hides its parameters from the module

    def forward(self, batch: CropBatch, progress: float) -> dict[str, Tensor]:
        """The loss of equation 8, averaged over the crops."""
        device = self.refiner.codes_factor.device
        image = batch.image.to(device, memory_format=torch.channels_last)
        with torch.no_grad():
            latents = self.draw(image, batch.eps_theta.to(device), batch.eps_z.to(device))
            vae = self.frozen[0]
            frame = batch.frame.to(device)
            x_hat = resized(vae.decode(latents), image.shape[-1]).masked_fill(frame, -1)
            given = make_hints(self.refiner, vae, image, x_hat, latents, batch.holes.to(device), frame)
        size = batch.eps.shape[-1]
        crops, crops_hat = _crops(image, batch.corners, size), _crops(x_hat, batch.corners, size)
        further = [None if x is None else _crops(x, batch.corners, size) for x in given]
        t, eps = batch.t.to(device).flatten(), batch.eps.to(device).flatten(0, 1)
        return {"loss": self.refiner.network.loss(crops, crops_hat, t, eps, *further).mean()}


class CDDPMTask:
    """Training of a cDDPM on `train`, validated on `val`, with `out` as the model folder.

    `content` is the config.json of the model folder without validation metrics, `vae_state` the weights of
    the VAE as stored, which are copied unchanged. `dtype` is that of training, and of validation.
    """

    def __init__(
        self,
        vae: MultiHeadedVAE,
        refiner: Refiner,
        config: CDDPMConfig,
        train: Images,
        val: Images,
        *,
        content: Mapping[str, Any],
        vae_state: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype,
        out: Path,
    ) -> None:
        self.vae = vae.eval().requires_grad_(False).to(device)
        self.module = Objective(refiner.to(device), self.vae, self.draw)
        self.refiner, self.config = refiner, config
        self.train, self.val, self.out = train, val, out
        self.content, self.vae_state, self.dtype = content, vae_state, dtype
        self.dims = (vae.theta_dim, vae.config.z_dim)

    def __len__(self) -> int:
        return len(self.train)

    def draw(self, image: Tensor, eps_theta: Tensor, eps_z: Tensor) -> Latents:
        """Latent codes sampled from the posterior of images (B, C, S, S).

        The VAE fits its training images better than the new images that the cDDPM will refine; sampling
        reduces this difference.
        """
        q_theta, q_z = self.vae.posteriors(resized(image, self.vae.config.image_size))
        theta = eps_theta if q_theta is None else q_theta.rsample(eps_theta)
        return Latents(q_z.rsample(eps_z), theta)

    @torch.inference_mode()
    def find_frames(self) -> None:
        """Set the refiner's frames to those of the training images: always the same for the same ones."""
        self.refiner.frames = None
        rng, counts, borders = np.random.default_rng(self.config.seed), np.zeros((2, TONES)), []
        measured = set(rng.permutation(len(self.train))[:MAX_MEASURED_IMAGES].tolist())
        device = self.refiner.codes_factor.device
        for i in range(len(self.train)):
            image = self.train.plain([i])
            borders.append(black_border(image[0].numpy()))
            if i in measured and borders[-1].any():
                x_hat = self._decoded(self._encoded(image.to(device)), image)
                counts += tone_counts(x_hat[0].float().cpu().numpy(), borders[-1])
        subjects = [sample.subject for sample in self.train.samples]
        self.refiner.frames = Frames.fit(np.stack(borders), subjects, tone_evidence(counts))

    def measure(self) -> None:
        """Set the refiner's texture, scale, spectrum and density of latent codes from training images."""
        powers, mean_squares, zs, thetas, again = [], [], [], [], list[float]()
        device, network = self.refiner.codes_factor.device, self.refiner.network
        network.scale.fill_(1)  # that of the cDDPM from which training starts is another VAE's
        rng = np.random.default_rng(self.config.seed)
        indices = rng.permutation(len(self.train))[:MAX_MEASURED_IMAGES].tolist()

        def images() -> Iterator[Tensor]:
            for i in range(0, len(indices), 16):
                yield self.train.plain(indices[i : i + 16]).to(device, memory_format=torch.channels_last)

        def drawn(image: Tensor) -> tuple[Tensor, Latents]:
            noise = [rng.standard_normal((len(image), d), np.float32) for d in self.dims]
            latents = self.draw(image, *(torch.from_numpy(n).to(device) for n in noise))
            return self._decoded(latents, image), latents

        with torch.no_grad():
            if network.texture is not None:
                layers = [texture_layers(self.vae, image, *drawn(image)) for image in images()]
                network.texture.fit(torch.cat(layers))
            for image in images():
                x_hat, latents = drawn(image)
                latents = with_texture(self.vae, network, image, x_hat, latents)
                start = network.target(image, x_hat, self._texture(latents))
                mean_squares += start.square().flatten(1).mean(1).tolist()
                powers.append(len(start) * band_power(start))
                zs.append(latents.z.cpu().numpy())
                thetas.append(latents.theta.cpu().numpy())
                again += found_again(self.vae, latents) if self.vae.warp is not None else []
        theta = np.concatenate(thetas)
        least = float(np.quantile(again, 1 - USUAL)) if again else 0.0
        density = Density.fit(np.concatenate(zs), theta, cut=self._most_cut(theta), found=least)
        if network.config.normalise:
            network.scale.fill_(float(np.sqrt(np.mean(mean_squares))))
        if network.spectrum is not None:
            network.spectrum.store(torch.stack(powers).sum(0) / len(indices) / network.scale**2)
        self.refiner.store(density)

    def _most_cut(self, thetas: np.ndarray) -> float:
        if self.vae.warp is None:
            return 1.0
        cuts = [cut_share(mask(self.vae, theta, (CUT_SIDE, CUT_SIDE))) for theta in thetas]
        return float(np.quantile(cuts, USUAL))

    def batch(self, indices: list[int], epoch: int) -> CropBatch:
        """An augmented batch of training images; the times of an image's crops are stratified."""
        c, size = self.config, self.train.image_size
        image, rngs, _ = self.train.augmented(indices, c.augment, seed=c.seed, epoch=epoch)
        crop = min(c.crop or size, size)
        noise = [np.stack([r.standard_normal(d, np.float32) for r in rngs]) for d in self.dims]
        eps_theta, eps_z = map(torch.from_numpy, noise)
        corners = np.stack([r.integers(0, size - crop + 1, (c.crops, 2)) for r in rngs])
        shape = (c.crops, image.shape[1], crop, crop)
        eps = [torch.from_numpy(r.standard_normal(shape, np.float32)) for r in rngs]
        quantiles = [(np.arange(c.crops) + r.random(c.crops)) / c.crops for r in rngs]
        t = torch.stack([times(self.refiner.network.sde, q, c) for q in quantiles])
        holes = torch.from_numpy(np.stack([r.random(HOLE_NUMBERS, np.float32) for r in rngs]))
        frame = self.refiner.frame_of(image)
        return CropBatch(image, eps_theta, eps_z, corners, t, torch.stack(eps), holes, frame)

    def validate(self, ema: Mapping[str, Tensor], epoch: int) -> dict[str, float]:
        """The loss of equation 8 of the EMA weights; in some epochs also write a contact sheet."""
        with swap_weights(self.module, ema):
            loss = self._loss()
            if sheet_due(epoch, self.config):
                write_atomic(self.out / "sheets" / f"epoch{epoch:04d}.png", encode_png(self._contact_sheet()))
        return {"val_loss": loss, "scale": float(self.refiner.network.scale), "score": -loss}

    def _encoded(self, image: Tensor) -> Latents:
        """The latent codes of images (B, C, S, S), which may be finer than the VAE's."""
        seen = resized(image, self.vae.config.image_size)
        return self.vae.encode(seen.contiguous(memory_format=torch.channels_last))

    def _decoded(self, latents: Latents, image: Tensor) -> Tensor:
        """The VAE's images (B, C, S, S), as fine as the images that they are of, and black in their frame."""
        x_hat = resized(self.vae.decode(latents), self.train.image_size)
        return x_hat.masked_fill(self.refiner.frame_of(image), -1)

    def _texture(self, latents: Latents) -> Tensor | None:
        return texture_maps(self.vae, self.refiner.network, latents, self.train.image_size)

    def save_model(self, ema: Mapping[str, Tensor], metrics: Mapping[str, float]) -> None:
        """Write the model folder with the VAE, the EMA weights and their validation metrics."""
        state = {name.removeprefix("refiner."): value for name, value in ema.items()}
        cddpm = self.content["cddpm"]
        training = {**cddpm["training"], **to_dict(self.config)}
        cddpm = {**cddpm, "training": training, "validation": dict(metrics)}
        content = {**self.content, "cddpm": cddpm}
        states: dict[str, Mapping[str, Tensor]] = {"vae": self.vae_state, "cddpm": state}
        if self.refiner.frames is not None:
            arrays = self.refiner.frames.arrays()
            states["frames"] = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
        save_model(self.out, config=content, states=states, card=model_card(content))

    def _autocast(self) -> torch.autocast:
        """Validation has the precision of training: where that is float32, bfloat16 may have no kernels."""
        device = self.refiner.codes_factor.device
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    @torch.inference_mode()
    def _loss(self) -> float:
        """The mean loss on whole validation images, at fixed times and with fixed noise."""
        device, network = self.refiner.codes_factor.device, self.refiner.network
        rng = np.random.default_rng(0)
        losses = []
        for i in range(0, len(self.val), 8):
            image = self.val.plain(range(i, min(i + 8, len(self.val)))).to(device)
            latents = self._encoded(image)
            x_hat = self._decoded(latents, image)
            holes = torch.from_numpy(rng.random((len(image), HOLE_NUMBERS), np.float32)).to(device)
            given = make_hints(
                self.refiner, self.vae, image, x_hat, latents, holes, self.refiner.frame_of(image)
            )
            quantiles = (np.arange(i, i + len(image)) % 32 + 0.5) / 32
            t = times(network.sde, quantiles, self.config).to(device)
            eps = torch.from_numpy(rng.standard_normal(image.shape, np.float32)).to(device)
            with self._autocast():
                losses += network.loss(image, x_hat, t, eps, *given).tolist()
        return float(np.mean(losses))

    def _contact_sheet(self) -> np.ndarray:
        """A row per image, uint8 RGB: the image, the VAE's reconstruction, and the refined image."""
        indices = range(min(SHEET_ROWS, len(self.val)))
        device = self.refiner.codes_factor.device
        image = self.val.plain(indices).to(device, memory_format=torch.channels_last)
        with torch.inference_mode(), self._autocast():
            latents = self._encoded(image)
            x_hat = self._decoded(latents, image)
            latents = with_texture(self.vae, self.refiner.network, image, x_hat, latents)
            given = given_of(self.vae, self.refiner.network, latents, image.shape[-1])
            keys = [self.val.samples[i].id for i in indices]
            refined = self.refiner.refine(x_hat, keys, **given)
        rows = zip(image, x_hat, refined, strict=True)
        cells = [[from_square(x.float().cpu().numpy()) for x in row] for row in rows]
        return sheet(cells, ["image", "VAE", "refined"], cell=192)


def times(sde: SDE, quantiles: np.ndarray, config: CDDPMConfig) -> Tensor:
    """The times float32 (N,) at these quantiles (N,) of the noise levels' normal distribution."""
    distribution = NormalDist(config.level, config.level_sd)
    levels = (distribution.inv_cdf(min(max(q, 1e-3), 1 - 1e-3)) for q in quantiles)
    return torch.tensor([sde.time_of(min(max(x, sde.log_snr(1.0)), sde.log_snr(END))) for x in levels])


def _crops(image: Tensor, corners: np.ndarray, size: int) -> Tensor:
    """Crops (B k, C, size, size) of images (B, C, S, S) at corners (B, k, 2) yx."""
    crops = [
        pixels[:, y : y + size, x : x + size]
        for pixels, points in zip(image, corners, strict=True)
        for y, x in points
    ]
    return torch.stack(crops)
