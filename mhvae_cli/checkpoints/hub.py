"""Models on the Hugging Face Hub: downloads into its usual cache, verified, and uploads.

Before a snapshot is first used, every file is compared with the Hub's hash for its commit; large files before
they enter the cache. The checksums are recorded in `checksums.sums_file(snapshot)`.
"""

import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from ..errors import ModelError, OutputError
from ..hashing import git_blob_id, sha256_of
from .checksums import format_sums, read_sums, sums_file
from .hub_errors import hub_error
from .hub_limits import MODEL_BYTES, UNANNOUNCED_BYTES, LimitError, limited, timeout, within_timeout

if TYPE_CHECKING:
    from io import FileIO

    from huggingface_hub.hf_api import RepoSibling

_TRIES = 4


class _Request(Protocol):
    extensions: dict[str, Any]
    headers: dict[str, str]


class _SnapshotFiles(TypedDict):
    revision: str | None
    allow_patterns: list[str]


def fetch(
    ref: str, needs: Sequence[str], also: Sequence[str] = (), *, offline: bool = False, check: bool = False
) -> Path:
    """The cached snapshot of ORG/NAME[@REVISION]: all files in `needs`, and those in `also` that exist.

    An interrupted download is resumed, by another process too. Offline, or if the Hub cannot be reached and
    the snapshot is complete, the cache is used. `check` compares every file with the Hub's hash again.
    ModelError for anything else, and for a download of more bytes than the Hub announces, or of more time
    than MHVAE_HUB_TIMEOUT; a file that does not match the Hub's hash is removed from the cache.
    """
    return within_timeout(lambda: _fetch(ref, needs, also, offline=offline, check=check), ref)


def _fetch(ref: str, needs: Sequence[str], also: Sequence[str], *, offline: bool, check: bool) -> Path:
    _prepare()
    from huggingface_hub import HfApi, errors, get_session, is_offline_mode, snapshot_download

    repo, _, revision = ref.partition("@")
    names, offline = [*needs, *also], offline or is_offline_mode()
    files: _SnapshotFiles = {"revision": revision or None, "allow_patterns": names}
    if offline and check:
        raise ModelError(f"{ref}: cannot be checked offline", hint="unset HF_HUB_OFFLINE")
    local, cause = _cached(repo, files, needs)
    if offline and local is None:
        raise _absent_error(ref, cause, names)
    if offline and local is not None:
        return local
    begun = time.monotonic()
    try:
        with limited(get_session()) as limits:
            try:
                info = HfApi().model_info(repo, revision=revision or None, files_metadata=True)
            except (errors.HTTPError, LimitError) as error:
                if local and not check and not isinstance(error, errors.RevisionNotFoundError):
                    return local
                raise
            if local and local.name == info.sha and sums_file(local).exists() and not check:
                return local
            hashes = {file.rfilename: file for file in info.siblings or () if file.rfilename in names}
            limits.size = max(limits.size, _size(hashes.values()))
            limits.deadline = begun + timeout()
            for name in hashes:
                _download(repo, info.sha, hashes[name])
            folder = Path(snapshot_download(repo, **files, tqdm_class=_bar(disable=True)))
        _verify_snapshot(folder, hashes, ref)
    except (OSError, ValueError, TypeError, LookupError, RecursionError, errors.HTTPError) as error:
        raise hub_error(error, ref) from error
    if missing := [name for name in needs if not (folder / name).is_file()]:
        hint = "weights are read only from .safetensors: pickled files (.bin, .pt) can run code"
        raise ModelError(f"{ref}: no {missing[0]}", hint=hint)
    return folder


def cached() -> Iterator[tuple[str, Path]]:
    """Each snapshot in the Hub's cache that has a config.json: its ORG/NAME[@REVISION] and its folder."""
    from huggingface_hub import constants

    for folder in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        refs = sorted((folder / "refs").rglob("*"), key=lambda path: path.name == "main")
        known = {path.read_text().strip(): path for path in refs if path.is_file()}
        for config in sorted(folder.glob("snapshots/*/config.json")):
            commit = config.parent.name
            label = known[commit].relative_to(folder / "refs").as_posix() if commit in known else commit
            yield repo if label == "main" else f"{repo}@{label}", config.parent


def push(folder: Path, repo: str, names: Sequence[str], *, private: bool) -> str:
    """Upload the folder's files in `names` to ORG/NAME, created if absent, in one commit; returns its hash.

    Files in `names` that only the repository has are deleted. OutputError if the Hub refuses, or if the
    repository should be `private` and is already public.
    """
    _prepare()
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise OutputError(f"{repo}: already exists and is public", hint="make it private first")
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(names),
            delete_patterns=list(names),
            commit_message="Upload an mhvae model",
        )
    except (OSError, ValueError, errors.HTTPError) as error:
        refusal = hub_error(error, repo, action="write to")
        raise OutputError(str(refusal), hint=refusal.hint) from error
    return done.oid


def _prepare() -> None:
    """No telemetry, no request without a timeout, no progress bars in a log."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import disable_progress_bars, logging

    constants.HF_HUB_DISABLE_TELEMETRY = True  # the environment variable was read at import: too late for it
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    hooks = get_session().event_hooks
    if _set_timeout not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _set_timeout]}


def _set_timeout(request: _Request) -> None:
    """Request hook: a timeout, as the client's calls to the Hub's API have none, and no compression."""
    from huggingface_hub import constants

    request.headers["Accept-Encoding"] = "identity"
    if (request.extensions.get("timeout") or {}).get("read") is None:
        limit = constants.HF_HUB_ETAG_TIMEOUT
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), limit)


def _bar(**settings: Any) -> type:
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, **settings})  # type: ignore[no-untyped-call]  # tqdm has no stubs

    return Bar


def _cached(
    repo: str, files: _SnapshotFiles, needs: Sequence[str]
) -> tuple[Path | None, BaseException | None]:
    """The cached snapshot if it has all files in `needs`, or the error otherwise; opens no socket."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(snapshot_download(repo, **files, local_files_only=True))
    except (OSError, ValueError) as error:
        return None, error
    if missing := [name for name in needs if not (folder / name).is_file()]:
        incomplete = errors.LocalEntryNotFoundError(missing[0])
        incomplete.snapshot_path = folder  # type: ignore[attr-defined]  # for `_absent_error`
        return None, incomplete
    return folder, None


def _absent_error(ref: str, cause: BaseException | None, names: Sequence[str]) -> ModelError:
    """The error that says what the cache lacks, and how to download it."""
    from huggingface_hub import errors

    if not isinstance(cause, errors.LocalEntryNotFoundError):
        return hub_error(cause or OSError(), ref)
    snapshot = Path(getattr(cause, "snapshot_path", ""))
    missing = next((name for name in names if not (snapshot / name).is_file()), names[0])
    what = f"{ref}: no such folder, and offline: {missing} is not in the Hub's cache"
    return ModelError(what, hint=f"download it while online: mhvae models pull {ref}")


def _size(files: "Iterable[RepoSibling]") -> int:
    """The bytes of all files as the Hub announces them. LimitError for facts that cannot be true."""
    total = 0
    for file in files:
        size = file.size if file.lfs is None else file.lfs.size
        # The hash becomes a file name: it must not lead out of the cache.
        if file.lfs is not None and not re.fullmatch("[0-9a-f]{64}", file.lfs.sha256):
            raise LimitError(f"the Hub's hash of {file.rfilename} is not a SHA-256")
        total += UNANNOUNCED_BYTES if size is None else size
    if total > MODEL_BYTES:
        raise LimitError(f"the Hub announces {total} bytes, more than the limit of {MODEL_BYTES}")
    return total


def _download(repo: str, commit: str | None, file: "RepoSibling") -> None:
    """Download a large file into the cache, once its SHA-256 matches; a partial file is kept."""
    if file.lfs is None:
        return
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import WeakFileLock

    cache, name = Path(constants.HF_HUB_CACHE), f"models--{repo.replace('/', '--')}"
    blob = cache / name / "blobs" / file.lfs.sha256
    lock = cache / ".locks" / name / f"{file.lfs.sha256}.lock"
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        part = blob.with_name(f"{blob.name}.mhvae.part")
        with part.open("ab", buffering=0) as out:
            if out.tell() > file.lfs.size:
                out.truncate(0)
            _stream(hf_hub_url(repo, file.rfilename, revision=commit), out, file)
        if sha256_of(part, error=ModelError) != file.lfs.sha256:
            part.unlink()
            raise _mismatch(repo, file.rfilename)
        os.replace(part, blob)


def _stream(url: str, out: "FileIO", file: "RepoSibling") -> None:
    """Append what `out` lacks, retrying after a broken connection as long as some bytes arrive."""
    from huggingface_hub import constants, errors, get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    assert file.lfs is not None
    size, idle = file.lfs.size, 0
    bar = _bar(disable=None)(total=size, initial=out.tell(), unit="B", unit_scale=True, desc=file.rfilename)
    with bar:
        while (start := out.tell()) < size:
            ask = {"Range": f"bytes={start}-", "Accept-Encoding": "identity"}
            headers = {**build_hf_headers(), **ask}
            try:
                with get_session().stream(
                    "GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
                ) as response:
                    hf_raise_for_status(response)
                    if response.status_code != 206:  # the server ignores Range and sends the whole file
                        out.truncate(0)
                    for piece in response.iter_bytes():
                        if out.tell() + len(piece) > size:
                            out.truncate(0)
                            raise LimitError(f"{file.rfilename} is larger than the {size} bytes announced")
                        out.write(piece)
                        bar.update(len(piece))
            except errors.HfHubHTTPError:
                raise
            except errors.HTTPError:
                if idle == _TRIES:
                    raise
            idle = 0 if out.tell() > start else idle + 1
            if idle > _TRIES:
                raise OSError(f"received only {start} of {size} bytes of {file.rfilename}")


def _verify_snapshot(folder: Path, hashes: "dict[str, RepoSibling]", ref: str) -> None:
    """Compare each file of the snapshot with the Hub's hash: SHA-256, or git's blob id for small files."""
    sums, bad = {}, []
    for name, file in hashes.items():
        path, wanted = folder / name, file.lfs.sha256 if file.lfs else file.blob_id
        if wanted is None:  # some mirrors omit it
            continue
        sums[name] = sha256_of(path, error=ModelError)
        if wanted != (sums[name] if file.lfs else git_blob_id(path)):
            bad.append(name)
            path.resolve().unlink()  # the blob, then the link to it
            path.unlink(missing_ok=True)
    if bad:
        raise _mismatch(ref, ", ".join(bad))
    if not sums:
        return
    record = sums_file(folder)
    if record.exists():
        sums = {**read_sums(record), **sums}
    record.parent.mkdir(exist_ok=True)
    beside = record.with_name(f"{record.name}.{os.getpid()}")
    beside.write_text(format_sums(sums))
    os.replace(beside, record)


def _mismatch(ref: str, name: str) -> ModelError:
    what = f"{ref}: checksum mismatch with the Hub, removed from the cache: {name}"
    hint = f"run mhvae models pull {ref}; if this happens again, the download is altered on its way"
    return ModelError(what, hint=hint)
