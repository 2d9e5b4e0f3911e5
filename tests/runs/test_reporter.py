"""Each job's outcome is told, and the run's exit code is that of them all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pictures import picture
from support.run_folders import states

Mhvae = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("three_scans")


def test_an_input_that_vanishes(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.commands import segment

    gather = segment.gather

    def gone(*args: Any, **how: Any) -> Any:
        found = gather(*args, **how)
        os.remove("scans/b.png")
        return found

    monkeypatch.setattr(segment, "gather", gone)
    ended = mhvae("segment", "scans", "-o", "m", "-q")
    assert ended.code == 3 and ended.stderr == "error: scans/b.png: no such file or directory\n"
    assert states() == {"a": "ok", "b": "failed", "c": "ok"} and ended.lines == ["m/a.png", "m/c.png"]


Mhvae = Callable[..., Any]


def test_dry_run_as_json_and_with_existing(mhvae: Mhvae, here: Path) -> None:
    picture(here / "s/a.png")
    picture(here / "s/b.png")
    picture(here / "m/a.png")
    assert mhvae("segment", "s", "-o", "m", "--dry-run").code == 7
    ended = mhvae("segment", "s", "-o", "m", "--dry-run", "--existing", "skip", "--json")
    told = [(line["output"], line["status"]) for line in map(json.loads, ended.lines)]
    assert ended.code == 7 and told == [("m/a.png", "stale"), ("m/b.png", "planned")]
    nothing = mhvae("segment", "nope.png", "--dry-run")
    assert nothing.code == 4 and not nothing.lines and "nope.png: no such file" in nothing.stderr
