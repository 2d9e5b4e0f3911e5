"""The workflow of the verbs that generate images: from the inputs to the output files.

A verb defines its results, and how the latent code of each follows from those of its sources:

    @generative()
    def reconstruct(inputs: options.Inputs = None, *, settings: GenerationSettings) -> None:
        \"\"\"The help.\"\"\"
        named = find_inputs(inputs, settings)
        requests = [GenerationRequest((item,), output_stem(item, "__recon")) for item in named.items]
        raise typer.Exit(generate("reconstruct", requests, settings, many=named.many))

`commands.generation_options.generative` adds the options that are the fields of `GenerationSettings`. A
`GenerationRequest` describes one result. Its edit runs once, in the thread of the network; an InputError in
it fails only that result. A verb checks its options before it calls `generate`. Images and latent files are
interchangeable as inputs.
"""

import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError, UsageError
from ..filesystem import write_atomic
from ..hashing import sha256_of
from .console import open_file, print_note, write_line
from .fingerprint import RunFingerprint, apply_existing_policy
from .generation_jobs import CELL, GenerationRequest, GenerationResult, JobRunner
from .generation_quality import Judge
from .inputs import Item, gather, parse_window
from .models import load_networks
from .outputs import Job, Target, choose_format, find_target, output_paths, refuse_clashes, refuse_existing
from .reporter import Reporter, drive, preview
from .results import Result
from .settings import GenerationSettings
from .shards import find_shard, share

if TYPE_CHECKING:
    import numpy as np

    from ..inference.synthesis import GeneratedImage

SUFFIXES = {".png": "png", ".tif": "tiff", ".tiff": "tiff"}
SHEET_ROWS = 16
COLUMNS = ("mask", "dice", "qc", "qc_why", "tries", "seed", "detail")
Collect = Callable[["GenerationRequest", "GeneratedImage"], None]


@dataclass(frozen=True)
class Compilation:
    """An additional file made from all images of a run, which `collect` gathers; the run stops at an error.

    `sources` are the sources of the images; the first names the row. `stem` and `ending` are the path in the
    output folder; `encode` returns the bytes, with the given texts embedded; `record` is what it records and
    what distinguishes it from other files of the same name.
    """

    sources: tuple[Item, ...]
    stem: PurePath
    ending: str
    encode: Callable[[Mapping[str, str]], bytes]
    record: Mapping[str, object]


@dataclass(frozen=True)
class _Plan:
    """All jobs in order, that of the compilation last; `planned`, those of every shard; those `todo`, with
    their requests."""

    target: Target
    format: str
    jobs: list[Job]
    planned: list[Job]
    todo: list[tuple[Job, GenerationRequest]]
    sheet: Path | None
    fingerprint: RunFingerprint

    def made_by(self, job: Job, hashes: Sequence[str]) -> str | None:
        """The column made_by of a result; None without a results.csv."""
        if self.target.folder is None:
            return None
        return self.fingerprint.made_by(job.sources, job.record, hashes)


def find_one(option: str, named: str, inputs: Sequence[str], settings: GenerationSettings) -> Item:
    """The single image or latent file given by an `option` in addition to the inputs."""
    if named == "-" and "-" in [*inputs, settings.from_file, settings.from_file0]:
        raise UsageError("stdin can be read only once", hint="use - only once")
    first, *others = gather([named]).items
    if others:
        raise UsageError(f"{option} {named}: needs exactly one image, got {len(others) + 1}")
    if first.error is not None:
        raise first.error
    return first


def generate(
    verb: str,
    requests: Sequence[GenerationRequest],
    settings: GenerationSettings,
    *,
    many: bool,
    columns: Sequence[str] = (),
    command_words: Sequence[str] = (),
    titles: Sequence[str] = ("input",),
    collect: Collect | None = None,
    compilation: Compilation | None = None,
    settled: Callable[[Job], None] | None = None,
    audit: bool = False,
) -> int:
    """Process, write and report every request; return the exit code.

    `many`: the inputs may be more than one image. `columns` are those of `GenerationRequest.row`;
    `command_words` are the verb's own options, as recorded in the files; `titles` are the headings of the
    sources on the sheet. `collect` receives every generated image in order, and `compilation` is written
    after them; `settled` is called with each job whose files exist. `audit`: compare the images with the
    training images.
    """
    _check(settings)
    plan = _plan(verb, requests, settings, many=many, compilation=compilation)
    if settings.dry_run:
        return preview(plan.jobs, settings.as_json)
    rows: list[list[np.ndarray]] = []
    results: Generator[Result | InputError] = (_ for _ in ())
    if plan.todo:
        command = " ".join(["mhvae", verb, *command_words, *_common_words(settings)])
        runner = _load_runner(plan, settings, command)
        judge = Judge(runner.networks, audit=audit)
        results = _results(plan, runner, settings, rows, collect, judge)
        if compilation is not None:
            results = _with_compilation(results, plan, runner, compilation)
    reporter = Reporter(
        verb,
        plan.jobs,
        plan.target,
        settings,
        columns=[*columns, *COLUMNS, *["training_distance"] * audit],
        fingerprint=plan.fingerprint,
        planned=plan.planned,
        settled=settled,
    )
    with closing(results), reporter:
        code = drive(reporter, plan.jobs, results, "stop" if compilation else settings.on_error)
    if plan.sheet is not None and rows:
        _write_sheet(plan.sheet, rows, titles, runner, settings)
    return code


def _check(settings: GenerationSettings) -> None:
    """UsageError for options that exclude each other or are invalid."""
    parse_window(settings.window)
    if settings.tries > 1 and settings.min_dice is None:
        raise UsageError("--tries needs --min-dice", hint="for example --min-dice 0.9 --tries 4")
    if settings.tries > 1 and settings.no_refine:
        raise UsageError(
            "--tries and --no-refine exclude each other: without refinement there is no noise to vary"
        )
    if settings.sheet is not None and settings.sheet.suffix.lower() != ".png":
        raise UsageError(f"--sheet {settings.sheet}: not a .png file", hint="for example --sheet sheet.png")


def _plan(
    verb: str,
    requests: Sequence[GenerationRequest],
    settings: GenerationSettings,
    *,
    many: bool,
    compilation: Compilation | None,
) -> _Plan:
    """Name the files of every request and apply --shard and --existing; OutputError for clashes."""
    target = find_target(settings.out, many=many or len(requests) > 1)
    if target.stdout and (settings.as_json or settings.save_latents):
        raise UsageError("-o - writes one image: --save-latents and --json are not allowed")
    format = choose_format(settings.format, target, SUFFIXES, what="images")
    suffix = target.file.suffix if target.file else f".{format}"
    endings = [suffix, f"_mask{suffix}", *([".safetensors", ".json"] if settings.save_latents else [])]
    planned = [_job_of(request, target, endings) for request in requests]
    combined = [_compilation_job(compilation, target)] if compilation else []
    sheets = [] if settings.sheet is None else [Job(Item("--sheet", b"", PurePath()), (settings.sheet,))]
    refuse_clashes([*planned, *combined, *sheets], [item for each in requests for item in each.sources])
    shard, pairs = find_shard(settings), list(zip(planned, requests, strict=True))
    pairs = share(shard, pairs, lambda pair: pair[1].stem if pair[1].sources else None)
    fingerprint = RunFingerprint(verb, settings, shard)
    refuse_existing(sheets, settings.existing)
    mine = [*(job for job, _ in pairs), *combined]
    jobs = apply_existing_policy(mine, settings.existing, fingerprint, target)
    if combined and not all(job.skip for job in jobs):
        jobs = _redo_all(jobs)
    made = zip(jobs, (request for _, request in pairs), strict=not combined)
    todo = [(job, request) for job, request in made if not job.skip and job.item.error is None]
    planned += combined
    return _Plan(target, format, jobs, planned, todo, _sheet_path(settings), fingerprint)


def _job_of(request: GenerationRequest, target: Target, endings: Sequence[str]) -> Job:
    paths = output_paths(request.stem, target, endings, mask=request.mask, latents=request.latents)
    return Job(request.item, paths, made_of=request.sources, record=request.record)


def _compilation_job(compilation: Compilation, target: Target) -> Job:
    paths = output_paths(compilation.stem, target, [compilation.ending])
    return Job(compilation.sources[0], paths, made_of=compilation.sources, record=compilation.record)


def _redo_all(jobs: Sequence[Job]) -> list[Job]:
    """All jobs, to be done again as the compilation or an image of it is missing. OutputError if any output
    is stale."""
    stale = next((job for job in jobs if job.stale), None)
    if stale is not None:
        hint = "use --existing overwrite to regenerate all images"
        raise OutputError(f"{stale.outputs[0]}: stale: {stale.stale}", hint=hint)
    return [replace(job, skip=False) for job in jobs]


def _sheet_path(settings: GenerationSettings) -> Path | None:
    """The path of the sheet, if one is requested."""
    if settings.sheet is None and settings.show and not settings.dry_run:
        return Path(tempfile.mkdtemp(prefix="mhvae-")) / "sheet.png"
    return settings.sheet


def _common_words(settings: GenerationSettings) -> list[str]:
    """The shared options that change images, as recorded in the files."""
    words = [] if settings.window == "auto" else ["--window", settings.window]
    words += [] if settings.detail == "carry" else ["--detail", settings.detail]
    if settings.no_refine:
        return [*words, "--no-refine"]
    words += [] if settings.steps is None else ["--steps", str(settings.steps)]
    words += ["--solver", settings.solver]
    return words if settings.strength is None else [*words, "--strength", f"{settings.strength:g}"]


def _load_runner(plan: _Plan, settings: GenerationSettings, command: str) -> JobRunner:
    (networks,) = load_networks(settings)
    plan.fingerprint.networks = networks
    return JobRunner(
        networks,
        {
            "refine": not settings.no_refine,
            "steps": settings.steps,
            "solver": settings.solver,
            "strength": settings.strength,
            "seed": settings.seed,
            "min_dice": settings.min_dice or 0.0,
            "tries": settings.tries,
        },
        kind=plan.format,
        command=command,
        window=parse_window(settings.window),
        latents=settings.save_latents,
        thumbnails=plan.sheet is not None,
    )


def _results(
    plan: _Plan,
    runner: JobRunner,
    settings: GenerationSettings,
    rows: list[list["np.ndarray"]],
    collect: Collect | None,
    judge: Judge,
) -> Generator[Result | InputError]:
    """The result of each request for the reporter; also fills the `rows` of the sheet and calls `collect`."""
    generated: Generator[GenerationResult | InputError] = runner.stream(
        [request for _, request in plan.todo],
        batch_size=settings.batch_size,
        workers=settings.workers,
        halved=plan.fingerprint.halved,
    )
    with closing(generated):
        for (job, _), result in zip(plan.todo, generated, strict=True):
            if isinstance(result, InputError):
                yield result
                continue
            if result.thumbnails and len(rows) < SHEET_ROWS:
                rows.append(result.thumbnails)
            if collect is not None:
                collect(result.request, result.picture)
            if result.note and not settings.quiet:
                print_note(f"{job.item.name}: {result.note}")
            yield judge.result(job, result, plan.made_by(job, result.hashes))


def _with_compilation(
    results: Generator[Result | InputError], plan: _Plan, runner: JobRunner, compilation: Compilation
) -> Generator[Result | InputError]:
    """The results, followed by the compilation as one more."""
    with closing(results):
        yield from results
    hashes = [sha256_of(item.source) for item in compilation.sources]
    text = runner.text(hashes, derived=runner.derived, edit=compilation.record)
    yield Result([compilation.encode(text)], {}, made_by=plan.made_by(plan.jobs[-1], hashes))


def _write_sheet(
    path: Path,
    rows: list[list["np.ndarray"]],
    titles: Sequence[str],
    runner: JobRunner,
    settings: GenerationSettings,
) -> None:
    from ..images.encode import encode_png
    from ..images.render import sheet

    names = [*titles, "mask", "VAE", *([] if settings.no_refine else ["refined"])]
    write_atomic(path, encode_png(sheet(rows, names, cell=CELL), text=runner.text(derived=bool(titles))))
    if settings.sheet is None:
        print_note(f"sheet written to {path}")
    elif not settings.as_json and settings.out != "-":
        write_line(str(path))
    if settings.show:
        open_file(path)
