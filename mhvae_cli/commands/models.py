"""`mhvae models VERB`: the models at hand, what they are, if they are whole, how they get elsewhere."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from ..checkpoints.describe import components, describe
from ..errors import ModelError, OutputError, UsageError, os_error_text
from ..runs.console import print_error, write_line
from . import options
from .inspect import shown, tell

EXAMPLES = (
    "mhvae models list",
    "mhvae models show fetal-head",
)

app = typer.Typer(name="models", add_completion=False, no_args_is_help=True)

Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="A bundled name, a folder, an imported name, or ORG/NAME or ORG/NAME@REVISION on the Hub.",
        show_default=False,
    ),
]


@app.callback()
def models() -> None:
    """List, check, fetch and carry models.

    pull alone asks the network, and push. A model on the Hub is kept in the
    Hub's usual cache (HF_HOME), an imported one in MHVAE_HOME.
    """


@app.command("list")
def list_models(as_json: options.AsJson = False) -> None:
    """List the models at hand: bundled, imported, and in the Hub's cache.

    A line a model: the REF that means it, where it is from, its size and
    licence, tab-separated.
    """
    from ..checkpoints.folder import FILES, read_config
    from ..checkpoints.registry import known

    for ref, source, folder in known():
        try:
            content = read_config(folder)
        except ModelError:  # the Hub's cache holds models of every kind
            continue
        size = sum((folder / name).stat().st_size for name in FILES if (folder / name).is_file())
        facts = {"ref": ref, "source": source, "folder": str(folder), "name": content["name"], "bytes": size}
        facts["components"] = components(folder)
        facts["licence"] = content["card"].get("license")
        if as_json:
            write_line(json.dumps(facts))
        else:
            whole = f"{size / 1e6:.1f} MB" if "vae" in facts["components"] else "incomplete"
            write_line("\t".join([ref, source, whole, shown(facts["licence"])]))


@app.command()
def show(ref: Ref, as_json: options.AsJson = False) -> None:
    """Tell what a model is: licence, data, intended use, figures, sizes, SHA-256.

    The same as inspect tells of a model; of one on the Hub, if it is in the
    cache.
    """
    from ..checkpoints.registry import resolve

    tell(ref, describe(resolve(ref, offline=True)), as_json)


@app.command()
def pull(ref: Ref) -> None:
    """Fetch a model from the Hub, check it, and print its folder.

    Each file is compared with the hash that the Hub names for it, which is
    kept for verify. A download that broke off goes on where it broke.
    """
    from ..checkpoints.registry import resolve
    from ..inference.loading import verify_model

    folder = resolve(ref, check=True)
    verify_model(folder)
    write_line(str(folder))


@app.command()
def verify(
    refs: Annotated[
        list[str], typer.Argument(metavar="REFS", help="Models, named as --model is.", show_default=False)
    ],
    as_json: options.AsJson = False,
) -> None:
    """Check that models are what they were: every file's SHA-256, the weights' shapes, no NaN.

    A folder's SHA-256 are in its SHA256SUMS, those of a model of the Hub in
    the cache since it was fetched. A line a model: its SHA-256, which records
    name, and the REF.
    """
    failed = False
    for ref in refs:
        try:
            facts: dict[str, Any] = {"input": ref, "status": "ok", **_verified(ref)}
            write_line(json.dumps(facts) if as_json else f"{facts['sha256']}  {ref}")
        except ModelError as error:
            failed = True
            print_error(error)
            if as_json:
                write_line(json.dumps({"input": ref, "status": "failed", "error": str(error)}))
    if failed:
        raise typer.Exit(ModelError.exit_code)


@app.command("export")
def export_model(
    ref: Ref,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="NAME.mhvae", show_default=False)],
    existing: options.ExistingFile = "error",
) -> None:
    """Write a model as one file, to carry to a machine without a network.

    The file is a plain tar archive with the SHA-256 of all that is in it; the
    same model makes the same bytes. Models that verify refuses are refused.
    """
    from ..checkpoints.archive import pack
    from ..checkpoints.folder import read_config
    from ..checkpoints.registry import resolve
    from ..filesystem import write_atomic
    from ..inference.loading import verify_model

    folder = resolve(ref, offline=True)
    sums = verify_model(folder)
    if os.path.lexists(file) and existing != "overwrite":
        if existing == "error":
            raise OutputError(f"{file}: exists already", hint="--existing skip or --existing overwrite")
    else:
        name = re.sub(r"[^A-Za-z0-9_.-]+|^[^A-Za-z0-9]+", "-", read_config(folder)["name"])
        write_atomic(file, pack(folder, name.strip("-.")[:32] or "model", sums))
    write_line(str(file))


@app.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What export wrote.", show_default=False)],
    name: Annotated[
        str | None,
        typer.Option("--name", help="What to call it here.", show_default="the name it has"),
    ] = None,
) -> None:
    """Take in a model that export wrote, and print its folder; --model NAME finds it then.

    Everything is checked as verify does before it is put into its place, in
    MHVAE_HOME, which is ~/.local/share/mhvae unless you set it.
    """
    from ..checkpoints.archive import NAME, name_in, unpack
    from ..checkpoints.folder import FILES, digest
    from ..checkpoints.registry import bundled, home
    from ..inference.loading import verify_model

    called = name or name_in(file)
    if not NAME.fullmatch(called):
        raise UsageError(f"--name {called}: up to 32 letters, digits, dots, dashes and underscores")
    if called in bundled():
        raise OutputError(f"{called}: is the name of a bundled model", hint="--name gives it another")
    folder = home() / "models" / called
    beside = folder.with_name(f".{os.urandom(8).hex()}.part")
    try:
        unpack(file, beside, FILES)
        verify_model(beside)
        if not folder.exists():
            _place(beside, folder)
        elif not _same(folder, digest(beside)):
            raise OutputError(f"{folder}: another model is there", hint="--name gives this one another name")
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    write_line(str(folder))


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model.", show_default=False)],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", show_default=False)],
    private: Annotated[
        bool, typer.Option("--private", help="Make it a private one; refused if it is there and public.")
    ] = False,
) -> None:
    """Upload a model folder with its card to the Hub, and print ORG/NAME@COMMIT, which --model takes.

    With the token of `hf auth login` or HF_TOKEN. Models that verify refuses
    are refused.
    """
    from ..checkpoints.folder import FILES
    from ..checkpoints.hub import push as upload
    from ..checkpoints.registry import resolve
    from ..inference.loading import verify_model

    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    place = resolve(folder, offline=True)
    verify_model(place)
    if not (place / "README.md").is_file():
        raise ModelError(f"{place}: no README.md in it, so no card")
    write_line(f"{repo}@{upload(place, repo, FILES, private=private)}")


def _verified(ref: str) -> dict[str, Any]:
    from ..checkpoints.folder import digest
    from ..checkpoints.registry import resolve
    from ..inference.loading import verify_model

    folder = resolve(ref, offline=True)
    files = verify_model(folder)
    return {"folder": str(folder), "sha256": digest(folder), "files": files}


def _place(beside: Path, folder: Path) -> None:
    try:
        beside.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: {os_error_text(error)}") from error


def _same(folder: Path, sha256: str) -> bool:
    from ..checkpoints.folder import digest
    from ..inference.loading import verify_model

    try:
        verify_model(folder)
        return digest(folder) == sha256
    except ModelError:
        return False
