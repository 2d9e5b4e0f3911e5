"""The version of the installed package."""

from functools import cache


@cache
def version() -> str:
    """The version in the package's metadata; "0+unknown" where it runs from a clone that is not installed."""
    from importlib import metadata  # not needed to segment an image, and slow to import

    try:
        return metadata.version("mhvae")
    except metadata.PackageNotFoundError:
        return "0+unknown"
