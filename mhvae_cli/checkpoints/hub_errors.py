"""What can go wrong with the Hugging Face Hub, in the user's words."""

import errno

from ..errors import ModelError

_LOGIN = "`hf auth login`, or set HF_TOKEN"


def hub_fault(error: BaseException, ref: str, *, may: str = "read") -> ModelError:
    """What went wrong with the Hub's `ref`, which one wanted to read or, say, `may`="write to"."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):
        error = error.__cause__ or error
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    number = getattr(error, "errno", None)
    cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if isinstance(error, errors.GatedRepoError):
        what, hint = "gated, and you have no access yet", f"ask for access on its page, then {_LOGIN}"
    elif isinstance(error, errors.RevisionNotFoundError):
        what, hint = "the Hub has no such revision", "leave out @REVISION for the main branch"
    elif isinstance(error, errors.RepositoryNotFoundError) and may == "read":
        what = "no such folder, and no such model on the Hub, or it is private"
        hint = f"check the name; for a private model, {_LOGIN}"
    elif status == 407 or type(error).__name__ == "ProxyError":
        what, hint = f"the proxy refuses: {cause}", "check HTTPS_PROXY: http://USER:PASSWORD@HOST:PORT"
    elif status in (401, 403) or (status == 404 and may != "read"):
        what, hint = f"the Hub refuses your access token ({status})", f"use one that may {may} it: {_LOGIN}"
    elif status is not None:
        what, hint = f"the Hub answers with error {status}", "try again later"
    elif number in (errno.ENOSPC, errno.EDQUOT):
        what, hint = "the disk is full", "free some space, or set HF_HOME to a folder on another disk"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        what, hint = "asked to stay offline", "unset HF_HUB_OFFLINE to ask the Hub"
    elif number is not None:
        what, hint = f"cannot write the Hub's cache: {cause}", "set HF_HOME to a folder you may write to"
    elif "CERTIFICATE_VERIFY_FAILED" in cause:
        what = "the certificate of the Hub, or of a proxy before it, is not trusted"
        hint = "SSL_CERT_FILE names a file of the certificates to trust"
    elif isinstance(error, errors.HTTPError):
        what = f"no such folder, and fetching it from the Hub failed: {cause}"
        hint = "check the network, the proxy (HTTPS_PROXY) and HF_ENDPOINT"
        if may != "read":
            what = f"the Hub cannot be reached: {cause}"
    elif isinstance(error, errors.HFValidationError):
        what, hint = "no such folder, and not a name the Hub allows", "write ORG/NAME[@REVISION]"
    else:
        what, hint = f"the download failed: {cause}", "run the same command again"
    return ModelError(f"{ref}: {what}", hint=hint)
