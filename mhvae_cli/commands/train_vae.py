"""`mhvae train-vae --data DIR --out RUN/`: train a model on a folder of images and masks."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..config import Arch, Family, Points
from ..errors import InputError
from ..resources import worker_count
from ..runs.console import TrainingProgress, command_line
from . import options
from . import training_options as own

EXAMPLES = (
    "mhvae train-vae --data DIR --out RUN/ --warp affine --max-time 2h",
    "mhvae train-vae --data DIR --out RUN/ --resume",
)


def train_vae(
    data: own.Data,
    out: own.RunFolder,
    preset: Annotated[
        Literal["small", "paper"],
        typer.Option("--preset", help="small trains on two CPU cores in an hour or two; paper wants a GPU."),
    ] = "small",
    config: own.Config = None,
    warp: Annotated[
        Family | None,
        typer.Option("--warp", help="affine makes ellipses, tps any smooth outline.", show_default="tps"),
    ] = None,
    points: Annotated[
        Points | None,
        typer.Option("--points", help="Control points of a tps warp.", show_default="circular"),
    ] = None,
    encoder: Annotated[
        Arch | None, typer.Option("--encoder", help="The ConvNet.", show_default="the preset's")
    ] = None,
    width: Annotated[
        float | None,
        typer.Option(
            "--width", metavar="X", help="Multiplies a ResNet's channels.", show_default="the preset's"
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            "--image-size",
            min=32,
            metavar="N",
            help="The model's square, in pixels.",
            show_default="the preset's",
        ),
    ] = None,
    channels: Annotated[
        Literal["1", "3"] | None,
        typer.Option(
            "--channels", help="1 sees grey, 3 colour.", show_default="1 if the first images are grey"
        ),
    ] = None,
    single_head: Annotated[
        bool, typer.Option("--single-head", help="A plain VAE: no position code, finds nothing.")
    ] = False,
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained",
            metavar="REF",
            help="Start from ImageNet weights (a .safetensors file, or ORG/NAME on the Hub), or from a whole"
            " model of the same configuration (a bundled name or a folder).",
            show_default=False,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            "--reference", metavar="MASK", help="A mask to deform instead of a disc.", show_default=False
        ),
    ] = None,
    hold_out: own.HoldOut = None,
    epochs: own.Epochs = None,
    batch_size: own.TrainBatch = None,
    lr: own.LearningRate = None,
    seed: own.Seed = None,
    name: own.Name = None,
    licence: own.Licence = None,
    resume: own.Resume = False,
    max_time: own.MaxTime = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    workers: options.Workers = None,
    offline: options.Offline = False,
    quiet: options.Quiet = False,
    progress: options.Progress = "auto",
) -> None:
    """Train a model on a folder of images and masks.

    RUN/ ends as a model folder for --model, with log.csv, pictures in
    sheets/, and the state that --resume goes on from. Ctrl-C, SIGTERM
    and --max-time stop at the next step and lose nothing.
    """
    from ..config import load_recipe

    limit = own.deadline(max_time)
    flags = own.flags(
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

    place = own.place_of(device)
    samples = train.hold_out(train.gather(data), hold_out)
    recipe = train.with_channels(recipe, given, samples)
    work = train.TrainingOptions(
        place,
        resolve_dtype(dtype, place),
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
            work,
            out,
            name=name,
            splits="" if hold_out is None else f"fold {hold_out} held out; ",
            reference=shape,
            say=say,
        )
    own.end_training(outcome, out, quiet=quiet)
