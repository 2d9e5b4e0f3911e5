"""How well a VAE finds objects in validation images, in numbers and as a sheet."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

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
"""Validation distances are in pixels of a squashed 256 x 256 image, as in table 1."""


@torch.inference_mode()
def validation(model: MultiHeadedVAE, val: MaskedImages, *, decoded: bool = True) -> dict[str, float]:
    """val_dice, val_hd, and the score that the best epoch is chosen by.

    If `decoded` also val_recon, moved_by_theta and moved_by_z. The last two are the mean absolute change of
    the reconstruction when only that code is another image's: near 0 means that the decoder ignores it.
    """
    model.eval()
    dices, distances, recons, moves = [], [], [], []
    for start in range(0, len(val), 32):
        picks = range(start, min(start + 32, len(val)))
        image = val.plain(picks)
        if decoded:
            latents, recon = encode(model, image)
            theta = latents.theta
            recons += log_cosh(recon, image.to(recon.device)).tolist()
        else:
            theta = locate(model, image)
        if model.warp is None:
            continue
        if decoded:
            moves.append(_moves(model, latents, recon))
        found = agreement(model, theta, val.masks[list(picks)].numpy() > 127)
        dices += found[0]
        distances += found[1]
    figures = {"val_recon": float(np.mean(recons))} if decoded else {}
    if not dices:
        return {**figures, "score": -figures["val_recon"]}
    figures |= {"val_dice": float(np.mean(dices)), "val_hd": float(np.mean(distances))}
    if decoded:
        figures |= dict(zip(("moved_by_theta", "moved_by_z"), np.mean(moves, axis=0).tolist(), strict=True))
    return {**figures, "score": figures["val_dice"] - figures["val_hd"] / TABLE_SIZE}


@torch.inference_mode()
def second_looks(model: MultiHeadedVAE, val: MaskedImages) -> dict[str, float]:
    """val_crop_dice and val_crop_hd: as in `validation`, but on crops about the true objects.

    Distances are in pixels of the whole image, so that both looks compare.
    """
    model.eval()
    dices, distances = [], []
    for start in range(0, len(val), 32):
        image, mask, side = val.second_look(range(start, min(start + 32, len(val))))
        found = agreement(model, locate(model, image), mask.numpy() > 0.5)
        dices += found[0]
        distances += [far * part for far, part in zip(found[1], side, strict=True)]
    return {"val_crop_dice": float(np.mean(dices)), "val_crop_hd": float(np.mean(distances))}


def agreement(model: MultiHeadedVAE, theta: Tensor, truths: np.ndarray) -> tuple[list[float], list[float]]:
    """Dice and Hausdorff distance (in 256ths of the side) of each theta (B, P) to its true mask (B, S, S)."""
    side = truths.shape[-1]
    preds = (model.mask(theta, (side, side)) > 0.5).cpu().numpy()
    dices, distances = [], []
    for pred, truth in zip(preds, truths, strict=True):
        dices.append(dice(pred, truth))
        far = side * 2**0.5 if pred.any() != truth.any() else hausdorff(pred, truth)
        distances.append(far * TABLE_SIZE / side)
    return dices, distances


@torch.inference_mode()
def preview(
    model: MultiHeadedVAE, val: MaskedImages, picks: Sequence[int], *, decoded: bool = True
) -> np.ndarray:
    """A sheet: image, true (yellow) and predicted (cyan) contour, its picture if `decoded`, deformed grid."""
    model.eval()
    image, mask = val.with_masks(picks)
    if decoded:
        latents, recon = encode(model, image)
        thetas, refined = latents.theta, [[from_square(x)] for x in recon.float().cpu().numpy()]
    else:
        thetas, refined = locate(model, image), [[] for _ in picks]
    rows = []
    for i in range(len(picks)):
        picture = from_square(image[i].numpy())
        row = [picture]
        if model.warp is not None:
            size = mask.shape[1:]
            theta = thetas[i : i + 1]
            found = [(p + 1) / 2 * size[0] for p in contours(partial(model.level, theta), cells=64)]
            truth = [(p + 1) / 2 * size[0] for p in contours(_raster_level(mask[i].numpy()), cells=64)]
            row.append(overlay(overlay(picture, truth, colour=YELLOW), found))
            grid = model.warp.grid(theta, (size[0], size[1]))[0].float().cpu().numpy()
            rows.append([*row, *refined[i], draw_grid(picture, grid)])
        else:
            rows.append([*row, *refined[i]])
    titles = ["image", "true, predicted", *(["reconstruction"] if decoded else []), "grid"]
    titles = titles if thetas.shape[1] else []
    return sheet(rows, titles, cell=192)


def _moves(model: MultiHeadedVAE, latents: Latents, recon: Tensor) -> tuple[float, float]:
    by_theta = model.decode(Latents(latents.z, latents.theta.roll(1, 0)))
    by_z = model.decode(Latents(latents.z.roll(1, 0), latents.theta))
    return float((by_theta - recon).abs().mean()), float((by_z - recon).abs().mean())


def _raster_level(mask: np.ndarray) -> Level:
    from scipy.ndimage import map_coordinates

    h, w = mask.shape

    def level(points: np.ndarray) -> np.ndarray:
        at = [(points[:, 1] + 1) * h / 2 - 0.5, (points[:, 0] + 1) * w / 2 - 0.5]
        values: np.ndarray = map_coordinates(mask, at, order=1, mode="nearest") - 0.5
        return values

    return level


def locate(model: MultiHeadedVAE, image: Tensor) -> Tensor:
    """Theta (B, P) of images, without the image head."""
    device = next(model.parameters()).device
    return model.locate(image.to(device, memory_format=torch.channels_last)).mean


def encode(model: MultiHeadedVAE, image: Tensor) -> tuple[Latents, Tensor]:
    device = next(model.parameters()).device
    latents = model.encode(image.to(device, memory_format=torch.channels_last))
    return latents, model.decode(latents)
