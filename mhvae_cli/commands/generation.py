"""What the verbs that make pictures share: the way from what was named to files.

A verb says which results it makes, and how the code of each follows from its sources':

    @generative
    def reconstruct(inputs: options.Inputs = None, *, shared: Shared) -> None:
        \"\"\"The help.\"\"\"
        named = find_inputs(inputs, shared)
        wishes = [Wish((item,), beside(item, "__recon")) for item in named.items]
        raise typer.Exit(generate("reconstruct", wishes, shared, many=named.many))

`generative` (see `shared`) adds the options of `Shared` to the verb's own. A `Wish` is one result. Its edit
runs beside the network, once; an InputError there costs the result its row. What an option alone tells to be
wrong is checked by the verb before `generate`. Images and latents files are alike to it.
"""

import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import typer

from ..errors import InputError, OutputError, UsageError
from .account import Account
from .inputs import Gathered, Item, gather, parse_shard, parse_window
from .making import CELL, Maker, Wish
from .outputs import (
    Job,
    Target,
    choose_format,
    find_target,
    output_paths,
    refuse_clashes,
    refuse_existing,
    say,
    settle_existing,
)
from .report import Report, drive, preview
from .shared import Shared

if TYPE_CHECKING:
    from ..inference.synthesis import Picture

SUFFIXES = {".png": "png", ".tif": "tiff", ".tiff": "tiff"}
SHEET_ROWS = 16
COLUMNS = ("mask", "dice", "tries", "seed")
Collect = Callable[["Wish", "Picture"], None]


@dataclass(frozen=True)
class Album:
    """One more file of a run, of all its pictures, which `collect` has gathered: the run stops at a fault.

    `sources` are what the pictures are made from; the first names its row. `stem` and `ending` are its path
    in the output folder; `encode` makes its bytes, with the texts that it is given inside; `record` tells it
    from others of its name.
    """

    sources: tuple[Item, ...]
    stem: PurePath
    ending: str
    encode: Callable[[Mapping[str, str]], bytes]
    record: Mapping[str, Any]


def find_inputs(inputs: list[str] | None, shared: Shared) -> Gathered:
    """What the user named, expanded; see `inputs.gather`."""
    return gather(inputs or [], from_file=shared.from_file, recursive=shared.recursive, out=shared.out)


def find_one(option: str, named: str, inputs: Sequence[str], shared: Shared) -> Item:
    """The one image, or file of latents, that an `option` names beside the inputs."""
    if named == "-" and ("-" in inputs or shared.from_file == "-"):
        raise UsageError("stdin can be read once only", hint="name - once")
    first, *others = gather([named]).items
    if others:
        raise UsageError(f"{option} {named}: {len(others) + 1} images, where one is wanted")
    if first.fault is not None:
        raise first.fault
    return first


def generate(
    verb: str,
    wishes: Sequence[Wish],
    shared: Shared,
    *,
    many: bool,
    columns: Sequence[str] = (),
    words: Sequence[str] = (),
    titles: Sequence[str] = ("input",),
    collect: Collect | None = None,
    album: Album | None = None,
    settled: Callable[[Job], None] | None = None,
) -> int:
    """Make every wish, write it and tell of it; the exit code.

    `many`: what was named may be more than one picture. `columns` are those of `Wish.row`; `words` the verb's
    own options, as the files tell them; `titles` stand over the sources on the sheet. `collect` gets every
    picture that was made, in order, and `album` is written behind them; `settled` hears of each result whose
    files are there.
    """
    _check(shared)
    target = find_target(shared.out, many=many or len(wishes) > 1)
    if target.stdout and (shared.as_json or shared.save_latents):
        raise UsageError("-o - writes one image: no --save-latents and no --json with it")
    kind = choose_format(shared.format, target, SUFFIXES, what="pictures")
    suffix = target.file.suffix if target.file else f".{kind}"
    endings = [suffix, f"_mask{suffix}", *([".safetensors", ".json"] if shared.save_latents else [])]
    planned = [_planned(wish, target, endings) for wish in wishes]
    whole = [_bound_job(album, target)] if album else []
    sheet = _sheet(shared)
    extra = [] if shared.sheet is None else [Job(Item("--sheet", b"", PurePath()), (shared.sheet,))]
    refuse_clashes([*planned, *whole, *extra], [item for wish in wishes for item in wish.sources])
    part = parse_shard(shared.shard)
    account = Account(verb, shared.model, offline=shared.offline, seed=shared.seed)
    refuse_existing(extra, shared.existing)
    jobs = settle_existing([*planned[part], *whole], shared.existing, account, target)
    if whole and not all(job.skip for job in jobs):
        jobs = _all_anew(jobs)
    if shared.dry_run:
        return preview(jobs, shared.as_json)
    each = zip(jobs, wishes[part], strict=not whole)
    todo = [(job, wish) for job, wish in each if not job.skip and job.item.fault is None]
    rows: list[Any] = []
    results: Generator[Any] = (_ for _ in ())
    if todo:
        refining = ["--steps", str(shared.steps), "--solver", shared.solver]
        if shared.strength is not None:
            refining += ["--strength", f"{shared.strength:g}"]
        seen = [] if shared.window == "auto" else ["--window", shared.window]
        words = ["mhvae", verb, *words, *seen, *(["--no-refine"] if shared.no_refine else refining)]
        maker = _maker(shared, kind, " ".join(words), drawn=sheet is not None)
        account.pipeline = maker.pipeline
        wanted = [wish for _, wish in todo]
        made = maker.stream(
            wanted, batch_size=shared.batch_size, workers=shared.workers, halved=account.halved
        )
        sign = account.made_by if target.folder is not None else lambda *_: None
        results = _watched([job for job, _ in todo], made, rows, collect, sign)
        results = _bound(results, whole[0], album, maker, sign) if album else results
    report = Report(
        verb,
        jobs,
        target,
        columns=[*columns, *COLUMNS],
        account=account,
        as_json=shared.as_json,
        quiet=shared.quiet,
        progress=shared.progress,
        settled=settled,
    )
    with closing(results), report:
        code = drive(report, jobs, results, "stop" if album else shared.on_error)
    if sheet is not None and rows:
        _finish_sheet(sheet, rows, titles, maker, shared)
    return code


def _planned(wish: Wish, target: Target, endings: Sequence[str]) -> Job:
    paths = output_paths(wish.stem, target, endings, mask=wish.mask, latents=wish.latents)
    return Job(wish.item, paths, made_of=wish.sources, record=wish.record)


def _bound_job(album: Album, target: Target) -> Job:
    paths = output_paths(album.stem, target, [album.ending])
    return Job(album.sources[0], paths, made_of=album.sources, record=album.record)


def _all_anew(jobs: Sequence[Job]) -> list[Job]:
    """The jobs of an album of which something is missing: all are made. OutputError if some are stale."""
    stale = next((job for job in jobs if job.stale), None)
    if stale is not None:
        hint = "--existing overwrite makes all pictures anew"
        raise OutputError(f"{stale.outputs[0]}: stale: {stale.stale}", hint=hint)
    return [replace(job, skip=False) for job in jobs]


def _check(shared: Shared) -> None:
    """UsageError for options that make no sense together."""
    parse_window(shared.window)
    if shared.tries > 1 and shared.min_dice is None:
        raise UsageError("--tries draws again what misses --min-dice", hint="--min-dice 0.9 --tries 4")
    if shared.tries > 1 and shared.no_refine:
        raise UsageError("--tries draws other noise, and with --no-refine there is none")
    if shared.sheet is not None and shared.sheet.suffix.lower() != ".png":
        raise UsageError(f"{shared.sheet}: a sheet is a PNG", hint="--sheet sheet.png")


def _sheet(shared: Shared) -> Path | None:
    """Where the sheet goes, if one is asked for."""
    if shared.sheet is None and shared.show and not shared.dry_run:
        return Path(tempfile.mkdtemp(prefix="mhvae-")) / "sheet.png"
    return shared.sheet


def _maker(shared: Shared, kind: str, command: str, *, drawn: bool) -> Maker:
    from ..checkpoints.registry import resolve

    folder = resolve(shared.model, offline=shared.offline)  # a wrong name shows before torch is imported

    from ..inference.pipeline import Pipeline

    pipeline = Pipeline.load(
        folder, device=shared.device, dtype=shared.dtype, deterministic=shared.deterministic
    )
    if shared.verbose:
        print(pipeline, file=sys.stderr)
    return Maker(
        pipeline,
        {
            "refine": not shared.no_refine,
            "steps": shared.steps,
            "solver": shared.solver,
            "strength": shared.strength,
            "seed": shared.seed,
            "min_dice": shared.min_dice or 0.0,
            "tries": shared.tries,
        },
        kind=kind,
        command=command,
        window=parse_window(shared.window),
        latents=shared.save_latents,
        drawn=drawn,
    )


def _watched(
    jobs: Sequence[Job],
    results: Generator[Any],
    rows: list[Any],
    collect: Collect | None,
    sign: Callable[..., str | None],
) -> Generator[Any]:
    """What the report takes of each result; the sheet's first rows and the pictures go their own way."""
    with closing(results):
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, InputError):
                yield result
                continue
            if result.thumbs and len(rows) < SHEET_ROWS:
                rows.append(result.thumbs)
            if collect is not None:
                collect(result.wish, result.picture)
            mask = {"mask": str(job.outputs[1])} if job.outputs else {}
            made_by = {"made_by": sign(job.sources, job.record, result.hashes)}
            yield result.files, result.row | mask | made_by, result.missed


def _bound(
    results: Generator[Any], job: Job, album: Album, maker: Maker, sign: Callable[..., str | None]
) -> Generator[Any]:
    """The results, and behind them the album as one more."""
    from ..hashing import sha256_of

    with closing(results):
        yield from results
    hashes = [sha256_of(item.source) for item in album.sources]
    made_by = sign(job.sources, job.record, hashes)
    yield [album.encode(maker.text(hashes))], {"made_by": made_by}, None


def _finish_sheet(path: Path, rows: list[Any], titles: Sequence[str], maker: Maker, shared: Shared) -> None:
    from ..filesystem import write_atomic
    from ..images.encode import encode_png
    from ..images.render import sheet

    names = [*titles, "mask", "VAE", *([] if shared.no_refine else ["refined"])]
    write_atomic(path, encode_png(sheet(rows, names, cell=CELL), text=maker.text()))
    if shared.sheet is None:
        print(f"the sheet is {path}", file=sys.stderr)
    elif not shared.as_json and shared.out != "-":
        say(str(path))
    if shared.show:
        typer.launch(str(path))
