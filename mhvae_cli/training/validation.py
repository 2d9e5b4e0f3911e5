"""Validation of a VAE: metrics and contact sheets."""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.model_card import MIN_FOLLOWS
from ..config import AugmentConfig
from ..evaluation.metrics import dice, hausdorff
from ..images.render import YELLOW, draw_grid, overlay, sheet
from ..images.transforms import from_square
from ..vae.contour import contours
from ..vae.latents import Latents
from ..vae.losses import log_cosh
from ..vae.model import MultiHeadedVAE
from ..vae.raster import Level
from .datasets import MaskedImages

TABLE_SIZE = 256
"""Validation distances are in pixels of the image resized to a square of this side, as in table 1."""
BATCH_SIZE = 32
VIEWS = 32
MOVES = AugmentConfig(rotate=30.0, scale=0.3, shift=0.15, tone=0.0, noise=0.0)
"""The number of views that tell whether theta follows the image, and how they are moved."""


@torch.inference_mode()
def validate(model: MultiHeadedVAE, val: MaskedImages, *, decoded: bool = True) -> dict[str, float]:
    """Mean validation metrics: val_dice, val_hd, `follows`, and the score by which the best epoch is chosen.

    With `decoded`, also val_recon (log-cosh), and moved_by_theta and moved_by_z: the mean absolute change of
    the reconstruction when that latent code is replaced by another image's. A change near 0 means that the
    decoder ignores the code. A single-headed VAE has val_recon and the score alone.
    """
    model.eval()
    dices, distances, recons, changes = [], [], [], []
    for indices in _batches(len(val)):
        image = val.plain(indices)
        if decoded:
            latents, recon = reconstruct(model, image)
            theta = latents.theta
            recons += log_cosh(recon, image.to(recon.device)).tolist()
        else:
            theta = predict_theta(model, image)
        if model.warp is None:
            continue
        if decoded:
            changes.append(_code_sensitivity(model, latents, recon))
        batch_dices, batch_distances = score_masks(model, theta, val.masks[list(indices)].numpy() > 127)
        dices += batch_dices
        distances += batch_distances
    metrics = {"val_recon": float(np.mean(recons))} if decoded else {}
    if not dices:
        return {**metrics, "score": -metrics["val_recon"]}
    metrics |= {"val_dice": float(np.mean(dices)), "val_hd": float(np.mean(distances))}
    if decoded:
        means = np.mean(changes, axis=0).tolist()
        metrics |= dict(zip(("moved_by_theta", "moved_by_z"), means, strict=True))
    metrics["follows"] = follows(model, val)
    score = metrics["val_dice"] - metrics["val_hd"] / TABLE_SIZE
    # A model of the mean shape is never better than one that follows its images.
    return {**metrics, "score": score - (metrics["follows"] < MIN_FOLLOWS)}


@torch.inference_mode()
def follows(model: MultiHeadedVAE, val: MaskedImages) -> float:
    """How far theta follows the image: the explained share of the variance of the objects' centres and sizes.

    It is 1 for perfect masks, and 0 or less if each image gets the same mask. Measured on VIEWS views of the
    validation images, moved at random, since few images may happen to have their objects in one place.
    """
    found, true = [], []
    indices = range(min(len(val), VIEWS))
    for epoch in range(math.ceil(VIEWS / len(val))):
        batch = val.batch(indices, MOVES, seed=0, epoch=epoch, dims=(0, 0))
        theta = predict_theta(model, batch.image)
        found.append(_centre_and_size(model.mask(theta, (batch.mask.shape[1], batch.mask.shape[2]))))
        true.append(_centre_and_size(batch.mask))
    truth = torch.cat(true).double()
    missed = (torch.cat(found).double() - truth).square().sum()
    return float(1 - missed / (truth - truth.mean(0)).square().sum().clamp_min(1e-9))


def _centre_and_size(mask: Tensor) -> Tensor:
    """The centre xy and the root of the area (B, 3) of soft masks (B, S, S), in [-1, 1] units."""
    mask = mask.float().cpu()
    area = mask.mean((1, 2))
    axis = (2 * torch.arange(mask.shape[-1]) + 1) / mask.shape[-1] - 1
    centre = mask.mean(1) @ axis, mask.mean(2) @ axis
    return torch.stack([*(c / area.clamp_min(1e-6) for c in centre), 2 * area.sqrt()], dim=1)


@torch.inference_mode()
def validate_crops(model: MultiHeadedVAE, val: MaskedImages) -> dict[str, float]:
    """val_crop_dice and val_crop_hd: as in `validate`, on crops around the true objects.

    The distances are in pixels of the whole image, for comparison with val_hd.
    """
    model.eval()
    dices, distances = [], []
    for indices in _batches(len(val)):
        image, mask, side = val.object_crops(indices)
        batch_dices, batch_distances = score_masks(model, predict_theta(model, image), mask.numpy() > 0.5)
        dices += batch_dices
        distances += [distance * part for distance, part in zip(batch_distances, side, strict=True)]
    return {"val_crop_dice": float(np.mean(dices)), "val_crop_hd": float(np.mean(distances))}


def score_masks(model: MultiHeadedVAE, theta: Tensor, masks: np.ndarray) -> tuple[list[float], list[float]]:
    """Dice and Hausdorff distance of the predicted mask of each theta (B, P) and its true mask (B, S, S).

    Distances are in 1 / TABLE_SIZE of the side; if one mask is empty, the distance is the diagonal.
    """
    side = masks.shape[-1]
    predictions = (model.mask(theta, (side, side)) > 0.5).cpu().numpy()
    dices, distances = [], []
    for prediction, mask in zip(predictions, masks, strict=True):
        dices.append(dice(prediction, mask))
        one_empty = prediction.any() != mask.any()
        distance = side * 2**0.5 if one_empty else hausdorff(prediction, mask)
        distances.append(distance * TABLE_SIZE / side)
    return dices, distances


@torch.inference_mode()
def contact_sheet(
    model: MultiHeadedVAE, val: MaskedImages, indices: Sequence[int], *, decoded: bool = True
) -> np.ndarray:
    """A row per image, uint8 RGB: the image, its true (yellow) and predicted (cyan) contour, its
    reconstruction if `decoded`, and the deformed grid."""
    model.eval()
    image, mask = val.with_masks(indices)
    if decoded:
        latents, recon = reconstruct(model, image)
        thetas, recons = latents.theta, [[from_square(x)] for x in recon.float().cpu().numpy()]
    else:
        thetas, recons = predict_theta(model, image), [[] for _ in indices]
    rows = []
    for i in range(len(indices)):
        original = from_square(image[i].numpy())
        if model.warp is None:
            rows.append([original, *recons[i]])
            continue
        size, theta = (mask.shape[1], mask.shape[2]), thetas[i : i + 1]
        predicted = [(p + 1) / 2 * size[0] for p in contours(partial(model.level, theta), cells=64)]
        true = [(p + 1) / 2 * size[0] for p in contours(mask_level(mask[i].numpy()), cells=64)]
        outlined = overlay(overlay(original, true, colour=YELLOW), predicted)
        grid = model.warp.grid(theta, size)[0].float().cpu().numpy()
        rows.append([original, outlined, *recons[i], draw_grid(original, grid)])
    titles = ["image", "true, predicted", *(["reconstruction"] if decoded else []), "grid"]
    return sheet(rows, titles if model.warp is not None else [], cell=192)


def predict_theta(model: MultiHeadedVAE, image: Tensor) -> Tensor:
    """The mean theta (B, P) of images (B, C, S, S), without the image head."""
    device = next(model.parameters()).device
    return model.locate(image.to(device, memory_format=torch.channels_last)).mean


def reconstruct(model: MultiHeadedVAE, image: Tensor) -> tuple[Latents, Tensor]:
    """The latent codes and the reconstructions (B, C, S, S) of images."""
    device = next(model.parameters()).device
    latents = model.encode(image.to(device, memory_format=torch.channels_last))
    return latents, model.decode(latents)


def _batches(count: int) -> Iterator[range]:
    for start in range(0, count, BATCH_SIZE):
        yield range(start, min(start + BATCH_SIZE, count))


def _code_sensitivity(model: MultiHeadedVAE, latents: Latents, recon: Tensor) -> tuple[float, float]:
    """The mean absolute change of the reconstructions with the theta, and with the z, of another image."""
    by_theta = model.decode(Latents(latents.z, latents.theta.roll(1, 0)))
    by_z = model.decode(Latents(latents.z.roll(1, 0), latents.theta))
    return float((by_theta - recon).abs().mean()), float((by_z - recon).abs().mean())


def mask_level(mask: np.ndarray) -> Level:
    """A level function, positive inside, that interpolates a mask (H, W) bilinearly."""
    from scipy.ndimage import map_coordinates

    h, w = mask.shape

    def level(points: np.ndarray) -> np.ndarray:
        at = [(points[:, 1] + 1) * h / 2 - 0.5, (points[:, 0] + 1) * w / 2 - 0.5]
        values: np.ndarray = map_coordinates(mask, at, order=1, mode="nearest") - 0.5
        return values

    return level
