"""`mhvae train-vae --data DIR --out RUN/`: train a segmentation model on images and masks."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..config import Arch, Family, Points
from ..errors import InputError
from ..resources import worker_count
from ..runs.console import TrainingProgress, command_line
from . import options, training_options

EXAMPLES = (
    "mhvae train-vae --data DIR --out RUN/ --warp affine --max-time 2h",
    "mhvae train-vae --data DIR --out RUN/ --resume",
)


def train_vae(
    data: training_options.Data,
    out: training_options.RunFolder,
    preset: Annotated[
        Literal["small", "paper"],
        typer.Option(
            "--preset",
            help="Training recipe; small takes one to two hours on two CPU cores, paper needs a GPU.",
        ),
    ] = "small",
    config: training_options.Config = None,
    warp: Annotated[
        Family | None,
        typer.Option(
            "--warp",
            help="Family of the spatial transform: affine gives ellipses, tps any smooth outline.",
            show_default="tps",
        ),
    ] = None,
    points: Annotated[
        Points | None,
        typer.Option("--points", help="Layout of the control points of a tps warp.", show_default="circular"),
    ] = None,
    encoder: Annotated[
        Arch | None, typer.Option("--encoder", help="Encoder architecture.", show_default="the preset's")
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            "--width",
            metavar="X",
            help="Channel multiplier of a ResNet encoder.",
            show_default="the preset's",
        ),
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
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained",
            metavar="REF",
            help="Initialize from ImageNet weights (a .safetensors file, or ORG/NAME on the Hub) or from a"
            " complete"
            " model of the same configuration (a bundled name or a model folder).",
            show_default=False,
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
    hold_out: training_options.HoldOut = None,
    epochs: training_options.Epochs = None,
    batch_size: training_options.TrainBatch = None,
    lr: training_options.LearningRate = None,
    seed: training_options.Seed = None,
    name: training_options.Name = None,
    licence: training_options.Licence = None,
    resume: training_options.Resume = False,
    max_time: training_options.MaxTime = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    workers: options.Workers = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
) -> None:
    """Train a segmentation model on a folder of images and masks.

    RUN/ becomes a model folder for --model, with log.csv, sample images in
    sheets/, and the training state for --resume. Ctrl-C, SIGTERM and
    --max-time stop after the current step, and training can be resumed
    without loss.
    """
    from ..training.recipe import load_recipe

    limit = training_options.deadline(max_time)
    flags = training_options.flags(
        {
            "model.warp.family": warp,
            "model.warp.points": points,
            "model.encoder.arch": encoder,
            "model.encoder.width": width,
            "model.image_size": image_size,
            "model.channels": channels and int(channels),
            "model.single_head": single_head or None,
            "train.epochs": epochs,
            "train.batch_size": batch_size,
            "train.lr": lr,
            "train.seed": seed,
            "card.license": licence,
            "pretrained": pretrained,
        }
    )
    recipe, given = load_recipe(preset, config, flags)

    from ..devices import resolve_dtype
    from ..images.read import read_mask
    from ..training import train

    torch_device = training_options.select_device(device)
    samples = train.hold_out(train.gather(data), hold_out)
    recipe = train.with_channels(recipe, given, samples)
    run_options = train.TrainingOptions(
        torch_device,
        resolve_dtype(dtype, torch_device),
        resume,
        limit,
        worker_count(workers),
        offline,
        command_line(),
    )
    shape = None if reference is None else read_mask(reference)
    if shape is not None and not shape.any():
        raise InputError(f"{reference}: empty mask")
    with TrainingProgress(quiet=quiet, progress=progress) as say:
        outcome = train.train_vae(
            samples,
            recipe,
            run_options,
            out,
            name=name,
            splits="" if hold_out is None else f"fold {hold_out} held out; ",
            reference=shape,
            say=say,
        )
    training_options.end_training(outcome, out, quiet=quiet)
