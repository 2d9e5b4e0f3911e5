"""mhvae-run.json, the manifest of an output folder: the runs that wrote into it.

    {"format": 1, "runs": [{"id": ..., "status": "running" | "ended", "verb": ..., "versions": {...}, ...}]}

A run is recorded when it starts and updated when it ends; a run that is killed stays "running".
"""

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError, os_error_text
from ..filesystem import locked, open_regular, staging, write_atomic

NAME = "mhvae-run.json"
FORMAT = 1
MAX_RUNS = 1000
"""Number of most recent runs in the manifest of a folder."""


def write_run(folder: Path, run: Mapping[str, object], *, guard: Path) -> None:
    """Add a run to the folder's manifest, or replace its entry with the same "id".

    `guard` is the file that is locked meanwhile, so that concurrent runs do not lose entries. Raises
    OutputError if the manifest cannot be written, or if the file is not a manifest.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(guard):
            others = [other for other in read_runs(folder) if other.get("id") != run["id"]]
            content = {"format": FORMAT, "runs": [*others[1 - MAX_RUNS :], run]}
            staged = staging(path, f"{guard.name}-")
            write_atomic(path, (json.dumps(content, indent=1) + "\n").encode(), beside=staged)
    except OSError as error:
        raise OutputError(f"{path}: {os_error_text(error)}") from error


def versions() -> dict[str, str | None]:
    """Versions of mhvae, Python, the platform, torch and NumPy; None for a package that is not loaded."""
    from ..version import version

    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in ("torch", "numpy")}
    return {
        "mhvae": version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: None if found is None else str(found) for name, found in loaded.items()},
    }


def without_home(value: object) -> object:
    """Plain JSON values with ~ for the home directory."""
    if isinstance(value, Mapping):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_home(item) for item in value]
    home = os.path.expanduser("~").rstrip(os.sep)
    if not isinstance(value, str) or not home:
        return value
    return "~" + value.removeprefix(home) if (value + os.sep).startswith(home + os.sep) else value


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """The runs in a folder's manifest, none without one; OutputError if the file is not a manifest."""
    path = folder / NAME
    try:
        with open_regular(path) as file:
            content = json.load(file)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError):
        content = None
    runs = content.get("runs") if isinstance(content, dict) and content.get("format") == FORMAT else None
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise OutputError(f"{path}: not a run manifest", hint="move the file, or choose another folder")
    return runs
