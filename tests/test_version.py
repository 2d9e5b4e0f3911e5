"""Versions are those of the packages' metadata, and asking for one imports no package."""

import subprocess
import sys

from mhvae_cli.version import installed_version, version


def test_versions_are_the_metadatas() -> None:
    import numpy

    assert installed_version("numpy") == numpy.__version__
    assert installed_version("no-such-package") is None
    assert version() in (installed_version("mhvae"), "0+unknown")


def test_no_package_is_imported() -> None:
    code = (
        "import sys\nfrom mhvae_cli.version import installed_version\n"
        "print(installed_version('numpy') is not None, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]
