"""Versions of installed packages, this one's first."""


def version() -> str:
    """This package's version; "0+unknown" where it runs from a clone that is not installed."""
    return installed_version("mhvae") or "0+unknown"


def installed_version(package: str) -> str | None:
    """The version of a package by its metadata, without importing it; None if it is not installed."""
    from importlib import metadata  # slow to import, and no image needs it

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
