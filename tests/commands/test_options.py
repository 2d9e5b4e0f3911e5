"""A verb takes its settings from the options that all verbs share."""

import inspect
from typing import Any

import pytest

from mhvae_cli.commands.options import BatchSize, complete_model, with_settings
from mhvae_cli.runs.settings import RunSettings


def test_options_of_the_settings_stand_about_the_verbs_own() -> None:
    seen: list[Any] = []

    @with_settings(RunSettings, without={"shard"})
    def verb(inputs: list[str] | None = None, depth: int = 2, *, settings: RunSettings) -> None:
        """A verb."""
        seen.append((inputs, depth, settings))

    parameters = inspect.signature(verb).parameters
    assert list(parameters)[:4] == ["inputs", "out", "model", "depth"]
    assert "settings" not in parameters and "shard" not in parameters
    assert parameters["batch_size"].annotation is BatchSize
    given = {name: each.default for name, each in parameters.items()}
    verb(**given | {"inputs": ["a.png"], "batch_size": 3, "quiet": True})
    assert seen == [(["a.png"], 2, RunSettings(batch_size=3, quiet=True))]


@pytest.mark.parametrize(
    ("typed", "offered"), [("", ["fetal-head", "skin-lesion"]), ("sk", ["skin-lesion"]), ("./", [])]
)
def test_bundled_models_complete_what_was_typed(typed: str, offered: list[str]) -> None:
    assert complete_model(typed) == offered
