"""`mhvae segment INPUTS`: the mask of the object in each image, at the image's original size."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import UsageError
from ..runs.fingerprint import RunFingerprint, apply_existing_policy
from ..runs.inputs import find_inputs, parse_window
from ..runs.invocation import NEUTRAL
from ..runs.outputs import Job, choose_format, find_target, plan
from ..runs.reporter import preview
from ..runs.settings import RunSettings
from ..runs.shards import find_shard, share
from . import options, segmentation_options

if TYPE_CHECKING:
    from ..images.spacing import SpacingSources

EXAMPLES = (
    "mhvae segment scans/ --recursive --out masks/ --overlay",
    "mhvae segment scans/ --out masks/ --measure fetal-head --spacing 0.12",
)
Format = Literal["png", "tiff", "svg", "geojson"]
SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".svg": "svg",
    ".geojson": "geojson",
}


@options.with_settings(RunSettings)
def segment(
    inputs: options.Inputs = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="png and tiff are masks with values 0 and 255; svg and geojson are the exact contour in"
            " pixels, with y pointing down.",
            show_default="the suffix of --out, else png",
        ),
        NEUTRAL,
    ] = None,
    overlay: Annotated[
        bool,
        typer.Option("--overlay", help="Also write NAME__overlay.png: the contour on the upright image."),
        NEUTRAL,
    ] = False,
    measure: segmentation_options.Measure = None,
    cup_model: segmentation_options.CupModel = None,
    spacing: segmentation_options.Spacing = None,
    spacing_csv: segmentation_options.SpacingCsv = None,
    trust_dpi: segmentation_options.TrustDpi = False,
    qc: segmentation_options.Qc = "quick",
    fail_on_qc: segmentation_options.FailOnQc = False,
    posterior: segmentation_options.Posterior = None,
    looks: segmentation_options.Looks = 2,
    tta: segmentation_options.Tta = False,
    review_page: segmentation_options.ReviewPage = None,
    *,
    settings: RunSettings,
) -> None:
    """Segment the object in each image and write its mask.

    scans/a.jpg with -o masks/ becomes masks/a.png: an 8-bit mask with values 0
    and 255 and the size and orientation of the stored pixels, written even
    when empty. Pages of a TIFF file become a_p0.png, a_p1.png and so on. An
    output folder also contains results.csv, with measurements of the exact
    outline in pixels of the mask, and in mm if the pixel size is known. --seed
    only affects the samples of --posterior.
    """
    shard, window = find_shard(settings), parse_window(settings.window)
    gathered = find_inputs(inputs, settings)
    target = find_target(settings.out, many=gathered.many)
    kind = choose_format(format, target, SUFFIXES, what="masks")
    if target.stdout and (overlay or settings.as_json or posterior):
        raise UsageError("-o - writes one image: --overlay, --posterior and --json are not allowed")
    if fail_on_qc and qc == "off":
        raise UsageError("--fail-on-qc and --qc off exclude each other")
    if (measure == "cup-disc") != (cup_model is not None):
        raise UsageError(
            "--measure cup-disc and --cup-model need each other", hint="--model segments the disc"
        )
    spacings = _spacings(spacing, spacing_csv, trust_dpi, [item.name for item in gathered.items])
    if review_page is not None:
        from ..runs.review.page import check_page

        check_page(review_page, settings.existing)
    endings = [f".{kind}", *["__overlay.png"] * overlay, *["__probability.png"] * bool(posterior)]
    fingerprint = RunFingerprint("segment", settings, shard)
    planned = [_with_spacing(job, spacings) for job in plan(gathered.items, target, endings)]
    mine = share(shard, planned, lambda job: job.item.stem)
    jobs = apply_existing_policy(mine, settings.existing, fingerprint, target)
    if settings.dry_run:
        raise typer.Exit(preview(jobs, settings.as_json))

    from ..runs.segmentation import QCOptions, SegmentationOptions, segment_jobs  # needs NumPy

    chosen = SegmentationOptions(
        format=kind,
        overlay=overlay,
        window=window,
        measure=measure,
        cup_model=cup_model,
        spacings=spacings,
        qc=QCOptions(qc, fail_on_qc, posterior or 0, looks, tta, settings.seed),
        review_page=review_page,
    )
    raise typer.Exit(segment_jobs(jobs, planned, target, chosen, settings, fingerprint))


def _spacings(spacing: str | None, table: Path | None, trust_dpi: bool, names: list[str]) -> "SpacingSources":
    """The sources of pixel sizes; UsageError for invalid values, and for a table of other inputs."""
    from ..images.spacing import SpacingSources, parse_spacing, read_spacing_csv

    given = None if spacing is None else parse_spacing(spacing)
    sources = SpacingSources(read_spacing_csv(table) if table else None, given, trust_dpi)
    if table and sources.table is not None and names and not any(map(sources.table.find, names)):
        raise UsageError(f"{table}: names none of the inputs", hint=f"the first input is {names[0]!r}")
    return sources


def _with_spacing(job: Job, spacings: "SpacingSources") -> Job:
    """The job with its row of --spacing-csv in its record, so that a change of other rows does not matter."""
    given = spacings.table.find(job.item.name) if spacings.table is not None else None
    return job if given is None else replace(job, record={"spacing": given})
