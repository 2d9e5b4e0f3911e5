"""Models from the Hub, through the real client against a local server that speaks the Hub's routes."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hub_server import TOKEN, Fault, HubServer

from mhvae_cli.checkpoints.registry import resolve
from mhvae_cli.errors import ModelError

FILES = {
    "config.json": b'{"kind": "mhvae"}',
    "vae.safetensors": os.urandom(200_000),
    "README.md": b"# a model\n",
    "pytorch_model.bin": b"\x80\x02pickled",
    "training/log.csv": b"epoch\n",
}
TAKEN = {"config.json", "vae.safetensors", "README.md"}

# A process of its own: the client reads its environment when it is imported.
CLIENT = """
import json, sys
from mhvae_cli.checkpoints import registry
from mhvae_cli.errors import ModelError
for call, ref, offline in json.load(sys.stdin):
    try:
        result = getattr(registry, call)(ref, offline=offline)
        print(json.dumps({"folder": str(result)} if call == "resolve" else {"tensors": sorted(result)}))
    except ModelError as error:
        print(json.dumps({"error": str(error), "hint": error.hint}))
"""


class Client:
    """Runs the real client in new processes that share one cache."""

    def __init__(self, url: str, home: Path) -> None:
        keep = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
        self.env = {
            **keep,
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": url,
            "NO_PROXY": "*",
        }

    def run(
        self, *refs: str, call: str = "resolve", offline: bool = False, **env: str
    ) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-c", CLIENT],
            input=json.dumps([(call, ref, offline) for ref in refs]),
            env={**self.env, **env},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        for answer in answers:
            if "error" in answer:
                assert "\n" not in answer["error"] and "\n" not in answer["hint"], answer
        return answers

    def fetch(self, ref: str, **options: Any) -> Path:
        (answer,) = self.run(ref, **options)
        assert "folder" in answer, answer
        return Path(answer["folder"])

    def fail(self, ref: str, **options: Any) -> tuple[str, str]:
        (answer,) = self.run(ref, **options)
        assert "error" in answer, answer
        return answer["error"], answer["hint"]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def client(hub: HubServer, tmp_path: Path) -> Client:
    return Client(hub.url, tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_download_takes_the_model_files_and_the_cache_serves_them_when_the_server_is_gone(hub, client):
    hub.push("lab/heads", FILES)
    folder = client.fetch("lab/heads")
    assert contents(folder) == {name: FILES[name] for name in TAKEN}
    paths = [path for _, path, _ in hub.requests]
    assert not [path for path in paths if "pytorch_model" in path]
    assert all("lab/heads" in path or path.startswith("/cdn/") for path in paths)  # no telemetry
    asked = len(hub.requests)
    assert client.fetch("lab/heads", offline=True) == folder
    assert client.fetch("lab/heads", HF_HUB_OFFLINE="1") == folder
    assert len(hub.requests) == asked  # offline opens no socket
    hub.stop()
    assert client.fetch("lab/heads") == folder


def test_a_revision_is_a_tag_or_a_commit_and_main_moves_on(hub, client):
    old = hub.push("lab/heads", {**FILES, "README.md": b"old"}, tags=["v1"])
    first = client.fetch("lab/heads")
    hub.push("lab/heads", {**FILES, "README.md": b"new"})
    main, tag, commit = (
        Path(a["folder"]) for a in client.run("lab/heads", "lab/heads@v1", f"lab/heads@{old}")
    )
    assert first == tag == commit != main
    assert (contents(tag)["README.md"], contents(main)["README.md"]) == (b"old", b"new")


def test_offline_and_not_cached_names_the_command_that_fetches(hub, client):
    hub.push("lab/heads", FILES)
    message, hint = client.fail("lab/heads@v1", offline=True)
    assert "lab/heads@v1" in message and "and offline: config.json is not in the Hub's cache" in message
    assert hint.endswith("mhvae models pull lab/heads@v1")
    _, hint = client.fail("lab/heads", HF_HUB_OFFLINE="1")
    assert hint.endswith("mhvae models pull lab/heads")
    assert hub.requests == []


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


def test_the_users_token_opens_a_private_model_and_stays_on_the_hub(hub, client):
    hub.push("lab/private", FILES, access="private")
    message, hint = client.fail("lab/private", HF_TOKEN="hf_wrong")
    assert (
        "rejects your access token (401)" in message
        and "HF_TOKEN" in hint
        and "hf_wrong" not in message + hint
    )
    assert contents(client.fetch("lab/private", HF_TOKEN=TOKEN))["config.json"] == FILES["config.json"]
    large = [had_token for _, path, had_token in hub.requests if path.startswith("/cdn/")]
    assert large and not any(large)


def test_a_body_cut_short_is_an_error_and_no_model(hub, client):
    hub.push("lab/heads", FILES)
    hub.faults = [Fault("cut", "/cdn/", 1000, times=1), Fault("cut", "/cdn/", 0)]
    message, hint = client.fail("lab/heads")
    assert "1000 of 200000 bytes of vae.safetensors" in message and "again" in hint
    message, _ = client.fail("lab/heads", offline=True)
    assert "offline" in message  # half a model is not a cached model
    hub.faults = []
    assert contents(client.fetch("lab/heads"))["vae.safetensors"] == FILES["vae.safetensors"]


def test_a_dropped_connection_goes_on_where_it_broke(hub, client):
    hub.push("lab/heads", FILES)
    hub.faults = [Fault("drop", "/cdn/", 150_000, times=1)]
    assert contents(client.fetch("lab/heads"))["vae.safetensors"] == FILES["vae.safetensors"]
    assert len([path for _, path, _ in hub.requests if path.startswith("/cdn/")]) == 2


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


def test_pretrained_weights_come_from_the_hub(hub, client):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save

    hub.push(
        "timm/resnet",
        {"model.safetensors": save({"conv1.weight": torch.ones(2, 3, 7, 7)}), "config.json": b"{}"},
    )
    hub.push("timm/old", {"pytorch_model.bin": b"\x80\x02"})
    found, old, none = client.run("timm/resnet", "timm/old", "nowhere.safetensors", call="load_pretrained")
    assert found == {"tensors": ["conv1.weight"]}
    assert "no model.safetensors" in old["error"] and "pickled" in old["hint"]
    assert "no weights" in none["error"]
