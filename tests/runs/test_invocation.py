"""Which options count as changing results: all that are not marked, and no marked one."""

from collections.abc import Callable
from typing import Any

import pytest

from mhvae_cli.cli import VERBS, _load
from mhvae_cli.runs.invocation import Invocation, current, record

NEUTRAL_OF_ALL = {
    *("--out", "--model", "--device", "--dtype", "--batch-size", "--workers", "--threads", "--deterministic"),
    *(
        "--offline",
        "--existing",
        "--on-error",
        "--from-file",
        "--from-file0",
        "--recursive",
        "--shard",
        "--json",
        "--dry-run",
    ),
    *("--quiet", "--verbose", "--progress"),
}
OF_GENERATION = {"--format", "--sheet", "--show", "--save-latents"}
NEUTRAL = {
    "segment": {"--overlay", "--format", "--report", "--fail-on-qc", "--spacing-csv"},
    "reconstruct": OF_GENERATION | {"--draws"},
    "swap-style": OF_GENERATION | {"--style"},
    "interpolate": OF_GENERATION | {"--frames", "--gif"},
    "warp": OF_GENERATION | {"--theta"},
    "sample": (OF_GENERATION | {"-n", "--start", "--from", "--audit"}) - {"--save-latents"},
}


def recorded(verb: str, *words: str) -> Invocation:
    command = _load(verb)
    context = command.make_context(verb, list(words), resilient_parsing=True)
    for parameter in command.params:  # each option with another value than its default
        if parameter.param_type_name == "option":
            context.params[parameter.name] = "other"
    with record(context, command.function):
        return current()


@pytest.mark.parametrize("verb", NEUTRAL)
def test_an_option_counts_unless_it_is_marked(verb: str) -> None:
    invocation = recorded(verb)
    marked = invocation.options.keys() - invocation.changing.keys() - {"--help"}
    expected = NEUTRAL_OF_ALL | NEUTRAL[verb]
    assert marked == {option for option in expected if option in invocation.options}
    assert NEUTRAL[verb] <= marked and "--seed" in invocation.changing


def test_only_what_was_given_is_recorded(mhvae: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.commands import reconstruct

    seen: list[Invocation] = []
    monkeypatch.setattr(reconstruct, "generate", lambda *_, **__: seen.append(current()) or 0)
    assert mhvae("reconstruct", "a.png", "--seed", "3", "--tries", "1", "--out", "x/").code == 0
    assert seen == [Invocation({"--seed": 3, "--out": "x/"}, {"--seed": 3})]
    assert current() == Invocation()
    assert len(VERBS) == 14
