"""Models on the Hugging Face Hub: a snapshot in its usual cache, or what went wrong, in the user's words."""

import errno
import os
from pathlib import Path
from typing import Any

from .errors import ModelError

_LOGIN = "`hf auth login`, or set HF_TOKEN"


def fetch(ref: str, patterns: list[str], *, offline: bool) -> Path:
    """The cached snapshot of ORG/NAME[@REVISION] on the Hub, with its files that match `patterns`."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read once, by the import that follows

    from huggingface_hub import errors, get_session, is_offline_mode, snapshot_download
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"disable": None, **options})  # None: shown on a terminal only

    repo, _, revision = ref.partition("@")
    offline = offline or is_offline_mode()
    hooks = get_session().event_hooks
    if _limit not in hooks["request"]:
        get_session().event_hooks = {**hooks, "request": [*hooks["request"], _limit]}
    files = {"revision": revision or None, "allow_patterns": patterns}
    try:
        return Path(snapshot_download(repo, **files, local_files_only=offline, tqdm_class=Bar))
    except (OSError, ValueError, errors.HTTPError) as error:
        raise _hub_fault(error, ref, offline=offline) from error


def _limit(request: Any) -> None:
    """Request hook: the client's calls to the Hub's API carry no time limit, and would wait for ever."""
    from huggingface_hub import constants

    if (request.extensions.get("timeout") or {}).get("read") is None:
        limit = constants.HF_HUB_ETAG_TIMEOUT
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), limit)


def _hub_fault(error: BaseException, ref: str, *, offline: bool) -> ModelError:
    """What went wrong on the Hub, in the user's words."""
    from huggingface_hub import errors

    repo, _, revision = ref.partition("@")
    if isinstance(error, errors.LocalEntryNotFoundError):
        if offline:
            command = f"hf download {repo}" + (f" --revision {revision}" if revision else "")
            what = f"{ref}: no such folder, not in the Hub's cache, and offline"
            return ModelError(what, hint=f"fetch it while online: {command}")
        error = error.__cause__ or error
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    number = getattr(error, "errno", None)
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, errors.GatedRepoError):
        what, hint = "gated, and you have no access yet", f"ask for access on its page, then {_LOGIN}"
    elif isinstance(error, errors.RevisionNotFoundError):
        what, hint = "the Hub has no such revision", "leave out @REVISION for the main branch"
    elif isinstance(error, errors.RepositoryNotFoundError):
        what = "no such folder, and no such model on the Hub, or it is private"
        hint = f"check the name; for a private model, {_LOGIN}"
    elif status in (401, 403):
        what, hint = f"the Hub refuses your access token ({status})", f"use one that may read it: {_LOGIN}"
    elif status is not None:
        what, hint = f"the Hub answers with error {status}", "try again later"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        what, hint = "the disk is full", "free some space, or set HF_HOME to a folder on another disk"
    elif number is not None:
        what, hint = f"cannot write the Hub's cache: {cause}", "set HF_HOME to a folder you may write to"
    elif isinstance(error, errors.HTTPError):
        what = f"no such folder, and fetching it from the Hub failed: {cause}"
        hint = "check the network, the proxy and HF_ENDPOINT"
    elif isinstance(error, errors.HFValidationError):
        what, hint = "no such folder, and not a name the Hub allows", "write ORG/NAME[@REVISION]"
    else:
        what, hint = f"the download failed: {cause}", "run the same command again"
    return ModelError(f"{ref}: {what}", hint=hint)
