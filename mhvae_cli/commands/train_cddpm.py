"""`mhvae train-cddpm --model REF --data DIR --out RUN/`: train the diffusion model (section 4)."""

from typing import Annotated, Literal

import typer

from ..runs.console import TrainingProgress
from . import options, training_options
from .training_options import ModelTrainingSettings

EXAMPLES = (
    "mhvae train-cddpm --model RUN/ --data DIR --out RUN2/",
    "mhvae train-cddpm --model fetal-head --data DIR --hold-out 3 --out RUN2/",
)


@training_options.training(ModelTrainingSettings, without=("as_json",))
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
            " ORG/NAME on the Hub.",
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
            show_default="64; 0 after a trained cDDPM",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="REF|scratch",
            help="Model whose cDDPM the weights start from, or scratch.",
            show_default="the cDDPM of --model, else of a bundled model with as many channels",
        ),
    ] = None,
    *,
    settings: ModelTrainingSettings,
) -> None:
    """Train the diffusion model that sharpens the images of a VAE.

    Masks are not needed. RUN/ becomes a copy of the model folder with
    cddpm.safetensors added; the weights of the VAE do not change. Training
    starts from a trained cDDPM if one fits (--from), and then takes its
    configuration over, and about 1000 steps, or as many as --max-time has room
    for. Black frames that images of several subjects share are found, and kept
    for generated images. Rows of images, VAE images and refined ones in sheets/
    show how far it has come. Ctrl-C, SIGTERM and --max-time stop after the
    current step, and training can be resumed without loss.
    """
    from ..training.recipe import load_cddpm_recipe

    deadline = training_options.parse_max_time(settings.max_time)
    own_options = {"diffusion.process": process, "train.crop": crop}

    from ..checkpoints.registry import resolve

    folder = resolve(model, offline=settings.offline)
    recipe, undecided = load_cddpm_recipe(
        config,
        training_options.recipe_options(settings, own_options),
        model=folder,
        start=start,
        offline=settings.offline,
    )

    from ..training import train
    from ..training.automatic import choose_cddpm

    run_options = training_options.training_options(
        settings, deadline=deadline, resume=settings.resume, timed="train.epochs" in undecided
    )
    samples = train.hold_out(train.gather(data, masks=False), settings.hold_out)
    recipe = choose_cddpm(recipe, undecided, samples)
    with TrainingProgress(quiet=settings.quiet, progress=settings.progress) as callback:
        outcome = train.train_cddpm(
            folder,
            samples,
            recipe,
            run_options,
            out,
            name=settings.name,
            splits=training_options.describe_fold(settings.hold_out),
            start=start,
            callback=callback,
        )
    training_options.end_training(outcome, out, quiet=settings.quiet)
