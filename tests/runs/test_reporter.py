"""Each job's outcome is told, and the run's exit code is that of them all."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pictures import picture
from support.run_folders import states

from mhvae_cli.runs.reporter import Counts

Mhvae = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("three_scans")


def test_an_input_that_vanishes(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.runs import inputs

    gather = inputs.gather

    def gone(*args: Any, **how: Any) -> Any:
        found = gather(*args, **how)
        os.remove("scans/b.png")
        return found

    monkeypatch.setattr(inputs, "gather", gone)
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


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ("", 0),
        ("ok skipped ok", 0),
        ("ok failed missed", 8),
        ("ok failed", 3),
        ("failed failed", 4),
        ("failed stale missed", 7),
        ("stale missed ok", 7),
    ],
)
def test_the_exit_code_is_that_of_all_jobs(statuses: str, code: int) -> None:
    counts = Counts(total=5)
    for status in statuses.split():
        counts.add({"status": status, "qc": "warn" if status == "ok" else None})
    assert counts.exit_code == code
    assert counts.flagged == statuses.split().count("ok")


def test_the_last_line_counts_what_was_done() -> None:
    counts = Counts(total=3)
    counts.add({"status": "skipped"})
    assert counts.summary("warp", 1.25) == "warp: stopped, 1 of 3 done: 0 ok, 1 skipped, in 1.2 s"
    for status in ("ok", "failed"):
        counts.add({"status": status})
    assert counts.summary("warp", 0) == "warp: 3 done: 1 ok, 1 skipped, 1 failed, in 0.0 s"
