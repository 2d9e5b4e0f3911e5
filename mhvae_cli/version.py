"""Versions of this package and of other installed ones."""


def version() -> str:
    """This package's version; "0+unknown" if it runs from a source tree that is not installed."""
    return installed_version("mhvae") or "0+unknown"


def installed_version(package: str) -> str | None:
    """The version of a package from its metadata, without importing it; None if it is not installed."""
    from importlib import metadata  # slow to import, and rarely needed

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
