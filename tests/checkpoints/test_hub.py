"""Models from the Hub, through the real client against a local server that speaks the Hub's routes."""

from pathlib import Path

import pytest
from support.hub_client import FILES
from support.hub_server import TOKEN, Fault

TAKEN = {"config.json", "vae.safetensors", "README.md"}


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
