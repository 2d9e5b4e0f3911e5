"""mhvae-run.json, the account of the runs that wrote into a folder of results: how, when, and how many.

    {"format": 1, "runs": [{"id": ..., "status": "running" | "ended", "verb": ..., "versions": {...}, ...}]}

A run is told of when it begins, and again when it ends: one that was killed stays "running".
"""

import json
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OutputError, os_error_text
from ..filesystem import locked, staging, write_atomic

NAME = "mhvae-run.json"
FORMAT = 1
KEPT = 1000
"""Runs, the last ones, that a folder tells of."""


def write_run(folder: Path, run: Mapping[str, Any], *, guard: Path) -> None:
    """Add a run to the folder's account, in the place of what was told of it (by its "id") before.

    `guard` is the file that is held meanwhile, so that no run loses another's account. Raises OutputError if
    it cannot be written, or if a file of another kind has its name.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(guard):
            others = [other for other in _runs(path) if other.get("id") != run["id"]]
            content = {"format": FORMAT, "runs": [*others[1 - KEPT :], run]}
            beside = staging(path, f"{guard.name}-")
            write_atomic(path, (json.dumps(content, indent=1) + "\n").encode(), beside=beside)
    except OSError as error:
        raise OutputError(f"{path}: {os_error_text(error)}") from error


def versions() -> dict[str, str | None]:
    """Of what a run rests on; None for torch where none was needed."""
    from ..version import version

    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in ("torch", "numpy")}
    return {
        "mhvae": version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: None if found is None else str(found) for name, found in loaded.items()},
    }


def without_home(value: object) -> object:
    """Plain JSON values with ~ in the place of the home directory."""
    if isinstance(value, Mapping):
        return {key: without_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_home(item) for item in value]
    home = os.path.expanduser("~").rstrip(os.sep)
    if not isinstance(value, str) or not home:
        return value
    return "~" + value.removeprefix(home) if (value + os.sep).startswith(home + os.sep) else value


def _runs(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return []
    except (ValueError, RecursionError):
        content = None
    runs = content.get("runs") if isinstance(content, dict) and content.get("format") == FORMAT else None
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise OutputError(f"{path}: not an account of runs", hint="move it away, or name another folder")
    return runs
