"""`mhvae train-cddpm --model REF --data DIR --out RUN/`: what sharpens a VAE's pictures (section 4)."""

from typing import Annotated, Literal

import typer

from ..resources import worker_count
from ..runs.console import TrainingProgress, command_line
from . import options
from . import training_options as own

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
            help="The model whose pictures are to be sharpened: a bundled name, a folder, or ORG/NAME on the"
            " Hub. Its VAE stays as it is.",
        ),
    ],
    data: own.Images,
    out: own.RunFolder,
    config: own.Config = None,
    process: Annotated[
        Literal["mhvae", "diffusevae"] | None,
        typer.Option(
            "--process",
            help="mhvae diffuses what the VAE's picture lacks; diffusevae the whole image (for comparison).",
            show_default="mhvae",
        ),
    ] = None,
    crop: Annotated[
        int | None,
        typer.Option(
            "--crop",
            min=0,
            metavar="N",
            help="Side in pixels of the squares it is trained on; 0 for whole images.",
            show_default="64",
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
    """Train the diffusion model that sharpens a VAE's pictures.

    No masks are needed. RUN/ ends as the same model folder with
    cddpm.safetensors beside the VAE, whose weights do not change. If the
    model has one of the same configuration, it is trained on. Ctrl-C,
    SIGTERM and --max-time stop at the next step and lose nothing.
    """
    from ..config import load_cddpm_recipe

    limit = own.deadline(max_time)
    flags = own.flags(
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

    place = own.place_of(device)
    samples = train.hold_out(train.gather(data, masks=False), hold_out)
    work = train.TrainingOptions(
        place,
        resolve_dtype(dtype, place),
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
            work,
            out,
            name=name,
            splits="" if hold_out is None else f"fold {hold_out} held out; ",
            say=say,
        )
    own.end_training(outcome, out, quiet=quiet)
