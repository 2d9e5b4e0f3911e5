"""SHA256SUMS of a model folder, against what sha256sum finds."""

import hashlib
from pathlib import Path

import pytest
from support.model_folders import refused

from mhvae_cli.checkpoints import checksums
from mhvae_cli.checkpoints.checksums import parse_sums
from mhvae_cli.checkpoints.folder import FILES


def test_the_sums_are_those_that_sha256sum_finds(folder: Path):
    truth = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "SHA256SUMS"
    }
    lines = [f"{truth[name]}  {name}" for name in ("README.md", "config.json", "vae.safetensors")]
    assert (folder / "SHA256SUMS").read_text().splitlines() == lines
    assert checksums.check(folder, FILES) == truth


@pytest.mark.parametrize("name", ["README.md", "config.json", "vae.safetensors"])
def test_check_finds_what_was_altered_lost_or_added(folder: Path, name: str):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data + b" ")
    refused(f"{name}: checksum mismatch", checksums.check, folder, FILES)
    (folder / name).unlink()
    refused(f"{name}: no such file", checksums.check, folder, FILES)
    (folder / name).write_bytes(data)
    (folder / "log.csv").write_text("epoch\n")  # a run's other files are no part of the model
    checksums.check(folder, FILES)
    (folder / "cddpm.safetensors").write_bytes(data)
    refused("cddpm.safetensors: not listed in SHA256SUMS", checksums.check, folder, FILES)
    (folder / "SHA256SUMS").unlink()
    assert "sha256sum config.json" in refused("no SHA256SUMS", checksums.check, folder, FILES).hint


@pytest.mark.parametrize(
    "text",
    [
        "x\n",
        f"{'0' * 63}  a\n",
        f"{'0' * 64}  ../a\n",
        f"{'0' * 64}  a\n{'1' * 64}  a\n",
        f"{'0' * 64}  .a\n",
        "0" * 70_000,
    ],
)
def test_sums_that_are_refused(text: str):
    refused("not a list of SHA-256 checksums", parse_sums, text.encode(), "SHA256SUMS")
