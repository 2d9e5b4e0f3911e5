"""A server that sends too much, or too slowly, ends a download and not the machine."""

import time
from pathlib import Path
from typing import Any

import pytest
from support import hub_server
from support.hub_client import FILES
from support.hub_server import Fault

from mhvae_cli.checkpoints.hub_limits import METADATA_BYTES, timeout
from mhvae_cli.errors import UsageError


@pytest.mark.parametrize(
    ("where", "said", "most"),
    [
        ("/api/models/lab/heads/revision", "sends more than the", METADATA_BYTES),
        ("/cdn/", "vae.safetensors is larger than the 200000 bytes announced", 200_000),
        ("config.json", "sends more than the", METADATA_BYTES),
    ],
)
def test_a_body_without_end_is_cut(hub: Any, client: Any, where: str, said: str, most: int) -> None:
    hub.push("lab/heads", FILES)
    hub.faults = [Fault("endless", where)]
    message, hint = client.fail("lab/heads")
    assert said in message and "HF_ENDPOINT" in hint
    assert hub.sent < most + 2**24  # what the sockets hold besides
    cache = Path(client.env["HF_HOME"])
    assert sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) < most + 2**17
    hub.faults = []
    folder = client.fetch("lab/heads")
    assert (folder / "vae.safetensors").read_bytes() == FILES["vae.safetensors"]
    hub.faults = [Fault("endless", "/api/models")]
    assert client.fetch("lab/heads") == folder  # what is in the cache is used


@pytest.mark.parametrize("where", ["/api/models/lab/heads/revision", "/cdn/", "config.json"])
def test_a_byte_now_and_then_does_not_last_for_ever(hub: Any, client: Any, where: str) -> None:
    hub.push("lab/heads", FILES | {"config.json": bytes(20_000)})
    hub.faults = [Fault("slow", where, 1)]
    begun = time.monotonic()
    message, hint = client.fail("lab/heads", MHVAE_HUB_TIMEOUT="2s")
    assert "longer than 2s" in message or "takes too long" in message
    assert "MHVAE_HUB_TIMEOUT" in hint and time.monotonic() - begun < 20


def test_a_server_that_never_answers_is_given_the_same_time(hub: Any, client: Any) -> None:
    hub.push("lab/heads", FILES)
    hub.faults = [Fault("hang", "/api")]
    begun = time.monotonic()
    message, _ = client.fail("lab/heads", MHVAE_HUB_TIMEOUT="1")
    assert "lab/heads: the download took longer than 1" in message and time.monotonic() - begun < 20


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"sha256": "../../../../../escaped"}, "is not a SHA-256"),
        ({"size": 10**15}, "more than the limit"),
    ],
)
def test_implausible_facts_are_not_believed(
    hub: Any, client: Any, monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], said: str
) -> None:
    real = hub_server._sibling

    def sibling(name: str, data: bytes) -> dict[str, Any]:
        found = real(name, data)
        return {**found, "lfs": {**found["lfs"], **facts}} if "lfs" in found else found

    monkeypatch.setattr(hub_server, "_sibling", sibling)
    hub.push("lab/heads", FILES)
    message, _ = client.fail("lab/heads")
    assert said in message and not [path for path, *_ in hub.requests if "/cdn/" in path]
    assert not list(Path(client.env["HOME"]).rglob("escaped*"))


def test_the_timeout_is_a_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MHVAE_HUB_TIMEOUT", raising=False)
    assert timeout() == 3600
    monkeypatch.setenv("MHVAE_HUB_TIMEOUT", "90s")
    assert timeout() == 90
    for wrong in ("soon", "-1", "nan", "inf", "1e300"):
        monkeypatch.setenv("MHVAE_HUB_TIMEOUT", wrong)
        with pytest.raises(UsageError, match="not a duration"):
            timeout()
