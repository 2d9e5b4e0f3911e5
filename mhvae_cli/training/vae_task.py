"""Section 3.4: the loss of the multi-headed VAE, its validation, and its model folder."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.folder import save_model
from ..checkpoints.model_card import model_card
from ..config import SCRATCH, AugmentConfig, ModelConfig, TrainConfig, to_dict
from ..filesystem import write_atomic
from ..images.encode import encode_png
from ..vae.boundary import boundary_miss, nudged, outlines, true_distance
from ..vae.fitting import distance_map, fit_tones
from ..vae.fitting import fit as fit_warp
from ..vae.latents import Gaussian, Latents
from ..vae.losses import coarse_miss, contour_miss, log_cosh, soft_dice, warmup
from ..vae.model import MultiHeadedVAE, build
from ..vae.warp import Warp
from .datasets import Batch, MaskedImages
from .loop import sheet_due, swap_weights
from .validation import contact_sheet, validate, validate_crops
from .warm_start import describe_start, start_vae

BOUNDARY_WEIGHT = 0.1
"""Of the boundary head's loss, which trains that head alone; it only counts where gradients are clipped."""
REFERENCE_SIZE = 256
TONE_IMAGES, TONE_VIEWS = 2000, 20
"""Tones are fitted to as many augmented images before training, but at most so many views of each."""
FIRST_TONE_EPOCH = 1_000_000
"""Number that keys the augmentation of those images: no training lasts so long."""
SHEET_ROWS = 6


class Objective(nn.Module):
    """The loss of a batch as a module, which DistributedDataParallel can wrap.

    Parameters that `config.part` excludes are frozen.
    """

    def __init__(self, model: MultiHeadedVAE, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config.loss
        self.part = config.part
        encoder = model.encoder
        trained: dict[str, list[nn.Module | None]] = {
            "all": [model],
            "position": [encoder.convnet, encoder.reduce, encoder.theta, model.boundary_head],
            "style": [encoder.z, model.image_head],
            "boundary": [model.boundary_head],
        }
        model.requires_grad_(False)
        for part in trained[config.part]:
            if part is not None:
                part.requires_grad_(True)

    def train(self, mode: bool = True) -> "Objective":
        """Set the training mode, except where the encoder and its batch norms' statistics are frozen."""
        super().train(mode and self.part not in ("style", "boundary"))
        return self

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """The batch means of the loss terms; "loss" is their weighted sum (section 3.4)."""
        device = next(self.parameters()).device
        image = batch.image.to(device, memory_format=torch.channels_last)
        c, kl = self.config, warmup(progress, self.config.kl_warmup)
        if self.part == "boundary":
            with torch.no_grad():
                flat, maps = self.model.encoder.features(image)
                theta = self.model.encoder.position(flat).mean
            boundary = self.boundary_loss(image, maps, theta, batch)
            return {"loss": boundary, "boundary": boundary}
        if self.part == "position":
            flat, maps = self.model.encoder.features(image)
            q_theta = self.model.encoder.position(flat)
            theta = q_theta.rsample(batch.eps_theta.to(device))
            mask_pred = self.model.mask(theta, (image.shape[2], image.shape[3]))
            loss, terms = self.position_loss(q_theta, theta, mask_pred, batch, kl)
            if self.model.boundary_head is not None:
                terms["boundary"] = self.boundary_loss(image, maps, q_theta.mean, batch)
                loss = loss + BOUNDARY_WEIGHT * terms["boundary"]
            return {"loss": loss, **terms}
        noise = batch.eps_theta.to(device), batch.eps_z.to(device)
        out = self.model(image, *noise, refined=self.part == "style")
        terms = {"recon": log_cosh(out.recon, image).mean(), "kl_z": out.q_z.kl().mean()}
        loss = c.recon * terms["recon"] + kl * c.kl_z * terms["kl_z"]
        if c.coarse > 0:
            terms["coarse"] = coarse_miss(out.recon, image).mean()
            loss = loss + c.coarse * terms["coarse"]
        if c.consistency > 0:
            pose = batch.pose.to(device)
            terms["consistency"] = self.consistency(Latents(out.z, out.theta, pose), image.shape[-1])
            loss = loss + c.consistency * terms["consistency"]
        if self.model.warp is not None:
            position, position_terms = self.position_loss(out.q_theta, out.theta, out.mask_pred, batch, kl)
            loss, terms = loss + position, terms | position_terms
            if self.model.boundary_head is not None and self.part == "all":
                terms["boundary"] = self.boundary_loss(image, out.maps, out.q_theta.mean, batch)
                loss = loss + BOUNDARY_WEIGHT * terms["boundary"]
        return {"loss": loss, **terms}

    def position_loss(
        self, q_theta: Gaussian, theta: Tensor, mask_pred: Tensor, batch: Batch, kl: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of the loss terms of theta and its mask, and the terms."""
        c = self.config
        terms = {
            "dice": soft_dice(mask_pred, batch.mask.to(mask_pred.device)).mean(),
            "kl_theta": q_theta.kl().mean(),
        }
        loss = c.dice * (1 - terms["dice"]) + kl * c.kl_theta * terms["kl_theta"]
        if c.contour > 0:
            level, slope = self._contour_level(theta, batch.rim)
            terms["contour"] = contour_miss(level, slope, batch.rim_weight.to(theta.device)).mean()
            loss = loss + c.contour * terms["contour"]
        return loss, terms

    def boundary_loss(self, image: Tensor, maps: list[Tensor], theta: Tensor, batch: Batch) -> Tensor:
        """The mean `boundary_miss` at outlines of theta (B, P) that are wrong at random.

        The encoder does not learn from it: what it finds by itself stays as good.
        """
        head, warp = self.model.boundary_head, self.model.warp
        assert head is not None and warp is not None
        found = outlines(warp, theta)
        points, normals = (each.to(image.device) for each in nudged(found, batch.nudges))
        target = true_distance(batch.mask.to(image.device), points, normals)
        # Beyond the image's border nothing is known.
        weight = torch.from_numpy(found.found).to(points) * (points.abs().amax(2) < 0.98)
        with torch.autocast(image.device.type, enabled=False):
            distance, log_error = head([image, *(each.detach() for each in maps)], points, normals)
            return boundary_miss(distance, log_error, target, weight).mean()

    def consistency(self, latents: Latents, size: int) -> Tensor:
        """Consistency of edits: decode an edited latent code, encode the image, and compare the codes.

        The sum of the squared error of z relative to its variance, and 1 - Dice of the mask. A quarter of
        the batch is edited, as in figures 5, 6 and 8: each gets the z of another image and a random pose.
        """
        count = min(len(latents.z), max(2, len(latents.z) // 4))  # batch norms need two
        z, theta = latents.z.roll(1, 0)[:count], latents.theta[:count].detach()
        pose = None
        if self.model.warp is not None:
            assert latents.pose is not None
            pose = latents.pose[:count]
        encoded = self.model.encode(self.model.decode(Latents(z, theta, pose)))
        variance = latents.z.detach().var(0, correction=0).mean()  # uncorrected: 0 for one image, not NaN
        z_error = (encoded.z - z).square().mean() / variance.clamp_min(1e-3)
        if self.model.warp is None:
            return z_error
        target = self.model.mask(theta, (size, size), pose).detach()
        return z_error + (1 - soft_dice(self.model.mask(encoded.theta, (size, size)), target)).mean()

    def _contour_level(self, theta: Tensor, rim: np.ndarray) -> tuple[Tensor, Tensor]:
        """The level (B, N) at contour points (B, N, 2), and its gradient (B, 2, N) by central differences."""
        assert self.model.warp is not None
        step = np.eye(2) * 1e-2
        points = np.concatenate([rim, *(rim + s for s in step), *(rim - s for s in step)], axis=1)
        source = self.model.warp.at(theta, points)
        level = self.model.segmentation_head.level(source[:, :, None])[:, 0]
        here, right, down, left, up = level.chunk(5, dim=1)
        return here, torch.stack([right - left, down - up], dim=1) / 2e-2


@dataclass(frozen=True)
class ModelInfo:
    """The entries `name`, `card` and `training` of the model folder's config.json."""

    name: str
    card: Mapping[str, Any]
    training: Mapping[str, Any]


class VAETask:
    """Training of a VAE on `train`, validated on `val`, with `out` as the model folder."""

    def __init__(
        self,
        model: MultiHeadedVAE,
        config: TrainConfig,
        train: MaskedImages,
        val: MaskedImages,
        info: ModelInfo,
        *,
        out: Path,
    ) -> None:
        self.module = Objective(model, config)
        self.model, self.config = model, config
        self.train, self.val, self.info, self.out = train, val, info, out
        self.dims = (model.theta_dim, model.config.z_dim)

    def __len__(self) -> int:
        return len(self.train)

    def batch(self, indices: list[int], epoch: int) -> Batch:
        """An augmented batch of training images."""
        augment, seed = self.config.augment, self.config.seed
        return self.train.batch(indices, augment, seed=seed, epoch=epoch, dims=self.dims)

    def validate(self, ema: Mapping[str, Tensor], epoch: int) -> dict[str, float]:
        """Metrics of the EMA weights (`validation.validate`); in some epochs also write a contact sheet."""
        with swap_weights(self.module, ema):
            decoded = self.config.part not in ("position", "boundary")
            metrics = validate(self.model, self.val, decoded=decoded)
            if self.config.augment.crop > 0 and self.model.warp is not None:
                metrics |= validate_crops(self.model, self.val)
            if self.config.part == "style":
                metrics["score"] = -metrics["val_recon"]
            if sheet_due(epoch, self.config):
                indices = range(min(SHEET_ROWS, len(self.val)))
                pixels = contact_sheet(self.model, self.val, indices, decoded=decoded)
                write_atomic(self.out / "sheets" / f"epoch{epoch:04d}.png", encode_png(pixels))
        return metrics

    def save_model(self, ema: Mapping[str, Tensor], metrics: Mapping[str, float]) -> None:
        """Write the model folder with the EMA weights and their validation metrics."""
        state = {k.removeprefix("model."): v for k, v in ema.items()}
        info = replace(self.info, training={**self.info.training, **to_dict(self.config)})
        write_model(self.out, self.model.config, state, info, {"validation": dict(metrics)})


def write_model(
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    info: ModelInfo,
    figures: Mapping[str, Any],
    *,
    half: bool = False,
) -> None:
    """Write a model folder: config.json, vae.safetensors and the model card; in float16 if `half`."""
    content = {
        "format": 1,
        "kind": "mhvae",
        "name": info.name,
        "model": to_dict(config),
        "training": dict(info.training),
        "card": dict(info.card),
        "figures": dict(figures),
    }
    card = model_card(content)
    save_model(folder, config=content, states={"vae": state}, card=card, dtype="float16" if half else None)


def prepare_model(
    config: ModelConfig,
    train: MaskedImages,
    *,
    seed: int,
    augment: AugmentConfig = AugmentConfig(),
    part: str = "all",
    start: str = SCRATCH,
    resume: bool = False,
    reference: np.ndarray | None = None,
    offline: bool = False,
) -> tuple[MultiHeadedVAE, str]:
    """A model initialized with `seed`, with the statistics of theta from warps fitted to the training masks,
    and those of tones, if it has any, from augmented training images.

    `reference` is a bool mask (H, W) used instead of the disc. Also returns what the weights start from, as
    `describe_start` says of `start`. With `resume`, nothing is fitted, since the training state holds it.
    Raises ModelError if the weights do not match.
    """
    if reference is not None:
        config = replace(config, reference=REFERENCE_SIZE, boundary=False)
    model = build(config, seed=seed)
    taken = start_vae(model, start, part=part, offline=offline)
    if reference is not None:
        assert model.segmentation_head.reference is not None
        model.segmentation_head.reference.copy_(torch.from_numpy(distance_map(reference, REFERENCE_SIZE)))
    if model.warp is not None and "position" not in taken and not resume:
        offsets = _fitted(model.warp, train.masks.numpy() > 127)
        # The fit fails for a few masks (rings, slivers): clip to the 1st and 99th percentiles.
        low, high = np.percentile(offsets, [1, 99], axis=0)
        model.warp.set_statistics(torch.from_numpy(np.clip(offsets, low, high)).float())
    if "style" not in taken and not resume:
        _start_tones(model, train, augment, seed=seed, trained="position" in taken)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    return model, describe_start(start, taken, model)


@torch.no_grad()
def _start_tones(
    model: MultiHeadedVAE, train: MaskedImages, augment: AugmentConfig, *, seed: int, trained: bool
) -> None:
    """`fit_tones` to augmented training images, if the model has tones.

    Theta is what a `trained` model finds, as in training, or else the warp fitted to the mask.
    """
    if model.warp is None or not model.config.tones:
        return
    layers: list[Tensor] = []
    model.eval()
    for epoch in range(min(TONE_VIEWS, math.ceil(TONE_IMAGES / len(train)))):
        for i in range(0, len(train), 16):
            indices = list(range(i, min(i + 16, len(train))))
            batch = train.batch(indices, augment, seed=seed, epoch=FIRST_TONE_EPOCH + epoch, dims=(0, 0))
            if trained:
                theta = model.locate(batch.image).mean
            else:
                offsets = torch.from_numpy(_fitted(model.warp, batch.mask.numpy() > 0.5)).float()
                theta = model.warp.theta_of(model.warp.identity + offsets)
            layers.append(model.layers(batch.image, theta))
    fit_tones(model.train(), torch.cat(layers))


def _fitted(warp: Warp, masks: np.ndarray) -> np.ndarray:
    """The offsets float64 (N, 2, M) of the warps fitted to masks bool (N, S, S)."""
    return np.stack([fit_warp(warp, mask) for mask in masks])
