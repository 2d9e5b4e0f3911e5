"""A training of a given number of steps, alike for all that is compared: a part of made_pairs.py."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mhvae_cli.config import AugmentConfig
from mhvae_cli.devices import resolve_dtype
from mhvae_cli.training.datasets import MaskedImages
from mhvae_cli.training.loop import schedule

WARMUP, DECAY, EMA = 0.2, 1e-2, 0.98


@dataclass(frozen=True)
class Fit:
    """`dims`: the lengths of theta and z, whose noise is a part of each batch."""

    steps: int
    lr: float
    augment: AugmentConfig
    seed: int = 0
    batch: int = 8
    dims: tuple[int, int] = (0, 0)


def batches(indices: Sequence[int], fit: Fit) -> Iterator[list[int]]:
    """`fit.steps` batches in which each index occurs as often as any other, or once more."""
    rng, waiting = np.random.default_rng(fit.seed), list[int]()
    for _ in range(fit.steps):
        while len(waiting) < fit.batch:
            waiting += rng.permutation(indices).tolist()
        yield waiting[: fit.batch]
        del waiting[: fit.batch]


def fitted(objective: nn.Module, images: MaskedImages, indices: Sequence[int], fit: Fit) -> dict[str, Tensor]:
    """Train on the images of these indices, on the CPU, in bfloat16 where that is fast.

    Returns the mean of the weights of the last steps, by their names less "model.".
    """
    dtype = resolve_dtype("auto", torch.device("cpu"))
    objective.train().to(memory_format=torch.channels_last)
    parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=DECAY)
    mean = {name: value.clone() for name, value in objective.state_dict().items()}
    for step, picks in enumerate(batches(indices, fit)):
        for group in optimizer.param_groups:
            group["lr"] = fit.lr * schedule(step / fit.steps, WARMUP)
        batch = images.batch(picks, fit.augment, seed=fit.seed, epoch=step, dims=fit.dims)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = objective(batch, step / fit.steps)["loss"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        _follow(mean, objective, min(EMA, (1 + step) / (10 + step)))
    return {name.removeprefix("model."): value for name, value in mean.items()}


@torch.no_grad()
def _follow(mean: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            mean[name].lerp_(value, 1 - decay)
        else:
            mean[name].copy_(value)
