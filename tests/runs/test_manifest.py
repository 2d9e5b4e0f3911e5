"""mhvae-run.json tells of each run that wrote into a folder, and of no patient."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.run_folders import rows, runs

Mhvae = Callable[..., Any]
SKIP = ("--existing", "skip")
pytestmark = pytest.mark.usefixtures("three_scans")


def test_the_account_of_runs(
    mhvae: Mhvae, here: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setenv("HOME", str(here))
    shutil.copytree(tiny_model, "model")
    shutil.move("scans", "jane-doe")
    Path("jane-doe/b.png").write_bytes(b"")
    Path("mm.csv").write_text("filename,spacing\na.png,0.1\n")
    assert mhvae("segment", "jane-doe", "-o", here / "m", "-b", 2, "--spacing-csv", here / "mm.csv").code == 3
    assert (
        mhvae("segment", "jane-doe/a.png", "-o", "m/", "-m", here / "model", "--window", "full", *SKIP).code
        == 7
    )
    text = Path("m/mhvae-run.json").read_text()
    assert str(here) not in text and "jane" not in text and "a.png" not in text
    first, second = runs()
    assert first["options"] == {"--out": "~/m", "--batch-size": 2, "--spacing-csv": "~/mm.csv"} | {
        name: value for name, value in first["options"].items() if name in ("--model", "--dtype")
    }
    assert first["counts"] == {
        "inputs": 3,
        "ok": 2,
        "skipped": 0,
        "stale": 0,
        "failed": 1,
        "missed": 0,
        "warned": 0,
    }
    assert (first["verb"], first["status"], first["exit_code"]) == ("segment", "ended", 3)
    assert (first["device"], first["dtype"], first["model"], first["seed"]) == ("cpu", "float32", "tiny", 0)
    assert first["model_sha256"][:8] == rows()[0]["made_by"].split("-")[1] and first["threads"] >= 1
    assert first["versions"]["torch"] == torch.__version__ and first["begun"] <= first["ended"]
    assert second["exit_code"] == 7 and second["counts"]["stale"] == 1 and second["model"] == "~/model"
    assert (
        mhvae("segment", "jane-doe/a.png", "-o", "one.png").code == 0 and not Path("mhvae-run.json").exists()
    )
    Path("m/mhvae-run.json").write_text("{}")
    ended = mhvae("segment", "jane-doe/c.png", "-o", "m/", "--existing", "overwrite")
    assert ended.code == 7 and "m/mhvae-run.json: not a run manifest" in ended.stderr
