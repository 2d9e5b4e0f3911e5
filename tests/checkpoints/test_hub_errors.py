"""Each failure of the Hub has its own words, and a hint."""

import errno
import time
from typing import Any

import pytest
from support.hub_client import FILES
from support.hub_server import Fault

from mhvae_cli.checkpoints.registry import resolve
from mhvae_cli.errors import ModelError


def test_each_refusal_has_its_own_words(hub, client):
    hub.push("lab/open", FILES)
    hub.push("lab/private", FILES, access="private")
    hub.push("lab/gated", FILES, access="gated")
    hub.push("lab/other", {"weights.safetensors": b""})
    answers = client.run("lab/nothing", "lab/private", "lab/gated", "lab/open@v9", "lab/other", "lab--x/a..b")
    nothing, private, gated, revision, other, name = ((a["error"], a["hint"]) for a in answers)
    for message, hint in (nothing, private):
        assert "no such model on the Hub" in message and "hf auth login" in hint and "HF_TOKEN" in hint
    assert "gated" in gated[0] and "request access" in gated[1] and "hf auth login" in gated[1]
    assert "no such revision" in revision[0] and "main" in revision[1]
    assert "no config.json" in other[0]
    assert "not a valid name on the Hub" in name[0]


def test_a_server_that_fails_hangs_or_is_gone(hub, client):
    hub.push("lab/heads", FILES)
    hub.faults = [Fault("status", "/api/", 500)]
    message, hint = client.fail("lab/heads")
    assert "500" in message and "later" in hint
    hub.faults = [Fault("hang", "/api/")]
    start = time.monotonic()
    message, hint = client.fail("lab/heads", HF_HUB_ETAG_TIMEOUT="1")
    assert "the download from the Hub failed" in message and "timed out" in message and "proxy" in hint
    assert time.monotonic() - start < 8
    hub.stop()
    message, hint = client.fail("lab/heads")
    assert "the download from the Hub failed" in message and "refused" in message and "HF_ENDPOINT" in hint


def test_a_cache_that_cannot_be_written(hub, client):
    hub.push("lab/heads", FILES)
    message, hint = client.fail("lab/heads", HF_HOME="/dev/null/hf")
    assert "cannot write" in message and "HF_HOME" in hint


def test_a_full_disk(monkeypatch):
    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", full)
    with pytest.raises(ModelError, match="disk is full") as caught:
        resolve("lab/heads")
    assert "HF_HOME" in caught.value.hint
