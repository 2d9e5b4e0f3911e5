"""Models on the Hugging Face Hub: a snapshot in its usual cache, checked; and models on their way there.

Every file is compared with the hash that the Hub names for its commit before a snapshot is used for the first
time; large ones before they enter the cache. What was found goes into `sums.record_of(snapshot)`.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from ..errors import ModelError, OutputError
from ..hashing import git_blob_id, sha256_of
from .checksums import format_sums, read_sums, record_of
from .hub_errors import hub_fault

if TYPE_CHECKING:
    from io import FileIO

    from huggingface_hub.hf_api import RepoSibling

_TRIES = 4


class _Request(Protocol):
    extensions: dict[str, Any]


class _Wanted(TypedDict):
    revision: str | None
    allow_patterns: list[str]


def fetch(
    ref: str, needs: Sequence[str], also: Sequence[str] = (), *, offline: bool = False, check: bool = False
) -> Path:
    """The cached snapshot of ORG/NAME[@REVISION] on the Hub: the files `needs`, and of `also` what it has.

    A download that broke off goes on where it broke, in another process too. Offline, or if the Hub cannot be
    reached and the snapshot is whole, the cache serves. `check` asks the Hub again what each file is.
    ModelError for anything else; a file that is not what the Hub says is removed from the cache.
    """
    _prepare()
    from huggingface_hub import HfApi, errors, is_offline_mode, snapshot_download

    repo, _, revision = ref.partition("@")
    names, offline = [*needs, *also], offline or is_offline_mode()
    files: _Wanted = {"revision": revision or None, "allow_patterns": names}
    if offline and check:
        raise ModelError(f"{ref}: asked to stay offline", hint="unset HF_HUB_OFFLINE to ask the Hub")
    local, fault = _cached(repo, files, needs)
    if offline:
        return local or _absent(ref, fault, names)
    try:
        try:
            info = HfApi().model_info(repo, revision=revision or None, files_metadata=True)
        except errors.HTTPError as error:
            if local and not check and not isinstance(error, errors.RevisionNotFoundError):
                return local
            raise
        if local and local.name == info.sha and record_of(local).exists() and not check:
            return local
        hashes = {file.rfilename: file for file in info.siblings or () if file.rfilename in names}
        for name in hashes:
            _place(repo, info.sha, hashes[name])
        folder = Path(snapshot_download(repo, **files, tqdm_class=_bar(disable=True)))
        _compare(folder, hashes, ref)
    except (OSError, ValueError, errors.HTTPError) as error:
        raise hub_fault(error, ref) from error
    if missing := [name for name in needs if not (folder / name).is_file()]:
        hint = "weights are read from .safetensors alone: pickled ones (.bin, .pt) can run code"
        raise ModelError(f"{ref}: no {missing[0]} in it", hint=hint)
    return folder


def cached() -> Iterator[tuple[str, Path]]:
    """Each model snapshot in the Hub's cache that has a config.json, with the ORG/NAME[@REVISION] for it."""
    from huggingface_hub import constants

    for place in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
        repo = place.name.removeprefix("models--").replace("--", "/", 1)
        refs = sorted((place / "refs").rglob("*"), key=lambda path: path.name == "main")
        known = {path.read_text().strip(): path for path in refs if path.is_file()}
        for config in sorted(place.glob("snapshots/*/config.json")):
            commit = config.parent.name
            label = known[commit].relative_to(place / "refs").as_posix() if commit in known else commit
            yield repo if label == "main" else f"{repo}@{label}", config.parent


def push(folder: Path, repo: str, names: Sequence[str], *, private: bool) -> str:
    """Upload those of a folder's files as one commit to ORG/NAME, made if need be; the commit's hash.

    What the repository has under `names` and the folder has not is deleted. OutputError if the Hub refuses,
    or if it is to be `private` and is public already.
    """
    _prepare()
    from huggingface_hub import HfApi, errors

    api = HfApi()
    try:
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.model_info(repo).private:
            raise OutputError(f"{repo}: is there already, and public", hint="make it private first")
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=list(names),
            delete_patterns=list(names),
            commit_message="Upload a model of mhvae",
        )
    except (OSError, ValueError, errors.HTTPError) as error:
        fault = hub_fault(error, repo, may="write to")
        raise OutputError(str(fault), hint=fault.hint) from error
    return done.oid


def _prepare() -> None:
    """No telemetry, no call without a time limit, no bars in a log."""
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import disable_progress_bars, logging

    constants.HF_HUB_DISABLE_TELEMETRY = True  # read from the environment at import, which may be long past
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    hooks = get_session().event_hooks
    if _limit not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _limit]}


def _limit(request: _Request) -> None:
    """Request hook: the client's calls to the Hub's API carry no time limit, and would wait for ever."""
    from huggingface_hub import constants

    if (request.extensions.get("timeout") or {}).get("read") is None:
        limit = constants.HF_HUB_ETAG_TIMEOUT
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), limit)


def _bar(**settings: Any) -> type:
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, **settings})  # type: ignore[no-untyped-call]  # tqdm has no stubs

    return Bar


def _cached(repo: str, files: _Wanted, needs: Sequence[str]) -> tuple[Path | None, BaseException | None]:
    """The snapshot in the cache if it holds what is needed, or what is wrong with it; opens no socket."""
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(snapshot_download(repo, **files, local_files_only=True))
    except (OSError, ValueError) as error:
        return None, error
    if missing := [name for name in needs if not (folder / name).is_file()]:
        fault = errors.LocalEntryNotFoundError(missing[0])
        fault.snapshot_path = folder  # type: ignore[attr-defined]  # for `_absent`
        return None, fault
    return folder, None


def _absent(ref: str, fault: BaseException | None, names: Sequence[str]) -> Path:
    """Raises ModelError: what the cache lacks, and how it gets there."""
    from huggingface_hub import errors

    if not isinstance(fault, errors.LocalEntryNotFoundError):
        raise hub_fault(fault or OSError(), ref)
    place = Path(getattr(fault, "snapshot_path", ""))
    lost = next((name for name in names if not (place / name).is_file()), names[0])
    what = f"{ref}: no such folder, {lost} is not in the Hub's cache, and offline"
    raise ModelError(what, hint=f"fetch it while online: mhvae models pull {ref}")


def _place(repo: str, commit: str | None, file: "RepoSibling") -> None:
    """Put a large file into the cache under its SHA-256, once it has it; a part is kept for the next try."""
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
            raise _altered(repo, file.rfilename)
        os.replace(part, blob)


def _stream(url: str, out: "FileIO", file: "RepoSibling") -> None:
    """Append what `out` lacks, going on after a connection that broke as long as some bytes come."""
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
                    if response.status_code != 206:  # it sends the whole
                        out.truncate(0)
                    for piece in response.iter_bytes():
                        out.write(piece)
                        bar.update(len(piece))
            except errors.HfHubHTTPError:
                raise
            except errors.HTTPError:
                if idle == _TRIES:
                    raise
            idle = 0 if out.tell() > start else idle + 1
            if idle > _TRIES:
                raise OSError(f"{start} of {size} bytes of {file.rfilename} came")


def _compare(folder: Path, hashes: "dict[str, RepoSibling]", ref: str) -> None:
    """Each file of the snapshot against the Hub's hash: its SHA-256, or of small files git's blob id."""
    sums, bad = {}, []
    for name, file in hashes.items():
        path, wanted = folder / name, file.lfs.sha256 if file.lfs else file.blob_id
        if wanted is None:  # some mirrors do not tell
            continue
        sums[name] = sha256_of(path, error=ModelError)
        if wanted != (sums[name] if file.lfs else git_blob_id(path)):
            bad.append(name)
            path.resolve().unlink()  # the blob; the link to it goes next
            path.unlink(missing_ok=True)
    if bad:
        raise _altered(ref, ", ".join(bad))
    if not sums:
        return
    record = record_of(folder)
    if record.exists():
        sums = {**read_sums(record), **sums}
    record.parent.mkdir(exist_ok=True)
    beside = record.with_name(f"{record.name}.{os.getpid()}")
    beside.write_text(format_sums(sums))
    os.replace(beside, record)


def _altered(ref: str, name: str) -> ModelError:
    what = f"{ref}: {name} is not what the Hub says it is; removed from the cache"
    hint = f"mhvae models pull {ref}; if this comes again, something on the way alters it"
    return ModelError(what, hint=hint)
