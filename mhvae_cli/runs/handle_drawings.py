"""Drawings of the numbered handles that move the outline of a spline model (section 3.2)."""

from collections.abc import Generator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

from ..errors import InputError, ModelError, UsageError
from ..resources import worker_count
from .fingerprint import RunFingerprint, apply_existing_policy
from .generation import COLUMNS
from .inputs import Gathered, parse_window
from .models import load_networks
from .outputs import Job, choose_format, find_target, plan
from .reporter import Reporter, drive, preview
from .results import Result
from .settings import GenerationSettings
from .shards import find_shard, share

if TYPE_CHECKING:
    from ..images.scan import Scan, Window
    from ..inference.looking import Position, View
    from ..inference.networks import Networks


def need_spline(settings: GenerationSettings) -> None:
    """UsageError for a model whose outlines have no handles, ModelError for one that cannot segment."""
    from ..checkpoints.folder import model_config, read_config
    from ..checkpoints.registry import resolve

    folder = resolve(settings.model, offline=settings.offline)
    content = read_config(folder)
    config = model_config(content, folder)
    if config.single_head:
        raise ModelError(f"{content['name']}: a single-headed VAE cannot find objects")
    if config.warp.family == "affine":
        hint = "use --rotate, --scale, --shift, or another --model"
        raise UsageError(f"{content['name']}: an affine model has no handles", hint=hint)


def draw_handles(named: Gathered, settings: GenerationSettings) -> int:
    """Write NAME__handles.png for every image; return the exit code."""
    target = find_target(settings.out, many=named.many)
    if choose_format(settings.format, target, {".png": "png"}, what="drawings") != "png":
        raise UsageError("--handles writes PNG files only", hint="leave --format out")
    if target.stdout and settings.as_json:
        raise UsageError("-o - writes one image: --json is not allowed")
    shard = find_shard(settings)
    fingerprint = RunFingerprint("warp", settings, shard)
    planned = plan(named.items, target, ["__handles.png"])
    mine = share(shard, planned, lambda job: job.item.stem)
    jobs = apply_existing_policy(mine, settings.existing, fingerprint, target)
    if settings.dry_run:
        return preview(jobs, settings.as_json)
    need_spline(settings)
    todo = [job for job in jobs if not job.skip and job.item.error is None]
    results = _drawings(todo, settings, fingerprint) if todo else (_ for _ in ())
    reporter = Reporter(
        "warp", jobs, target, settings, columns=COLUMNS, fingerprint=fingerprint, planned=planned
    )
    with closing(results), reporter:
        return drive(reporter, jobs, results, settings.on_error)


def _drawings(
    jobs: list[Job], settings: GenerationSettings, fingerprint: RunFingerprint
) -> Generator[Result | InputError]:
    (networks,) = load_networks(settings)
    fingerprint.networks = networks
    return fingerprint.stream(
        jobs,
        load=partial(_load, networks, parse_window(settings.window)),
        run=partial(_locate, networks),
        finish=partial(_finish, networks),
        batch_size=1 if networks.single_image_batches else settings.batch_size,
        workers=worker_count(settings.workers),
    )


def _load(networks: "Networks", window: "Window", job: Job) -> "tuple[View, Scan]":
    from ..images.read import read_scan
    from ..inference.latent_files import is_latents
    from ..inference.looking import view_of

    if not isinstance(job.item.source, bytes) and is_latents(job.item.source):
        hint = "its handles are listed in the JSON file beside it"
        raise InputError(f"{job.item.name}: a latent file has no image to draw on", hint=hint)
    scan = read_scan(job.item.source, page=job.item.page, name=job.item.name, window=window)
    return view_of(networks, scan), scan


def _locate(networks: "Networks", views: "list[View]") -> "list[Position]":
    from ..inference.looking import locate

    return locate(networks, views)


def _finish(networks: "Networks", job: Job, scan: "Scan", position: "Position") -> Result:
    from ..images.encode import encode_png
    from ..images.render import number_points
    from ..images.transforms import to_uint8
    from ..vae.editing import LatentCode
    from ..vae.handles import handles

    size, theta, pose = scan.pixels.shape[:2], position.theta, position.pose
    code = LatentCode(z=theta[:0], theta=theta, pose=pose, size=size)
    try:
        points = handles(networks.model, code)
    except InputError as error:
        raise InputError(f"{job.item.name}: {error}", hint=error.hint) from error
    image = to_uint8(scan.pixels, scan.window)
    return Result([encode_png(number_points(image, networks.contour(theta, size, pose), points))], {})
