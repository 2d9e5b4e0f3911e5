"""`mhvae models VERB`: list, describe, verify, download and transfer models."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from ..checkpoints.describe import components, describe
from ..errors import ModelError, OutputError, UsageError, os_error_text
from ..runs.console import print_error, write_line
from . import options
from .inspect import display, print_facts

EXAMPLES = (
    "mhvae models list",
    "mhvae models show fetal-head",
)

app = typer.Typer(name="models", add_completion=False, no_args_is_help=True)

Ref = Annotated[
    str,
    typer.Argument(
        metavar="REF",
        help="A bundled or imported model, a model folder, or ORG/NAME or ORG/NAME@REVISION on the Hub.",
        show_default=False,
    ),
]


@app.callback()
def models() -> None:
    """List, verify, download and transfer models.

    Only pull and push use the network. Models from the Hub are kept in the
    usual Hub cache (HF_HOME), imported models in MHVAE_HOME.
    """


@app.command("list")
def list_models(as_json: options.AsJson = False) -> None:
    """List the available models: bundled, imported, and in the Hub cache.

    Prints one line per model: REF, source, size and licence, tab-separated.
    """
    from ..checkpoints.folder import FILES, read_config
    from ..checkpoints.registry import list_models

    for ref, source, folder in list_models():
        try:
            content = read_config(folder)
        except ModelError:  # the Hub cache also holds models of other programs
            continue
        size = sum((folder / name).stat().st_size for name in FILES if (folder / name).is_file())
        facts = {"ref": ref, "source": source, "folder": str(folder), "name": content["name"], "bytes": size}
        facts["components"] = components(folder)
        facts["licence"] = content["card"].get("license")
        if as_json:
            write_line(json.dumps(facts))
        else:
            status = f"{size / 1e6:.1f} MB" if "vae" in facts["components"] else "incomplete"
            write_line("\t".join([ref, source, status, display(facts["licence"])]))


@app.command()
def show(ref: Ref, as_json: options.AsJson = False) -> None:
    """Describe a model: licence, data, intended use, metrics, sizes, SHA-256.

    The output is the same as that of inspect. A model on the Hub must already
    be in the cache.
    """
    from ..checkpoints.registry import resolve

    print_facts(ref, describe(resolve(ref, offline=True)), as_json)


@app.command()
def pull(ref: Ref) -> None:
    """Download a model from the Hub, verify it, and print its folder.

    Each file is compared with the hash published by the Hub, which is kept for
    verify. An interrupted download is resumed. A download may take an hour, or
    as long as MHVAE_HUB_TIMEOUT says (90s, 30m, 2h).
    """
    from ..checkpoints.registry import resolve
    from ..inference.loading import verify_model

    folder = resolve(ref, check=True)
    verify_model(folder)
    write_line(str(folder))


@app.command()
def verify(
    refs: Annotated[
        list[str], typer.Argument(metavar="REFS", help="Models, given as for --model.", show_default=False)
    ],
    as_json: options.AsJson = False,
) -> None:
    """Verify that models are intact: SHA-256 of every file, shapes of the weights, no NaN.

    The expected SHA-256 hashes are read from SHA256SUMS in a model folder, or
    from the cache for a model downloaded from the Hub. Prints one line per
    model: its SHA-256, as it appears in provenance records, and its REF.
    """
    failed = False
    for ref in refs:
        try:
            facts: dict[str, object] = {"input": ref, "status": "ok", **_verified(ref)}
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
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The archive to write, NAME.mhvae.", show_default=False)
    ],
    existing: options.ExistingFile = "error",
) -> None:
    """Export a model to a single file, for a machine without network access.

    The file is a plain tar archive that includes the SHA-256 of its contents;
    the same model always gives the same bytes. A model that does not pass
    verify cannot be exported.
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
            raise OutputError(f"{file}: already exists", hint="use --existing skip or --existing overwrite")
    else:
        name = re.sub(r"[^A-Za-z0-9_.-]+|^[^A-Za-z0-9]+", "-", read_config(folder)["name"])
        write_atomic(file, pack(folder, name.strip("-.")[:32] or "model", sums))
    write_line(str(file))


@app.command("import")
def import_model(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="An archive written by export.", show_default=False)
    ],
    name: Annotated[
        str | None,
        typer.Option("--name", help="Name of the imported model.", show_default="the name in the archive"),
    ] = None,
) -> None:
    """Import a model written by export, and print its folder; select it with --model NAME.

    The model passes the same checks as in verify before it is installed in
    MHVAE_HOME (default ~/.local/share/mhvae).
    """
    from ..checkpoints.archive import NAME, name_in, unpack
    from ..checkpoints.folder import FILES, digest
    from ..checkpoints.registry import bundled, home
    from ..inference.loading import verify_model

    model_name = name or name_in(file)
    if not NAME.fullmatch(model_name):
        raise UsageError(
            f"--name {model_name}: not a valid name",
            hint="use up to 32 letters, digits, dots, dashes and underscores",
        )
    if model_name in bundled():
        raise OutputError(
            f"{model_name}: a bundled model has this name", hint="choose another name with --name"
        )
    folder = home() / "models" / model_name
    staged = folder.with_name(f".{os.urandom(8).hex()}.part")
    try:
        unpack(file, staged, FILES)
        verify_model(staged)
        if not folder.exists():
            _install(staged, folder)
        elif not _is_same_model(folder, digest(staged)):
            raise OutputError(
                f"{folder}: a different model already exists", hint="choose another name with --name"
            )
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    write_line(str(folder))


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model folder.", show_default=False)],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", show_default=False)],
    private: Annotated[
        bool,
        typer.Option("--private", help="Create a private repository; an error if it exists and is public."),
    ] = False,
) -> None:
    """Upload a model folder with its model card to the Hub, and print ORG/NAME@COMMIT for --model.

    Uses the token of `hf auth login` or HF_TOKEN. A model that does not pass
    verify cannot be uploaded.
    """
    from ..checkpoints.folder import FILES
    from ..checkpoints.hub import push as upload
    from ..checkpoints.registry import resolve
    from ..inference.loading import verify_model

    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder")
    resolved = resolve(folder, offline=True)
    verify_model(resolved)
    if not (resolved / "README.md").is_file():
        raise ModelError(f"{resolved}: has no model card (README.md)")
    write_line(f"{repo}@{upload(resolved, repo, FILES, private=private)}")


def _verified(ref: str) -> dict[str, object]:
    from ..checkpoints.folder import digest
    from ..checkpoints.registry import resolve
    from ..inference.loading import verify_model

    folder = resolve(ref, offline=True)
    files = verify_model(folder)
    return {"folder": str(folder), "sha256": digest(folder), "files": files}


def _install(staged: Path, folder: Path) -> None:
    try:
        staged.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: {os_error_text(error)}") from error


def _is_same_model(folder: Path, sha256: str) -> bool:
    from ..checkpoints.folder import digest
    from ..inference.loading import verify_model

    try:
        verify_model(folder)
        return digest(folder) == sha256
    except ModelError:
        return False
