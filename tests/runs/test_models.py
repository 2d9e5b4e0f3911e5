"""The models of a run are loaded, or one line says why not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.shortages import SHORT

from mhvae_cli.errors import ModelError
from mhvae_cli.runs.models import load_networks
from mhvae_cli.runs.settings import RunSettings

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


def test_models_are_loaded_in_their_order(
    tiny_model: Path, tiny_refined: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = RunSettings(model=str(tiny_refined), device="cpu", dtype="float32", verbose=True)
    found = load_networks(settings, str(tiny_model))
    assert [networks.name for networks in found] == ["tiny-refined", "tiny"]
    assert capsys.readouterr().err.splitlines() == [str(networks) for networks in found]
    load_networks(replace(settings, verbose=False))
    assert capsys.readouterr().err == ""


def test_an_unknown_name_fails_before_any_model_is_loaded(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("was loaded")

    monkeypatch.setattr("mhvae_cli.inference.networks.Networks.load", never)
    with pytest.raises(ModelError, match="no model 'nothing'"):
        load_networks(RunSettings(model=str(tiny_model), offline=True), "nothing")
