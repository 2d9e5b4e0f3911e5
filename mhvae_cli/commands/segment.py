"""`mhvae segment INPUTS`: the mask of the object in each image, at the image's own size."""

import os
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import UsageError
from . import options
from .inputs import gather, parse_shard
from .outputs import Job, choose_format, find_target, plan, settle_existing
from .report import Report, drive, preview

if TYPE_CHECKING:
    import numpy as np

    from ..pipeline import Pipeline

Format = Literal["png", "tiff", "svg", "geojson"]
SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".svg": "svg",
    ".geojson": "geojson",
}
COLUMNS = ("width", "height", "area_px")


@dataclass(frozen=True)
class Seen:
    """What is kept of a scan: upright (h, w), EXIF orientation, and pixels if an overlay needs them."""

    size: tuple[int, int]
    orientation: int
    pixels: "np.ndarray | None"


def segment(
    inputs: options.Inputs = None,
    out: options.Out = None,
    model: options.Model = options.DEFAULT_MODEL,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="png and tiff are masks, 0 and 255; svg and geojson the exact contour, in pixels, y down.",
            show_default="what --out ends in, else png",
        ),
    ] = None,
    overlay: Annotated[
        bool,
        typer.Option(
            "--overlay", help="Also write NAME__overlay.png: the contour drawn on the upright image."
        ),
    ] = False,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    batch_size: options.BatchSize = 8,
    workers: options.Workers = None,
    seed: options.Seed = 0,
    deterministic: options.Deterministic = False,
    offline: options.Offline = False,
    existing: options.Existing = "error",
    on_error: options.OnError = "continue",
    from_file: options.FromFile = None,
    recursive: options.Recursive = False,
    shard: options.Shard = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    progress: options.Progress = "auto",
) -> None:
    """Find the object in each image and write its mask.

    scans/a.jpg with -o masks/ becomes masks/a.png: 8-bit, 0 and 255, of the
    size and orientation of the stored pixels, written even when empty. Pages
    of a TIFF become a_p0.png, a_p1.png and so on. A folder of results also
    holds results.csv. Nothing here is random: --seed changes nothing.
    """
    part = parse_shard(shard)
    gathered = gather(inputs or [], from_file=from_file, recursive=recursive, out=out)
    target = find_target(out, many=gathered.many)
    kind = choose_format(format, target, SUFFIXES, what="masks")
    if target.stdout and (overlay or as_json):
        raise UsageError("-o - writes one image: no --overlay and no --json with it")
    endings = ["." + kind, *(["__overlay.png"] if overlay else [])]
    jobs = settle_existing(plan(gathered.items, target, endings)[part], existing)
    if dry_run:
        raise typer.Exit(preview(jobs, as_json))
    todo = [job for job in jobs if not job.skip and job.item.fault is None]
    results: Generator[Any] = (_ for _ in ())
    if todo:
        from ..checkpoint import resolve

        folder = resolve(model, offline=offline)  # a wrong name shows before torch is imported

        from ..pipeline import Pipeline
        from .batching import stream

        pipeline = Pipeline.load(folder, device=device, dtype=dtype, deterministic=deterministic)
        if verbose:
            print(pipeline, file=sys.stderr)
        results = stream(
            todo,
            load=partial(_load, pipeline, overlay),
            run=partial(_locate, pipeline),
            finish=partial(_finish, pipeline, kind),
            batch_size=1 if deterministic else batch_size,
            workers=min(os.cpu_count() or 1, 8) if workers is None else workers,
        )
    with (
        closing(results),
        Report(
            "segment", jobs, target, columns=COLUMNS, as_json=as_json, quiet=quiet, progress=progress
        ) as report,
    ):
        code = drive(report, jobs, results, on_error)
    raise typer.Exit(code)


def _load(pipeline: "Pipeline", keep: bool, job: Job) -> "tuple[np.ndarray, Seen]":
    from ..imaging import read_scan

    scan = read_scan(job.item.source, page=job.item.page, name=job.item.name)
    height, width = scan.pixels.shape[:2]
    return pipeline.prepare(scan), Seen((height, width), scan.orientation, scan.pixels if keep else None)


def _locate(pipeline: "Pipeline", images: "list[np.ndarray]") -> "list[np.ndarray]":
    import numpy as np

    return list(pipeline.locate(np.stack(images)))


def _finish(
    pipeline: "Pipeline", kind: str, job: Job, seen: Seen, theta: "np.ndarray"
) -> tuple[list[bytes], dict[str, int]]:
    """The bytes of a job's files, and its columns."""
    from ..imaging import encode_png, encode_tiff, stored, stored_points
    from ..render import geojson, overlay, svg

    mask = stored(pipeline.mask(theta, seen.size), seen.orientation)
    height, width = mask.shape
    fields = {"width": width, "height": height, "area_px": int(mask.sum())}
    upright = (
        pipeline.contour(theta, seen.size) if kind in ("svg", "geojson") or seen.pixels is not None else []
    )
    rings = [stored_points(ring, seen.size, seen.orientation) for ring in upright]
    if kind in ("png", "tiff"):
        first = encode_png(mask) if kind == "png" else encode_tiff(mask)
    else:
        first = (svg(rings, (height, width)) if kind == "svg" else geojson(rings, fields)).encode()
    drawn = [] if seen.pixels is None else [encode_png(overlay(seen.pixels, upright))]
    return [first, *drawn], fields
