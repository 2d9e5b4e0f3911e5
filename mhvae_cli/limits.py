"""The limits of a configuration's values: within them a network can be built and trained."""

import math
import reprlib

from .config import DiffusionConfig, FitConfig, LossConfig, ModelConfig
from .errors import UsageError


def check_diffusion(diffusion: DiffusionConfig) -> None:
    """UsageError if no network can be built from a value."""
    refuse({"unet.channels: even": diffusion.unet.channels % 2 != 0})
    check_ranges("unet", diffusion.unet, channels=(8, 4096), levels=(1, 6), blocks=(1, 64), patch=(1, 64))
    check_ranges("diffusion", diffusion, strength=(0.002, 1), image_size=(0, 4096))


def check_model(model: ModelConfig) -> None:
    """UsageError if no model can be built from a value."""
    encoder, decoder = model.encoder, model.decoder
    check_ranges(
        "model",
        model,
        image_size=(32, 4096),
        z_dim=(1, 2**16),
        edge=(1e-6, 10),
        reference=(0, 4096),
        tones=(0, 256),
        fill=(0, 1),
        pen=(0, 0.1),
    )
    check_ranges(
        "model.encoder",
        encoder,
        width=(0.01, 8),
        reduce=(1, 2**16),
        hidden=(1, 2**16),
    )
    check_ranges("model.decoder", decoder, channels=(1, 4096), max_size=(1, 4096))
    stride = {"efficientnet-lite0": 32, "resnet50-vit-b16": 16}.get(encoder.arch, 1)
    refuse(
        {
            f"model.image_size: a multiple of {stride} for {encoder.arch}": model.image_size % stride != 0,
            "model.channels: 1 or 3": model.channels not in (1, 3),
            "model.boundary: false without a position code": model.boundary and model.single_head,
            "model.boundary: false unless the reference is the disc": model.boundary and model.reference > 0,
            "model.tones: 0 without a position code": model.tones > 0 and model.single_head,
        }
    )


def check_ranges(where: str, config: object, **ranges: tuple[float, float]) -> None:
    """UsageError for a field outside its range (least, most); NaN is outside all."""
    for name, (least, most) in ranges.items():
        value = getattr(config, name)
        if not least <= value <= most:
            raise UsageError(f"{where}.{name} = {reprlib.repr(value)}: must be {least} to {most}")


def check_training(train: FitConfig) -> None:
    weights = [*vars(getattr(train, "loss", LossConfig())).values(), *vars(train.augment).values()]
    refuse(
        {
            "train.epochs: 1 or more": train.epochs < 1,
            "train.batch_size: 1 or more": train.batch_size < 1,
            "train.validate_every: 1 or more": train.validate_every < 1,
            "train.patience: 0 or more": train.patience < 0,
            "train.lr: above 0": not 0 < train.lr < math.inf,
            "train.lr_warmup: 0 or more, below 1": not 0 <= train.lr_warmup < 1,
            "train.clip: above 0": not train.clip > 0,
            "train.ema: 0 or more, below 1": not 0 <= train.ema < 1,
            "train.val_fraction: above 0, below 1": not 0 < train.val_fraction < 1,
            "train.loss and train.augment: 0 or more": not all(0 <= value < math.inf for value in weights),
            "train.augment.crop: at most 1": train.augment.crop > 1,
        }
    )


def refuse(violations: dict[str, bool]) -> None:
    for requirement, violated in violations.items():
        if violated:
            raise UsageError(requirement)
