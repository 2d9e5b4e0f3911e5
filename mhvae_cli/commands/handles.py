"""The handles by which a spline's outline is moved, drawn so that a user sees their numbers (section 3.2)."""

import sys
from collections.abc import Generator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ModelError, UsageError
from ..machine import worker_count
from .account import Account
from .batching import stream
from .generation import COLUMNS
from .inputs import Gathered, parse_shard, parse_window
from .outputs import Job, choose_format, find_target, plan, settle_existing
from .report import Report, drive, preview
from .shared import Shared

if TYPE_CHECKING:
    import numpy as np

    from ..images.scan import Scan, Window
    from ..inference.pipeline import Pipeline


def need_spline(shared: Shared) -> None:
    """UsageError for a model whose outlines have no handles, ModelError for one without outlines."""
    from ..checkpoints.folder import read_config
    from ..checkpoints.registry import resolve
    from ..config import ModelConfig, from_dict

    content = read_config(resolve(shared.model, offline=shared.offline))
    config = from_dict(ModelConfig, content["model"], where="model.")
    if config.single_head:
        raise ModelError(f"{content['name']}: a single-headed VAE finds no object")
    if config.warp.family == "affine":
        hint = "use --rotate, --scale, --shift, or another --model"
        raise UsageError(f"{content['name']}: an affine model has no handles", hint=hint)


def draw_handles(named: Gathered, shared: Shared) -> int:
    """Write NAME__handles.png for every image; the exit code."""
    target = find_target(shared.out, many=named.many)
    if choose_format(shared.format, target, {".png": "png"}, what="drawings") != "png":
        raise UsageError("handles are drawn as PNGs, whatever --format")
    if target.stdout and shared.as_json:
        raise UsageError("-o - writes one image: no --json with it")
    part = parse_shard(shared.shard)
    account = Account("warp", shared.model, offline=shared.offline, seed=shared.seed)
    planned = plan(named.items, target, ["__handles.png"])[part]
    jobs = settle_existing(planned, shared.existing, account, target)
    if shared.dry_run:
        return preview(jobs, shared.as_json)
    need_spline(shared)
    todo = [job for job in jobs if not job.skip and job.item.fault is None]
    results: Generator[Any] = _drawn(todo, shared, account) if todo else (_ for _ in ())
    telling: dict[str, Any] = {"as_json": shared.as_json, "quiet": shared.quiet, "progress": shared.progress}
    telling |= {"columns": COLUMNS, "account": account}
    with closing(results), Report("warp", jobs, target, **telling) as report:
        return drive(report, jobs, results, shared.on_error)


def _drawn(jobs: list[Job], shared: Shared, account: Account) -> Generator[Any]:
    from ..inference.pipeline import Pipeline

    pipeline = Pipeline.load(
        shared.model,
        device=shared.device,
        dtype=shared.dtype,
        offline=shared.offline,
        deterministic=shared.deterministic,
    )
    if shared.verbose:
        print(pipeline, file=sys.stderr)
    account.pipeline = pipeline
    load, finish = account.signing(
        partial(_load, pipeline, parse_window(shared.window)), partial(_finish, pipeline)
    )
    return stream(
        jobs,
        load=load,
        run=partial(_locate, pipeline),
        finish=finish,
        batch_size=1 if pipeline.one_by_one else shared.batch_size,
        workers=worker_count(shared.workers),
        halved=account.halved,
    )


def _load(pipeline: "Pipeline", window: "Window", job: Job) -> "tuple[np.ndarray, Scan]":
    from ..images.read import read_scan
    from ..inference.latent_files import is_latents

    if not isinstance(job.item.source, bytes) and is_latents(job.item.source):
        hint = "the JSON file of the two lists its handles"
        raise InputError(f"{job.item.name}: a file of latents has no image to draw on", hint=hint)
    scan = read_scan(job.item.source, page=job.item.page, name=job.item.name, window=window)
    return pipeline.prepare(scan), scan


def _locate(pipeline: "Pipeline", images: "list[np.ndarray]") -> "np.ndarray":
    import numpy as np

    return pipeline.locate(np.stack(images))


def _finish(
    pipeline: "Pipeline", job: Job, scan: "Scan", theta: "np.ndarray"
) -> tuple[list[bytes], dict[str, Any]]:
    from ..images.encode import encode_png
    from ..images.render import number_points
    from ..images.transforms import to_uint8
    from ..vae.editing import Code
    from ..vae.handles import handles

    size = scan.pixels.shape[:2]
    code = Code(z=theta[:0], theta=theta, pose=None, size=size)
    try:
        points = handles(pipeline.model, code)
    except InputError as error:
        raise InputError(f"{job.item.name}: {error}", hint=error.hint) from error
    shown = to_uint8(scan.pixels, scan.window)
    return [encode_png(number_points(shown, pipeline.contour(theta, size), points))], {}
