"""Files of latents, against safetensors' own reader."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mhvae_cli.errors import InputError, OutputError
from mhvae_cli.inference import provenance
from mhvae_cli.inference.latent_files import encode_latents, is_latents, load_latents, save_latents
from mhvae_cli.vae.editing import LatentCode, transform_code

VAE = "ab" * 32
RECORD = provenance.make_record(provenance.Origin("heads", "cd" * 32, 7, "mhvae reconstruct"), ["ef" * 32])
ABOUT = {"model": "heads", "vae_sha256": VAE, "record": RECORD}
LENGTHS = {"vae_sha256": VAE, "z_dim": 4, "theta_dim": 6}


def code(*, pose: bool = True) -> LatentCode:
    rng = np.random.default_rng(0)
    z, theta = rng.standard_normal(4, np.float32), rng.standard_normal(6, np.float32)
    plain = LatentCode(z=z, theta=theta, pose=None, size=(200, 300))
    return transform_code(plain, rotate=33, about=(10, 20)) if pose else plain


def refused(path: Path, match: str, **options: Any) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load_latents(path, **{**LENGTHS, **options})
    assert path.stem in str(caught.value)
    assert "\n" not in str(caught.value) and "\n" not in (caught.value.hint or "")


def write(path: Path, *, metadata: dict[str, str] | None = None, **tensors: torch.Tensor) -> Path:
    """A file of latents with some parts replaced."""
    facts = {"kind": "mhvae-latents", "version": "1", "model": "heads", "vae_sha256": VAE, "size": "[20, 30]"}
    parts = {"z": torch.zeros(4), "theta": torch.zeros(6)} | tensors
    save_file(parts, path, facts | (metadata or {}))
    return path


@pytest.mark.parametrize("pose", [True, False])
def test_what_is_saved_is_loaded_to_the_bit_from_either_file(tmp_path: Path, pose: bool) -> None:
    made = code(pose=pose)
    paths = save_latents(tmp_path / "new" / "a__rot33_scale0.7", made, **ABOUT)
    assert [path.name for path in paths] == ["a__rot33_scale0.7.safetensors", "a__rot33_scale0.7.json"]
    for path in paths:
        assert is_latents(path)
        found = load_latents(path, **LENGTHS)
        assert found.size == made.size and (found.pose is None) == (not pose)
        for name in ("z", "theta", *(["pose"] if pose else [])):
            mine, theirs = getattr(found, name), getattr(made, name)
            assert mine.dtype == theirs.dtype and mine.tobytes() == theirs.tobytes()
            mine += 1  # no mapping of the file
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)
    assert save_latents(paths[0].with_suffix(""), made, **ABOUT) == paths  # overwritten whole


def test_both_files_tell_what_they_are(tmp_path: Path) -> None:
    handles = np.arange(40).reshape(20, 2) / 3
    tensors, readable = save_latents(tmp_path / "a", code(), **ABOUT, handles=handles)
    for path in (tensors, readable):
        assert provenance.read(path) == RECORD
    with safe_open(tensors, "np") as file:
        assert set(file.keys()) == {"z", "theta", "pose"} and file.metadata()["format"] == "pt"
    told = json.loads(readable.read_text(), parse_constant=lambda word: pytest.fail(word))
    assert (told["kind"], told["model"], told["vae_sha256"]) == ("mhvae-latents", "heads", VAE)
    assert told["size"] == [200, 300]
    np.testing.assert_array_equal(np.float32(told["theta"]), code().theta)
    np.testing.assert_array_equal(told["pose"], code().pose)
    np.testing.assert_allclose(told["handles"], handles, atol=1e-3)
    assert readable.read_text().count("\n") < 20
    assert encode_latents(code(), **ABOUT) == encode_latents(code(), **ABOUT)


def test_nothing_that_is_not_finite_is_written(tmp_path: Path) -> None:
    for bad in (np.nan, np.inf):
        broken = code()
        broken.z[2] = bad
        with pytest.raises(InputError, match="not finite"):
            save_latents(tmp_path / "a", broken, **ABOUT)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save_latents(tmp_path / "file" / "a", code(), **ABOUT)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_codes_of_another_model_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", metadata={"model": "skin\x1b[2J\nlesion"})
    refused(path, r"another model, 'skin\\x1b\[2J\\nlesion'", vae_sha256="00" * 32)


POSE = torch.eye(2, 3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"z": torch.zeros(5)}, "its z does not have the shape"),
        ({"z": torch.zeros(2, 2)}, "its z does not have the shape"),
        ({"theta": torch.zeros(6, dtype=torch.float16)}, "its theta does not have the shape"),
        ({"extra": torch.zeros(1)}, "its extra does not have the shape"),
        ({"pose": torch.eye(3, dtype=torch.float64)}, "its pose does not have the shape"),
        ({"pose": POSE.float()}, "its pose does not have the shape"),
        ({"pose": 0 * POSE}, "not a valid rotation and scaling"),
        ({"pose": POSE * torch.tensor([[1], [-1]])}, "not a valid rotation and scaling"),
        ({"z": torch.tensor([0, 1, torch.nan, 0])}, "NaN"),
        ({"pose": POSE / 0}, "NaN"),
        ({"metadata": {"size": "[0, 3]"}}, "size"),
        ({"metadata": {"size": "[2.5, 3]"}}, "size"),
        ({"metadata": {"size": "[true, 3]"}}, "size"),
        ({"metadata": {"size": "7"}}, "size"),
        ({"metadata": {"size": "[1, 2, 3]"}}, "size"),
        ({"metadata": {"size": "[" * 10_000}}, "size"),
        ({"metadata": {"size": "[100000, 100000]"}}, "100 million pixels"),
        ({"metadata": {"version": "2"}}, "version '2'"),
        ({"metadata": {"kind": "mhvae"}}, "not a latent code"),
        ({"extra": torch.zeros(2**19)}, "too large for"),
    ],
)
def test_a_file_that_is_not_right_is_one_line(tmp_path: Path, parts: dict, said: str) -> None:
    refused(write(tmp_path / "a.safetensors", **parts), said)


def test_damaged_and_missing_files(tmp_path: Path) -> None:
    whole, readable = save_latents(tmp_path / "a", code(), **ABOUT)
    data = whole.read_bytes()
    for cut in (data[:-7], data[:40], b"", b"x" * 300):
        whole.write_bytes(cut)
        assert is_latents(whole)
        refused(whole, "safetensors")
        refused(readable, "safetensors")
    whole.unlink()
    refused(readable, "a.safetensors is missing")
    refused(whole, "a.safetensors")


def test_what_is_no_file_of_latents(tmp_path: Path, tiny_model: Path) -> None:
    for name, text in {
        "a.json": "{}",
        "b.json": '["mhvae-latents"]',
        "c.json": "[" * 100_000,
        "d.json": "\x00",
        "e.png": '{"kind": "mhvae-latents"}',
    }.items():
        (tmp_path / name).write_text(text)
        assert not is_latents(tmp_path / name)
    (tmp_path / "f.json").mkdir()
    assert not is_latents(tmp_path / "f.json") and not is_latents(tmp_path / "none.safetensors")
    assert not is_latents(tiny_model / "vae.safetensors")


def test_they_are_told_apart_without_torch(tmp_path: Path, tiny_model: Path) -> None:
    paths = save_latents(tmp_path / "a", code(), **ABOUT)
    told = (
        "import sys\nfrom pathlib import Path\nfrom mhvae_cli.inference.latent_files import is_latents\n"
        "from mhvae_cli.checkpoints.folder import digest\n"
        f"assert all(is_latents(Path(p)) for p in {[str(path) for path in paths]})\n"
        f"digest(Path({str(tiny_model)!r}))\n"
        "print([name for name in ('torch', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
