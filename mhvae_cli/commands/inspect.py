"""`mhvae inspect FILES`: what a file says of its making, and what a model is. Needs no torch."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from ..checkpoints.describe import describe
from ..errors import InputError, ModelError
from ..runs.console import print_error, write_line
from ..runs.inputs import Item, gather
from . import options

EXAMPLES = (
    "mhvae inspect a.png scans/",
    "mhvae inspect fetal-head --json",
)

NO_RECORD = "no mhvae record: not made by mhvae, or its text was stripped"


def inspect(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILES",
            help="Images, files of latents, folders, quoted globs, - for an image on stdin; models: their"
            " folders, or bundled names.",
            show_default=False,
        ),
    ] = None,
    from_file: options.FromFile = None,
    recursive: options.Recursive = False,
    as_json: options.AsJson = False,
) -> None:
    """Tell how a file was made, or what a model is.

    A file that mhvae generated says so inside, and prints its record: model,
    seed, sources, command. Of any image the size as stored, bits, channels,
    pages and EXIF orientation are told. A folder with a config.json is a
    model; models are told of first.
    """
    models = [ref for ref in inputs or [] if _is_model(ref)]
    files = [ref for ref in inputs or [] if ref not in models]
    looks: list[tuple[str, Callable[[], dict[str, Any]]]] = [(ref, partial(_model, ref)) for ref in models]
    if files or from_file or not models:
        gathered = gather(files, from_file=from_file, recursive=recursive)
        looks += [(item.name, partial(_file, item)) for item in gathered.items if item.page == 0]
    failed = 0
    for name, look in looks:
        try:
            tell(name, look(), as_json)
        except (InputError, ModelError) as error:
            failed += 1
            print_error(error)
            if as_json:
                fault = str(error).removeprefix(f"{name}: ")
                write_line(json.dumps({"input": name, "status": "failed", "error": fault}))
    if failed:
        raise typer.Exit(4 if failed == len(looks) else 3)


def tell(name: str, facts: dict[str, Any], as_json: bool) -> None:
    """Print what is known of one thing: a line a fact, or one line of JSON."""
    if as_json:
        write_line(json.dumps({"input": name, "status": "ok", **facts}))
        return
    write_line(name)
    shown = {key: value for key, value in facts.items() if key != "record"}
    if "record" in facts:
        shown |= facts["record"] or {"record": NO_RECORD}
    for key, value in _flat(shown):
        write_line(f"  {key}: {value}")


def _is_model(ref: str) -> bool:
    from ..checkpoints.registry import bundled

    return os.path.isfile(os.path.join(ref, "config.json")) or (ref in bundled() and not os.path.lexists(ref))


def _file(item: Item) -> dict[str, Any]:
    from ..images.read import count_pages, read_scan
    from ..inference.provenance import LATENTS, read

    if item.fault is not None:
        raise item.fault
    if not isinstance(item.source, bytes) and item.source.suffix.lower() in LATENTS:
        return {"kind": item.source.suffix.lower()[1:], "record": read(item.source, name=item.name)}
    scan = read_scan(item.source, name=item.name)
    height, width = scan.pixels.shape[:2][:: -1 if scan.orientation >= 5 else 1]
    return {
        "kind": "image",
        "width": width,
        "height": height,
        "bits": scan.bits,
        "channels": 1 if scan.pixels.ndim == 2 else 3,
        "pages": count_pages(item.source, name=item.name),
        "orientation": scan.orientation,
        "record": read(item.source, name=item.name),
    }


def _model(ref: str) -> dict[str, Any]:
    from ..checkpoints.registry import resolve

    return describe(Path(ref) if os.path.isdir(ref) else resolve(ref, offline=True))


def _flat(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys and values to print; a nested value's key has its parents' before it."""
    stack: list[tuple[str, Any]] = [("", facts)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, Mapping):
            inner = list(value.items())
        elif isinstance(value, list) and any(isinstance(entry, dict | list) for entry in value):
            inner = list(enumerate(value, 1))
        else:
            yield key, shown(value)
            continue
        stack += [(f"{key} {shown(name)}".strip(), entry) for name, entry in reversed(inner)]


def shown(value: object) -> str:
    """One line without control characters, which a terminal would obey."""
    if isinstance(value, list):
        return ", ".join(map(shown, value)) or "none"
    if isinstance(value, str) and value.isprintable():
        return value
    return "none" if value is None else json.dumps(value)
