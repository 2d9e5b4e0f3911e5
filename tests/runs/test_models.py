"""The models of a run are loaded, or one line says why not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.shortages import SHORT

Mhvae = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("three_scans")


def test_a_model_that_finds_no_room(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SHORT["cuda"]

    monkeypatch.setattr("mhvae_cli.inference.networks.Networks.load", full)
    ended = mhvae("segment", "scans", "-o", "m")
    assert (
        ended.code == 5 and ended.stderr.splitlines()[0] == "error: out of memory" and not Path("m").exists()
    )
