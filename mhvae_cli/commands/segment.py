"""`mhvae segment INPUTS`: the mask of the object in each image, at the image's own size."""

import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import UsageError
from ..machine import worker_count
from . import options
from .account import Account
from .inputs import gather, parse_shard, parse_window
from .judging import Judging, Located
from .outputs import Job, choose_format, find_target, plan, settle_existing
from .report import Report, drive, preview

if TYPE_CHECKING:
    import numpy as np

    from ..images.scan import Window
    from ..images.spacing import Spacings
    from ..inference.pipeline import Pipeline
    from ..thumbs import Thumb

Format = Literal["png", "tiff", "svg", "geojson"]
Fields = dict[str, Any]
Rings = list["np.ndarray"]
SUFFIXES: dict[str, Format] = {
    ".png": "png",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".svg": "svg",
    ".geojson": "geojson",
}


@dataclass(frozen=True)
class Task:
    """What is done to each scan: by which models (`cup`: the cup's), and what is written and measured."""

    pipeline: "Pipeline"
    cup: "Pipeline | None"
    spacings: "Spacings"
    measure: str | None
    judging: Judging
    kind: str
    overlay: bool
    window: "Window"
    page: bool


@dataclass(frozen=True)
class Seen:
    """What is kept of a scan: upright (h, w), EXIF orientation, width and height in mm of a stored pixel, and
    the upright pixels if an overlay needs them, small ones if a page does; `key` names its draws."""

    size: tuple[int, int]
    orientation: int
    spacing: tuple[float, float] | None
    pixels: "np.ndarray | None"
    small: "np.ndarray | None"
    key: str


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
    measure: options.Measure = None,
    cup_model: options.CupModel = None,
    spacing: options.Spacing = None,
    spacing_csv: options.SpacingCsv = None,
    trust_dpi: options.TrustDpi = False,
    qc: options.Qc = "quick",
    fail_on_qc: options.FailOnQc = False,
    posterior: options.Posterior = None,
    tta: options.Tta = False,
    page: options.Page = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    threads: options.Threads = None,
    batch_size: options.BatchSize = 8,
    workers: options.Workers = None,
    seed: options.Seed = 0,
    deterministic: options.Deterministic = False,
    offline: options.Offline = False,
    existing: options.Existing = "error",
    on_error: options.OnError = "continue",
    from_file: options.FromFile = None,
    recursive: options.Recursive = False,
    window: options.Window = "auto",
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
    holds results.csv, with what the exact outline measures: in pixels of the
    mask, and in mm if the size of a pixel is known. --seed changes the
    draws of --posterior and nothing else.
    """
    part, shown = parse_shard(shard), parse_window(window)
    gathered = gather(inputs or [], from_file=from_file, recursive=recursive, out=out)
    target = find_target(out, many=gathered.many)
    kind = choose_format(format, target, SUFFIXES, what="masks")
    if target.stdout and (overlay or as_json or posterior):
        raise UsageError("-o - writes one image: no --overlay, --posterior or --json with it")
    judging = Judging(qc, fail_on_qc, posterior or 0, tta, seed, measure)
    endings = ["." + kind, *(["__overlay.png"] if overlay else []), *judging.endings]
    if (measure == "cup-disc") != (cup_model is not None):
        raise UsageError("--measure cup-disc and --cup-model go together", hint="--model finds the disc")
    spacings = _spacings(spacing, spacing_csv, trust_dpi, [item.name for item in gathered.items])
    if page is not None:
        from ..review import check_page

        check_page(page, existing)
    account = Account("segment", model, offline=offline, seed=seed)
    planned = [_told_apart(job, spacings) for job in plan(gathered.items, target, endings)[part]]
    jobs = settle_existing(planned, existing, account, target)
    if dry_run:
        raise typer.Exit(preview(jobs, as_json))
    from ..evaluation import biometry as figures  # a wrong option needed no numbers

    todo = [job for job in jobs if not job.skip and job.item.fault is None]
    results: Generator[Any] = (_ for _ in ())
    if todo:
        from ..checkpoints.registry import resolve

        folders = [resolve(ref, offline=offline) for ref in (model, cup_model) if ref]  # before torch, too

        from ..inference.pipeline import Pipeline
        from .batching import stream

        load = partial(Pipeline.load, device=device, dtype=dtype, deterministic=deterministic)
        pipeline, *cup = map(load, folders)
        if verbose:
            print(pipeline, *cup, sep="\n", file=sys.stderr)
        judging.check(pipeline)
        task = Task(
            pipeline,
            cup[0] if cup else None,
            spacings,
            measure,
            judging,
            kind,
            overlay,
            shown,
            page is not None,
        )
        account.pipeline = pipeline
        signed_load, signed_finish = account.signing(partial(_load, task), partial(_finish, task))
        results = stream(
            todo,
            load=signed_load,
            run=partial(_locate, task),
            finish=signed_finish,
            batch_size=1 if deterministic else batch_size,
            workers=worker_count(workers),
            halved=account.halved,
        )
    more = {None: (), "fetal-head": figures.HEAD_COLUMNS, "cup-disc": figures.CUP_COLUMNS}[measure]
    columns = ("width", "height", *figures.COLUMNS, *more, *judging.columns)
    with (
        closing(results),
        Report(
            "segment",
            jobs,
            target,
            columns=columns,
            account=account,
            as_json=as_json,
            quiet=quiet,
            progress=progress,
            page=page,
        ) as report,
    ):
        code = drive(report, jobs, results, on_error)
    raise typer.Exit(code)


def _spacings(spacing: str | None, table: Path | None, trust_dpi: bool, names: list[str]) -> "Spacings":
    """Where pixels' sizes come from; UsageError for what makes no sense, and a table of other inputs."""
    from ..images.spacing import Spacings, parse, read_table

    given = None if spacing is None else parse(spacing)
    found = Spacings(read_table(table) if table else {}, given, trust_dpi)
    if table and names and not any(map(found.row_of, names)):
        raise UsageError(f"{table}: names none of the inputs", hint=f"one of them is {names[0]!r}")
    return found


def _told_apart(job: Job, spacings: "Spacings") -> Job:
    """A job whose result depends on its row of --spacing-csv, not on the other rows."""
    given = spacings.row_of(job.item.name) if spacings.table else None
    return job if given is None else replace(job, record={"spacing": given})


def _load(task: Task, job: Job) -> "tuple[list[np.ndarray], Seen]":
    from ..images.read import read_scan
    from ..images.transforms import to_uint8
    from ..thumbs import shrink

    item = job.item
    scan = read_scan(item.source, page=item.page, name=item.name, window=task.window)
    height, width = scan.pixels.shape[:2]
    spacing = task.spacings.of(item.name, scan, item.source)
    pixels = to_uint8(scan.pixels, scan.window) if task.overlay else None
    small = shrink(scan.pixels, scan.window) if task.page else None
    key = task.judging.key(item.source, item.page)
    seen = Seen((height, width), scan.orientation, spacing, pixels, small, key)
    return [model.prepare(scan) for model in _models(task)], seen


def _models(task: Task) -> "list[Pipeline]":
    return [task.pipeline] if task.cup is None else [task.pipeline, task.cup]


def _locate(task: Task, images: "list[list[np.ndarray]]") -> list[tuple[Located, ...]]:
    """Where each scan's objects are, one a model."""
    import numpy as np

    batches = [np.stack(batch) for batch in zip(*images, strict=True)]
    found = [task.judging.locate(task.pipeline, batches[0])]
    if task.cup is not None:
        found.append([Located(theta, None) for theta in task.cup.locate(batches[1])])
    return list(zip(*found, strict=True))


def _finish(
    task: Task, job: Job, seen: Seen, located: tuple[Located, ...]
) -> "tuple[list[bytes], Fields, str | None, Thumb | None]":
    """The bytes of a job's files, its columns, the gate that it misses, and its picture for the page."""
    from ..evaluation.biometry import measure_cup
    from ..images.encode import encode_png, encode_tiff
    from ..images.render import geojson, overlay, svg
    from ..images.scan import stored, stored_points
    from ..thumbs import thumb_of

    upright, *cups = (
        model.contour(each.theta, seen.size) for model, each in zip(_models(task), located, strict=True)
    )
    rings = [stored_points(ring, seen.size, seen.orientation) for ring in upright]
    height, width = seen.size if seen.orientation < 5 else seen.size[::-1]
    fields = {"width": width, "height": height, **_measured(task, seen, rings)}
    if task.measure == "cup-disc":
        fields |= _short(measure_cup(cups[0], upright))
    judged, missed = task.judging.fields(task.pipeline, located[0], upright)
    chances, intervals = task.judging.drawn(
        task.pipeline,
        located[0],
        size=seen.size,
        orientation=seen.orientation,
        key=seen.key,
        figures=partial(_measured, task, seen),
    )
    fields |= judged | intervals
    if task.kind in ("png", "tiff"):
        mask = stored(task.pipeline.mask(located[0].theta, seen.size), seen.orientation)
        first = encode_png(mask) if task.kind == "png" else encode_tiff(mask)
    else:
        first = (svg(rings, (height, width)) if task.kind == "svg" else geojson(rings, fields)).encode()
    outlines = [ring for each in (upright, *cups) for ring in each]
    drawn = [] if seen.pixels is None else [encode_png(overlay(seen.pixels, outlines))]
    thumb = None if seen.small is None else thumb_of(seen.small, outlines, seen.size)
    return [first, *drawn, *chances], fields, missed, thumb


def _measured(task: Task, seen: Seen, rings: Rings) -> Fields:
    """The columns that an outline gives; `rings` lie as the file does."""
    from ..evaluation.biometry import measure, measure_head

    size = seen.size if seen.orientation < 5 else seen.size[::-1]
    found: Fields = dict(measure(rings, seen.spacing))
    if task.measure == "fetal-head":
        found |= measure_head(rings, size, seen.spacing)
    return _short(found)


def _short(found: Fields) -> Fields:
    return {name: float(f"{x:.7g}") if isinstance(x, float) else x for name, x in found.items()}
