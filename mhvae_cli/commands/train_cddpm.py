"""`mhvae train-cddpm --model REF --data DIR --out RUN/`: train the diffusion model (section 4)."""

from typing import Annotated, Literal

import typer

from ..resources import worker_count
from ..runs.console import TrainingProgress, command_line
from . import options, training_options

EXAMPLES = (
    "mhvae train-cddpm --model RUN/ --data DIR --out RUN2/",
    "mhvae train-cddpm --model fetal-head --data DIR --hold-out 3 --out RUN2/",
)


def train_cddpm(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            metavar="REF",
            envvar="MHVAE_MODEL",
            autocompletion=options.complete_model,
            help="Model whose VAE is used, unchanged: a bundled or imported model, a model folder, or"
            " ORG/NAME"
            " on the Hub.",
        ),
    ],
    data: training_options.Images,
    out: training_options.RunFolder,
    config: training_options.Config = None,
    process: Annotated[
        Literal["mhvae", "diffusevae"] | None,
        typer.Option(
            "--process",
            help="mhvae diffuses the residual of the VAE image; diffusevae the whole image (for comparison).",
            show_default="mhvae",
        ),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            "--crop",
            min=0,
            metavar="N",
            help="Side of the square training crops in pixels; 0 trains on whole images.",
            show_default="64",
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
    """Train the diffusion model that sharpens the images of a VAE.

    Masks are not needed. RUN/ becomes a copy of the model folder with
    cddpm.safetensors added; the weights of the VAE do not change. If the model
    already has a cDDPM of the same configuration, training starts from it.
    Ctrl-C, SIGTERM and --max-time stop after the current step, and training
    can be resumed without loss.
    """
    from ..training.recipe import load_cddpm_recipe

    limit = training_options.deadline(max_time)
    flags = training_options.flags(
        {
            "diffusion.process": process,
            "train.crop": crop,
            "train.epochs": epochs,
            "train.batch_size": batch_size,
            "train.lr": lr,
            "train.seed": seed,
            "card.license": licence,
        }
    )
    recipe = load_cddpm_recipe(config, flags)

    from ..checkpoints.registry import resolve

    folder = resolve(model, offline=offline)

    from ..devices import resolve_dtype
    from ..training import train

    torch_device = training_options.select_device(device)
    samples = train.hold_out(train.gather(data, masks=False), hold_out)
    run_options = train.TrainingOptions(
        torch_device,
        resolve_dtype(dtype, torch_device),
        resume,
        limit,
        worker_count(workers),
        offline,
        command_line(),
    )
    with TrainingProgress(quiet=quiet, progress=progress) as say:
        outcome = train.train_cddpm(
            folder,
            samples,
            recipe,
            run_options,
            out,
            name=name,
            splits="" if hold_out is None else f"fold {hold_out} held out; ",
            say=say,
        )
    training_options.end_training(outcome, out, quiet=quiet)
