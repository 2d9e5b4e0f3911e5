"""Model folders: configurations, weights and digests, written and read back."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from support.model_folders import CONFIG, refused, tensors

from mhvae_cli.checkpoints import folder as model_folder
from mhvae_cli.checkpoints.folder import digest, load_state, read_config, save_model
from mhvae_cli.checkpoints.registry import load_pretrained
from mhvae_cli.errors import ModelError

ROOT = Path(__file__).parents[2]


def test_names_folders_and_headers_need_neither_torch_nor_the_hub(folder: Path):
    code = f"""
import sys
from pathlib import Path
from mhvae_cli.checkpoints import checksums, folder as checkpoint, model_card, registry, tensors as files
folder = registry.resolve({str(folder)!r})
model_card.model_card(checkpoint.read_config(folder))
files.read_metadata(folder / "vae.safetensors")
try: registry.resolve("nothing")
except checkpoint.ModelError: pass
print([name for name in ("torch", "safetensors", "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_config_comes_back_and_figures_that_are_not_finite_are_null(folder: Path):
    figures = {**CONFIG["figures"], "hd_mm": None}
    assert read_config(folder) == {**CONFIG, "figures": figures}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("{" + " " * 2**20 + "}", "too large"),
        ('{"format": 1, "format": 1}', "duplicate key"),
        ('{"figures": {"hd": NaN}}', "NaN"),
        (b"\xff\xfe", "cannot be read"),
        ("[]", "not an mhvae model's configuration"),
        ('{"architectures": ["ResNet"]}', "not an mhvae model's configuration"),
        (
            json.dumps({**CONFIG, "figures": {}, "format": 2}),
            "format 2 is not supported, this version reads format 1",
        ),
        (json.dumps({**CONFIG, "figures": {}, "extra": 1}), "unknown key 'extra'"),
        (json.dumps({**CONFIG, "figures": {}, "model": []}), "'model' is missing or has the wrong type"),
        (json.dumps({key: CONFIG[key] for key in ("format", "kind", "name")}), "'model' is missing"),
    ],
)
def test_configs_that_are_refused(tmp_path: Path, text: str | bytes, match: str):
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(match, read_config, tmp_path)


def test_weights_come_back_to_the_bit(folder: Path):
    state, truth = load_state(folder), tensors()
    assert state.keys() == truth.keys()
    for name, tensor in truth.items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor), name
    with safe_open(folder / "vae.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "kind": "mhvae", "component": "vae"}


def test_loaded_tensors_are_private(folder: Path):
    load_state(folder)["conv.weight"].zero_()
    assert torch.equal(load_state(folder)["conv.weight"], tensors()["conv.weight"])


def test_float16_halves_the_matrices_only(tmp_path: Path):
    save_model, truth = model_folder.save_model, tensors()
    save_model(tmp_path, config=CONFIG, states={"vae": truth}, card="", dtype="float16")
    state = load_state(tmp_path)
    assert torch.equal(state["conv.weight"], truth["conv.weight"].half())
    assert torch.equal(state["bn.running_var"], truth["bn.running_var"])  # 1e-7 would be half lost
    large = {"vae": {"w": torch.full((2, 2), 1e6)}}
    refused(
        "w is not finite as float16",
        save_model,
        tmp_path,
        config=CONFIG,
        states=large,
        card="",
        dtype="float16",
    )


def test_pickled_weights_are_not_opened(tmp_path: Path, folder: Path):
    refused("no vae.safetensors", load_state, tmp_path)
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    refused("model.pt: pickled weights are not loaded", load_state, tmp_path)
    refused("pickled", load_pretrained, tmp_path / "model.pt")
    (tmp_path / "vae.safetensors").write_bytes((tmp_path / "model.pt").read_bytes())
    refused("pickled", load_state, tmp_path)
    (folder / "pytorch_model.bin").touch()
    load_state(folder)


def test_a_folder_is_a_model_only_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[tuple[str, bytes]] = []
    monkeypatch.setattr(model_folder, "write_atomic", lambda path, data: order.append((path.name, data)))
    model_folder.save_model(tmp_path, config=CONFIG, states={"vae": tensors()}, card="card")
    names = [name for name, _ in order]
    assert names == ["SHA256SUMS", "vae.safetensors", "README.md", "SHA256SUMS", "config.json"]
    assert order[0][1] == b""  # until all is there, nothing is said of it
    order.clear()
    bad = {**CONFIG, "format": 9}
    refused("format 9", model_folder.save_model, tmp_path, config=bad, states={"vae": tensors()}, card="")
    nan = {"vae": {"w": torch.tensor([float("nan")])}}
    refused("w is not finite", model_folder.save_model, tmp_path, config=CONFIG, states=nan, card="")
    assert order == []


def test_weights_that_are_not_those_of_the_sums_are_not_loaded(folder: Path):
    path = folder / "vae.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # still a safetensors file of finite numbers
    path.write_bytes(data)
    refused("vae.safetensors: checksum mismatch", load_state, folder)
    (folder / "SHA256SUMS").unlink()
    load_state(folder)
    (folder / "SHA256SUMS").write_text("all is well\n")
    refused("not a list of SHA-256 checksums", load_state, folder)


def test_saved_files_can_be_read_by_others(folder: Path):
    mask = os.umask(0)
    os.umask(mask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o666 & ~mask}


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="the truth is coreutils'")
def test_a_digest_is_what_sha256sum_makes_of_the_files(tiny_refined: Path) -> None:
    def summed(*names: str) -> str:
        line = f"sha256sum {' '.join(names)} | sha256sum"
        return subprocess.run(line, shell=True, cwd=tiny_refined, capture_output=True, text=True).stdout[:64]

    assert digest(tiny_refined) == summed("cddpm.safetensors", "config.json", "vae.safetensors")
    assert digest(tiny_refined, ["vae"]) == summed("vae.safetensors")
    assert digest(tiny_refined, ["vae", "cddpm"]) == summed("cddpm.safetensors", "vae.safetensors")


def test_a_name_leaves_the_vaes_digest_and_a_weight_does_not(tiny_model: Path, tmp_path: Path) -> None:
    state = load_state(tiny_model)
    before = digest(tiny_model), digest(tiny_model, ["vae"])
    save_model(tmp_path, config={**read_config(tiny_model), "name": "b"}, states={"vae": state}, card="")
    assert digest(tmp_path) != before[0] and digest(tmp_path, ["vae"]) == before[1]
    state["encoder.theta.2.weight"] = state["encoder.theta.2.weight"] + 1e-3
    save_model(tmp_path, config=read_config(tiny_model), states={"vae": state}, card="")
    assert digest(tmp_path) != before[0] and digest(tmp_path, ["vae"]) != before[1]
    (tmp_path / "vae.safetensors").unlink()
    with pytest.raises(ModelError, match=r"vae\.safetensors: no such file"):
        digest(tmp_path)
