"""A folder's refiner is loaded as it was saved, or one line says why not."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.score_stubs import noise

from mhvae_cli.checkpoints.folder import digest, load_state, rewrite_model
from mhvae_cli.checkpoints.tensors import save_state
from mhvae_cli.diffusion.frames import TONES, Frames
from mhvae_cli.errors import ModelError
from mhvae_cli.inference.loading import load_refiner
from mhvae_cli.inference.networks import Networks


def test_a_folders_refiner_is_the_one_that_was_saved(tiny_refined: Path) -> None:
    one, half = load_refiner(tiny_refined), load_refiner(tiny_refined, dtype=torch.bfloat16)
    assert float(one.network.scale) == float(half.network.scale) == pytest.approx(0.1)
    assert half.network.unet.enter.weight.dtype == torch.bfloat16 and half.codes_factor.dtype == torch.float32
    assert not one.training
    x_hat = 0.3 * noise(2, 1, 32, 40)
    sharp = one.refine(x_hat, ["a", "b"])
    assert (sharp - x_hat).std() == pytest.approx(0.1, rel=0.05)  # what is not learnt is unit noise
    torch.testing.assert_close(half.refine(x_hat, ["a", "b"]), sharp, atol=0.02, rtol=0)


def test_a_gaussian_of_latent_codes_as_in_earlier_models_is_still_drawn_from(
    tiny_refined: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_refined, folder)
    (folder / "SHA256SUMS").unlink()
    state = load_state(folder, "cddpm")
    codes = len(state["codes_factor"])
    mean = torch.linspace(-1, 1, codes)
    factor = torch.eye(codes) + 0.1 * torch.ones(codes, codes).tril()
    for name in ("marginals", "cut", "spread", "found"):
        del state[f"codes_{name}"]
    save_state(folder / "cddpm.safetensors", {**state, "codes_mean": mean, "codes_factor": factor}, {})
    networks = Networks.load(folder, device="cpu")
    z, theta = networks.density.draw(np.random.default_rng(0))
    truth = mean.numpy() + factor.numpy() @ np.random.default_rng(0).standard_normal(codes)
    np.testing.assert_allclose(np.concatenate([z, theta]), truth, rtol=1e-4, atol=1e-5)
    assert networks.density.cut == 1 and networks.density.spread == networks.density.found == 0


def test_a_folder_without_one_says_what_to_do(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="tiny: has no cDDPM") as caught:
        load_refiner(tiny_model)
    assert "--no-refine" in caught.value.hint and "train-cddpm" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sees": "everything"}, "cddpm.model.sees"),
        ({"unet": {"channels": 0}}, "unet.channels"),
        ({"unet": {"channels": 16, "levels": 2, "blocks": 1}}, "does not match"),
        ({"beta_max": 1.0}, "noise schedule"),
        (None, "cddpm"),
    ],
)
def test_a_configuration_that_is_not_its_own_is_refused(
    change: dict[str, Any] | None, said: str, tiny_refined: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_refined, folder)
    content = json.loads((folder / "config.json").read_text())
    content["cddpm"]["model"] = change if change is None else {**content["cddpm"]["model"], **change}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=said) as caught:
        load_refiner(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_missing_are_named(tiny_refined: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_refined, folder)
    (folder / "cddpm.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no cddpm\.safetensors"):
        load_refiner(folder)


def framed(source: Path, folder: Path, masks: np.ndarray) -> Path:
    """A copy of a model folder with a frame in whose black all tones are likely."""
    shutil.copytree(source, folder)
    arrays = Frames(masks, np.ones(TONES, np.float32), np.zeros(len(masks) + 1, np.float32)).arrays()
    frames = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    rewrite_model(folder, states={"frames": frames})
    return folder


def test_a_folders_frames_are_black_in_samples(
    mhvae: Callable[..., Any], here: Path, tiny_refined: Path
) -> None:
    mask = np.zeros((1, 32, 32), bool)
    mask[:, :8] = True
    folder = framed(tiny_refined, here / "model", mask)
    assert mhvae("models", "verify", folder).code == 0
    assert digest(folder) != digest(tiny_refined)
    ended = mhvae("sample", "-n", "2", "--size", "64x64", "-o", "out/", "-m", folder)
    assert ended.code == 0, ended.stderr
    for path in Path("out/images").iterdir():
        pixels = np.asarray(Image.open(path))
        assert pixels[:14].max() == 0 < pixels[20:].mean(), path


def test_frames_that_are_none_are_refused(mhvae: Callable[..., Any], here: Path, tiny_refined: Path) -> None:
    folder = framed(tiny_refined, here / "model", np.ones((1, 48, 48), bool))
    for command in (["models", "verify", folder], ["sample", "-n", "1", "-o", "out/", "-m", folder]):
        ended = mhvae(*command)
        assert ended.code == 6 and "frames.safetensors: 1 frames of 48 px" in ended.stderr, ended.stderr
    assert not Path("out").exists()


def test_loading_imports_no_compiler(tiny_refined: Path) -> None:
    """Which would cost seconds."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom mhvae_cli.inference.loading import load_refiner\n"
        "load_refiner(Path(sys.argv[1]))\n"
        "print([m for m in ('torch._dynamo', 'torch._inductor', 'sympy', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tiny_refined)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def changed(source: Path, folder: Path, key: str, value: object) -> Path:
    """A copy of a model folder, with one value of its config.json replaced, and no checksums."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("SHA256SUMS"))
    content = node = json.loads((folder / "config.json").read_text())
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    (folder / "config.json").write_text(json.dumps(content).replace('"1e999"', "1e999"))
    return folder


def nested(depth: int) -> list[Any]:
    return [] if not depth else [nested(depth - 1)]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model.image_size", 10**9, "must be 32 to 4096"),
        ("model.image_size", -64, "must be 32 to 4096"),
        ("model.z_dim", 10**18, "must be 1 to 65536"),
        ("model.edge", "1e999", "must be 1e-06 to 10"),
        ("model.reference", 10**18, "must be 0 to 4096"),
        ("model.encoder.width", 10**400, "must be 0.01 to 8"),
        ("model.encoder.hidden", 10**9, "must be 1 to 65536"),
        ("model.decoder.channels", 10**9, "must be 1 to 4096"),
        ("model.decoder.channels", nested(200), "expected int"),
        ("model.decoder.max_size", 10**18, "must be 1 to 4096"),
        ("model.tones", 10**9, "must be 0 to 256"),
        ("cddpm.model.unet.blocks", 10**9, "must be 1 to 64"),
        ("cddpm.model.unet.patch", 10**9, "must be 1 to 64"),
        ("cddpm.model.beta_max", "1e999", "noise schedule"),
        ("cddpm.model.strength", 10**400, "must be 0.002 to 1"),
        ("cddpm.size", [10**9, 10**9], "100 million pixels"),
        ("cddpm.size", "large", "100 million pixels"),
        ("trust", {"errors": None, "limits": {"tones": 10**400}}, "damaged"),
    ],
)
def test_hostile_numbers_are_refused_with_their_bounds(
    mhvae: Callable[..., Any], here: Path, tiny_refined: Path, key: str, value: object, said: str
) -> None:
    folder = changed(tiny_refined, here / "model", key, value)
    Image.new("L", (40, 40), 90).save("a.png")
    verb = ["sample", "-n", "1"] if key.startswith("cddpm") else ["segment", "a.png"]
    ended = mhvae(*verb, "-o", "out/", "-m", folder)
    assert ended.code == 6 and said in ended.stderr.splitlines()[0], ended.stderr
    assert len(ended.stderr) < 400 and not Path("out").exists()


@pytest.mark.parametrize(
    ("stored", "told", "said"),
    [("F16", "I16", "int16 in the file, float32 in the model"), ("F32", "I32", "int32"), ("I64", "F64", "")],
)
def test_tensors_of_another_dtype_are_refused(
    mhvae: Callable[..., Any], here: Path, tiny_model: Path, stored: str, told: str, said: str
) -> None:
    folder = here / "model"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("SHA256SUMS"))
    path = folder / "vae.safetensors"
    save_state(path, {name: halved(value) for name, value in load_state(folder).items()}, {})
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    assert f'"{stored}"'.encode() in data[: 8 + length]
    path.write_bytes(
        data[: 8 + length].replace(f'"{stored}"'.encode(), f'"{told}"'.encode()) + data[8 + length :]
    )
    ended = mhvae("models", "verify", folder)
    Image.new("L", (40, 40), 90).save("a.png")
    ended = mhvae("segment", "a.png", "-o", "m.png", "-m", folder)
    assert ended.code == 6 and said in ended.stderr and not Path("m.png").exists(), ended.stderr


def halved(value: torch.Tensor) -> torch.Tensor:
    return value.half() if value.is_floating_point() and value.ndim > 1 else value
