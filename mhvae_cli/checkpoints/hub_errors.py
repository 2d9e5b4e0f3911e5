"""Errors of the Hugging Face Hub as this package's, with a hint each."""

import errno

from ..errors import ModelError
from .hub_limits import TIMEOUT, LimitError

_LOGIN = "`hf auth login`, or set HF_TOKEN"


def hub_error(error: BaseException, ref: str, *, action: str = "read") -> ModelError:
    """The error for a failed attempt to read the Hub's `ref`, or for another `action`, "write to"."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        error = error.__cause__ or error
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    number = getattr(error, "errno", None)
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, errors.GatedRepoError):
        what, hint = "gated, and you have no access yet", f"request access on its page, then {_LOGIN}"
    elif isinstance(error, errors.RevisionNotFoundError):
        what, hint = "the Hub has no such revision", "leave out @REVISION for the main branch"
    elif isinstance(error, errors.RepositoryNotFoundError) and action == "read":
        what = "no such folder, and no such model on the Hub, or it is private"
        hint = f"check the name; for a private model, {_LOGIN}"
    elif status == 407 or type(error).__name__ == "ProxyError":
        what, hint = f"the proxy refuses: {cause}", "check HTTPS_PROXY: http://USER:PASSWORD@HOST:PORT"
    elif status in (401, 403) or (status == 404 and action != "read"):
        what = f"the Hub rejects your access token ({status})"
        hint = f"use a token that may {action} it: {_LOGIN}"
    elif status is not None:
        what, hint = f"the Hub responded with error {status}", "try again later"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        what, hint = "the disk is full", "free some space, or set HF_HOME to a folder on another disk"
    elif isinstance(error, LimitError):
        what = f"the download was stopped: {cause}"
        hint = f"check HF_ENDPOINT; {TIMEOUT} sets the time that a download may take, such as 3h"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        what, hint = "the Hub cannot be used offline", "unset HF_HUB_OFFLINE"
    elif number is not None:
        what, hint = f"cannot write the Hub's cache: {cause}", "set HF_HOME to a folder you may write to"
    elif "CERTIFICATE_VERIFY_FAILED" in cause:
        what = "the certificate of the Hub, or of a proxy in between, is not trusted"
        hint = "set SSL_CERT_FILE to a file of trusted certificates"
    elif isinstance(error, errors.HTTPError):
        what = f"no such folder, and the download from the Hub failed: {cause}"
        hint = "check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT"
        if action != "read":
            what = f"the Hub cannot be reached: {cause}"
    elif isinstance(error, errors.HFValidationError):
        what, hint = "no such folder, and not a valid name on the Hub", "use ORG/NAME[@REVISION]"
    else:
        what, hint = f"the download failed: {cause}", "run the same command again"
    return ModelError(f"{ref}: {what}", hint=hint)
