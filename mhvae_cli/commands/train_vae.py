"""`mhvae train-vae --data DIR --out RUN/`: train a segmentation model on images and masks."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..config import Arch, Family
from ..errors import InputError
from ..runs.console import TrainingProgress
from . import training_options
from .training_options import ModelTrainingSettings

EXAMPLES = (
    "mhvae train-vae --data DIR --out RUN/",
    "mhvae train-vae --data DIR --out RUN/ --from fetal-head --max-time 10m",
)


@training_options.training(ModelTrainingSettings, without=("as_json",))
def train_vae(
    data: training_options.ImagesAndMasks,
    out: training_options.RunFolder,
    preset: training_options.Preset = "auto",
    config: training_options.Config = None,
    warp: Annotated[
        Family | None,
        typer.Option(
            "--warp",
            help="Family of the spatial transform: affine gives ellipses, tps any smooth outline.",
            show_default="affine if the masks are ellipses; tps with other presets",
        ),
    ] = None,
    encoder: Annotated[
        Arch | None, typer.Option("--encoder", help="Encoder architecture.", show_default="the preset's")
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            min=32,
            metavar="N",
            help="Side of the square network input, in pixels.",
            show_default="the preset's",
        ),
    ] = None,
    channels: Annotated[
        Literal["1", "3"] | None,
        typer.Option(
            "--channels",
            help="Input channels: 1 for grey images, 3 for colour.",
            show_default="1 if the first images are grey",
        ),
    ] = None,
    single_head: Annotated[
        bool,
        typer.Option("--single-head", help="Train a plain VAE without a position code; it cannot segment."),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="REF|imagenet|scratch",
            help="Model whose weights and configuration the training starts from, or imagenet, for an encoder"
            " trained on ImageNet, or scratch; or a .safetensors file of encoder weights.",
            show_default="imagenet; scratch with other presets",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference",
            metavar="MASK",
            help="Reference mask to deform, instead of a disc.",
            show_default=False,
        ),
    ] = None,
    *,
    settings: ModelTrainingSettings,
) -> None:
    """Train a segmentation model on a folder of images and masks.

    Without options, what is not told is chosen from the data, for 20 to some
    thousand images. RUN/ becomes a model folder for --model, with log.csv,
    learning curves, the worst validation images and others in sheets/, and
    the training state for --resume. Ctrl-C, SIGTERM and --max-time stop after
    the current step, and training can be resumed without loss.
    """
    from ..training.recipe import load_recipe

    deadline = training_options.parse_max_time(settings.max_time)
    own_options = {
        "model.warp.family": warp,
        "model.encoder.arch": encoder,
        "model.image_size": image_size,
        "model.channels": channels and int(channels),
        "model.single_head": single_head or None,
        "start": start,
    }
    recipe, undecided = load_recipe(
        preset,
        config,
        training_options.recipe_options(settings, own_options),
        offline=settings.offline,
    )

    from ..images.read import read_mask
    from ..training import train
    from ..training.automatic import choose

    run_options = training_options.training_options(
        settings, deadline=deadline, resume=settings.resume, timed="train.epochs" in undecided
    )
    samples = train.hold_out(train.gather(data), settings.hold_out)
    recipe = choose(recipe, undecided, samples)
    reference_mask = None if reference is None else read_mask(reference)
    if reference_mask is not None and not reference_mask.any():
        raise InputError(f"{reference}: empty mask")
    with TrainingProgress(quiet=settings.quiet, progress=settings.progress) as callback:
        outcome = train.train_vae(
            samples,
            recipe,
            run_options,
            out,
            name=settings.name,
            splits=training_options.describe_fold(settings.hold_out),
            reference=reference_mask,
            callback=callback,
        )
    training_options.end_training(outcome, out, quiet=settings.quiet)
