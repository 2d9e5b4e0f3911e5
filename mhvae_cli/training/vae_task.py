"""Section 3.4: the multi-headed VAE's objective, its validation, and the model folder it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.folder import load_state, save_model
from ..checkpoints.model_card import model_card
from ..checkpoints.registry import bundled, load_pretrained, resolve
from ..config import ModelConfig, TrainConfig, to_dict
from ..errors import ModelError
from ..filesystem import write_atomic
from ..images.encode import encode_png
from ..vae.fitting import distance_map
from ..vae.fitting import fit as fit_warp
from ..vae.latents import Gaussian, Latents
from ..vae.losses import coarse_miss, contour_miss, log_cosh, soft_dice, warmup
from ..vae.model import MultiHeadedVAE, build
from ..vae.pretrained import start_from
from .datasets import Batch, MaskedImages
from .loop import sheet_due, weights
from .validation import preview, second_looks, validation

REFERENCE_SIZE = 256
SHEET_ROWS = 6


class Objective(nn.Module):
    """The loss of one batch as a module, so that torch's data parallelism can wrap it."""

    def __init__(self, model: MultiHeadedVAE, config: TrainConfig) -> None:
        super().__init__()
        self.model = model
        self.config = config.loss
        self.position_only, self.style_only = config.part == "position", config.part == "style"
        encoder = model.encoder
        parts: dict[str, list[nn.Module | None]] = {
            "all": [model],
            "position": [encoder.convnet, encoder.reduce, encoder.theta],
            "style": [encoder.z, model.image_head],
        }
        model.requires_grad_(False)
        for part in parts[config.part]:
            assert part is not None
            part.requires_grad_(True)

    def train(self, mode: bool = True) -> "Objective":
        """As any module's, but what is frozen stays in evaluation."""
        super().train(mode and not self.style_only)
        return self

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Batch means of the loss parts; `loss` is their weighted sum (section 3.4)."""
        device = next(self.parameters()).device
        image = batch.image.to(device, memory_format=torch.channels_last)
        c, kl = self.config, warmup(progress, self.config.kl_warmup)
        if self.position_only:
            q_theta = self.model.locate(image)
            theta = q_theta.rsample(batch.eps_theta.to(device))
            mask_pred = self.model.mask(theta, (image.shape[2], image.shape[3]))
            loss, parts = self.position(q_theta, theta, mask_pred, batch, kl)
            return {"loss": loss, **parts}
        out = self.model(image, batch.eps_theta.to(device), batch.eps_z.to(device))
        parts = {"recon": log_cosh(out.recon, image).mean(), "kl_z": out.q_z.kl().mean()}
        loss = c.recon * parts["recon"] + kl * c.kl_z * parts["kl_z"]
        if c.coarse > 0:
            parts["coarse"] = coarse_miss(out.recon, image).mean()
            loss = loss + c.coarse * parts["coarse"]
        if c.consistency > 0:
            pose = batch.pose.to(device)
            parts["consistency"] = self.consistency(Latents(out.z, out.theta, pose), image.shape[-1])
            loss = loss + c.consistency * parts["consistency"]
        if self.model.warp is not None:
            lost, more = self.position(out.q_theta, out.theta, out.mask_pred, batch, kl)
            loss, parts = loss + lost, parts | more
        return {"loss": loss, **parts}

    def position(
        self, q_theta: Gaussian, theta: Tensor, mask_pred: Tensor, batch: Batch, kl: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the position code loses of the masks: the weighted sum, and its parts."""
        c = self.config
        parts = {
            "dice": soft_dice(mask_pred, batch.mask.to(mask_pred.device)).mean(),
            "kl_theta": q_theta.kl().mean(),
        }
        loss = c.dice * (1 - parts["dice"]) + kl * c.kl_theta * parts["kl_theta"]
        if c.contour > 0:
            level, slope = self._rim_level(theta, batch.rim)
            parts["contour"] = contour_miss(level, slope, batch.rim_weight.to(theta.device)).mean()
            loss = loss + c.contour * parts["contour"]
        return loss, parts

    def consistency(self, latents: Latents, size: int) -> Tensor:
        """What is lost when edited pictures are encoded again: relative error of z, and 1 - Dice of the mask.

        Figures 5, 6 and 8 in numbers: a quarter of the batch (B, ...) gets the style of another and a pose.
        """
        count = max(1, len(latents.z) // 4)
        z, theta = latents.z.roll(1, 0)[:count], latents.theta[:count].detach()
        pose = None
        if self.model.warp is not None:
            assert latents.pose is not None
            pose = latents.pose[:count]
        found = self.model.encode(self.model.decode(Latents(z, theta, pose)))
        spread = latents.z.detach().var(0, correction=0).mean()  # of one code 0, not NaN
        lost = (found.z - z).square().mean() / spread.clamp_min(1e-3)
        if self.model.warp is None:
            return lost
        asked = self.model.mask(theta, (size, size), pose).detach()
        return lost + (1 - soft_dice(self.model.mask(found.theta, (size, size)), asked)).mean()

    def _rim_level(self, theta: Tensor, rim: np.ndarray) -> tuple[Tensor, Tensor]:
        """The level (B, N) at the rim's points (B, N, 2); its gradient (B, 2, N), by central differences."""
        assert self.model.warp is not None
        step = np.eye(2) * 1e-2
        points = np.concatenate([rim, *(rim + s for s in step), *(rim - s for s in step)], axis=1)
        source = self.model.warp.at(theta, points)
        level = self.model.segmentation_head.level(source[:, :, None])[:, 0]
        here, right, down, left, up = level.chunk(5, dim=1)
        return here, torch.stack([right - left, down - up], dim=1) / 2e-2


@dataclass(frozen=True)
class ModelInfo:
    """What the model folder says of itself: its name, its card's fields, and how it was made."""

    name: str
    card: Mapping[str, Any]
    training: Mapping[str, Any]


class VAETask:
    """Trains on `train`, chooses on `val`; `keep` writes the model folder `out`."""

    def __init__(
        self,
        model: MultiHeadedVAE,
        config: TrainConfig,
        train: MaskedImages,
        val: MaskedImages,
        about: ModelInfo,
        *,
        out: Path,
    ) -> None:
        self.module = Objective(model, config)
        self.model, self.config = model, config
        self.train, self.val, self.about, self.out = train, val, about, out
        self.dims = (model.theta_dim, model.config.z_dim)

    def __len__(self) -> int:
        return len(self.train)

    def batch(self, indices: list[int], epoch: int) -> Batch:
        augment, seed = self.config.augment, self.config.seed
        return self.train.batch(indices, augment, seed=seed, epoch=epoch, dims=self.dims)

    def validate(self, ema: Mapping[str, Tensor], epoch: int) -> dict[str, float]:
        """Mean Dice and Hausdorff distance (256ths of the side) of the EMA weights on `val`, and its loss."""
        with weights(self.module, ema):
            decoded = self.config.part != "position"
            figures = validation(self.model, self.val, decoded=decoded)
            if self.config.augment.crop > 0 and self.model.warp is not None:
                figures |= second_looks(self.model, self.val)
            if self.config.part == "style":
                figures["score"] = -figures["val_recon"]
            if sheet_due(epoch, self.config.epochs):
                picks = range(min(SHEET_ROWS, len(self.val)))
                picture = preview(self.model, self.val, picks, decoded=decoded)
                write_atomic(self.out / "sheets" / f"epoch{epoch:04d}.png", encode_png(picture))
        return figures

    def keep(self, ema: Mapping[str, Tensor], figures: Mapping[str, float]) -> None:
        """Write the model folder of the EMA weights, and `figures` into it."""
        state = {k.removeprefix("model."): v for k, v in ema.items()}
        write_model(self.out, self.model.config, state, self.about, {"validation": dict(figures)})


def write_model(
    folder: Path,
    config: ModelConfig,
    state: Mapping[str, Tensor],
    about: ModelInfo,
    figures: Mapping[str, Any],
    *,
    half: bool = False,
) -> None:
    """A model folder: config.json, vae.safetensors and the card."""
    content = {
        "format": 1,
        "kind": "mhvae",
        "name": about.name,
        "model": to_dict(config),
        "training": dict(about.training),
        "card": dict(about.card),
        "figures": dict(figures),
    }
    card = model_card(content)
    save_model(folder, config=content, states={"vae": state}, card=card, dtype="float16" if half else None)


def prepare_model(
    config: ModelConfig,
    train: MaskedImages,
    *,
    seed: int,
    part: str = "all",
    pretrained: str | None = None,
    reference: np.ndarray | None = None,
    offline: bool = False,
) -> MultiHeadedVAE:
    """A fresh model, theta's statistics from warps fitted to the training masks.

    `pretrained`: ImageNet weights for the ConvNet, or a whole model (a bundled name or a model folder) of the
    same configuration; unless `part` is "all" its style and image heads may be others, then drawn anew.
    `reference`: a bool mask (H, W) in the disc's place. ModelError if weights do not fit.
    """
    if reference is not None:
        config = replace(config, reference=REFERENCE_SIZE)
    model = build(config, seed=seed)
    if reference is not None:
        assert model.segmentation_head.reference is not None
        model.segmentation_head.reference.copy_(torch.from_numpy(distance_map(reference, REFERENCE_SIZE)))
    if pretrained and (pretrained in bundled() or (Path(pretrained) / "config.json").is_file()):
        model.load_state_dict(_whole(model, resolve(pretrained), part))
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot it
        return model
    if pretrained:
        start_from(model.encoder.convnet, load_pretrained(pretrained, offline=offline))
    if model.warp is not None:
        offsets = np.stack([fit_warp(model.warp, mask) for mask in train.masks.numpy() > 127])
        # A few masks (rings, slivers) defeat the fit; clipping at the 1st and 99th percentiles tames them.
        low, high = np.percentile(offsets, [1, 99], axis=0)
        model.warp.set_statistics(torch.from_numpy(np.clip(offsets, low, high)).float())
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch forgot it
    return model


def _whole(model: MultiHeadedVAE, folder: Path, part: str) -> dict[str, Tensor]:
    """The state of a model folder, for `model`. Unless `part` is "all" its image head may differ (then
    `model` keeps its own), and what only a model with a position code has is left out for one without."""
    own = model.state_dict()
    shapes = {name: value.shape for name, value in own.items()}
    if part == "all":
        return load_state(folder, expected=shapes)
    found = load_state(folder)
    if model.warp is None:
        found = {n: v for n, v in found.items() if not n.startswith(("warp.", "encoder.theta."))}
    first, thumbnail = "encoder.z.0.weight", model.config.channels * model.encoder.thumbnail**2
    if first in found and found[first].shape[-1] == shapes[first][1] - thumbnail:
        # A thumbnail that the folder's model does not see begins without weight.
        found[first] = nn.functional.pad(found[first].float(), (0, thumbnail))
    for head in ("encoder.z.", "image_head."):
        mine, theirs = ({n for n in names if n.startswith(head)} for names in (own, found))
        if mine != theirs or any(found[n].shape != shapes[n] for n in mine):
            found = {n: v for n, v in found.items() if n not in theirs} | {n: own[n] for n in mine}
    for name in sorted(own.keys() | found.keys()):
        if name not in found or found[name].shape != shapes.get(name):
            raise ModelError(f"{folder}: does not fit this configuration: {name} differs")
    return found
