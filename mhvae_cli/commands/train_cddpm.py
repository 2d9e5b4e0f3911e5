"""`mhvae train-cddpm --model REF --data DIR --out RUN/`: what sharpens a VAE's pictures (section 4)."""

from typing import Annotated, Literal

import typer

from ..machine import worker_count
from . import options, training


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
    data: training.Images,
    out: training.RunFolder,
    config: training.Config = None,
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
    hold_out: training.HoldOut = None,
    epochs: training.Epochs = None,
    batch_size: training.TrainBatch = None,
    lr: training.LearningRate = None,
    seed: training.Seed = None,
    name: training.Name = None,
    licence: training.Licence = None,
    resume: training.Resume = False,
    max_time: training.MaxTime = None,
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

    limit = training.deadline(max_time)
    flags = training.flags(
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
    from ..training import train as recipes

    place = training.place_of(device)
    samples = recipes.hold_out(recipes.gather(data, masks=False), hold_out)
    work = recipes.Work(
        place,
        resolve_dtype(dtype, place),
        resume,
        limit,
        worker_count(workers),
        offline,
        training.command_line(),
    )
    with training.Teller(quiet=quiet, progress=progress) as say:
        outcome = recipes.train_cddpm(
            folder,
            samples,
            recipe,
            work,
            out,
            name=name,
            splits="" if hold_out is None else f"fold {hold_out} held out; ",
            say=say,
        )
    training.end(outcome, out, quiet=quiet)
