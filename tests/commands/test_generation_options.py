"""A verb that makes pictures has its own options and the shared ones."""

from typing import Any

from mhvae_cli.commands.generation_options import generative
from mhvae_cli.runs.settings import GenerationSettings


def test_a_verb_has_its_own_options_and_the_shared_ones() -> None:
    import inspect

    seen: list[Any] = []

    @generative()
    def verb(depth: int = 2, *, settings: GenerationSettings) -> None:
        """A verb."""
        seen.append((depth, settings))

    parameters = inspect.signature(verb).parameters
    assert list(parameters)[:3] == ["out", "model", "depth"] and "settings" not in parameters
    assert list(parameters).index("steps") < list(parameters).index("device")  # the shared ones follow
    values = {name: each.default for name, each in parameters.items()}
    verb(**values | {"depth": 3, "steps": 7})
    assert seen == [(3, GenerationSettings(steps=7))]
