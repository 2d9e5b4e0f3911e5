"""Apple's MPS as far as it goes without one: on a shim of it (`device_shim`) every verb's path runs whole.

No number is float64 there, no operand on another device, and no operator without a kernel for MPS in the list
that torch itself is built from, so that nothing needs PYTORCH_ENABLE_MPS_FALLBACK.
"""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.device_shim import Shim

from mhvae_cli import Pipeline
from mhvae_cli.config import DecoderConfig, EncoderConfig, ModelConfig
from mhvae_cli.images.scan import scan_of
from mhvae_cli.inference.networks import Networks
from mhvae_cli.training.phantoms import phantom
from mhvae_cli.vae.model import build

ANYWHERE = {"CompositeImplicitAutograd", "CompositeExplicitAutograd"}
"""Kernels made of other operators, for any device."""
HOW: dict[str, Any] = {"steps": 2, "seed": 1}


@cache
def kernels() -> dict[str, set[str]]:
    """By operator ("mm", "add.Tensor"): what its kernels are for, as torch's native_functions.yaml says."""
    spec = find_spec("torchgen")
    assert spec is not None and spec.origin is not None
    text = (Path(spec.origin).parent / "packaged/ATen/native/native_functions.yaml").read_text()
    entries = {entry.split("(", 1)[0]: entry for entry in re.split(r"^- func: ", text, flags=re.M)[1:]}
    found = {}
    for name, entry in entries.items():
        delegate = re.search(r"^  structured_delegate: (\S+)", entry, re.M)
        body = entries[delegate[1]] if delegate else entry
        keys = re.findall(r"^    ([\w, ]+): \S+", body, re.M)
        implicit = "dispatch:" not in body
        found[name] = {"CompositeImplicitAutograd"} if implicit else set(", ".join(keys).split(", "))
    return found


def missing(seen: set[str]) -> set[str]:
    """The operators that MPS has no kernel for."""
    names = {name.removeprefix("aten::") for name in seen}
    return {name for name in names if not kernels()[name] & {"MPS", *ANYWHERE}}


def test_the_list_is_read_right() -> None:
    assert "MPS" in kernels()["mm"] and "MPS" in kernels()["add.Tensor"]  # by delegates
    assert "MPS" in kernels()["grid_sampler_2d"] and "CompositeImplicitAutograd" in kernels()["linear"]
    assert missing({"aten::linalg_eig", "aten::mm"}) == {"linalg_eig"}


def everything(pipeline: Pipeline, image: np.ndarray, other: np.ndarray, *, whole: bool) -> list[np.ndarray]:
    """What the verbs make: a mask and pictures, those of the slower models one alone."""
    found = pipeline.segment(image)
    pictures = [pipeline.warp(image, rotate=20, shift=(3, -2), **HOW)]
    if whole:
        pictures += [pipeline.reconstruct(image, **HOW), pipeline.swap_style(image, other, **HOW)]
        pictures += pipeline.sample(1, size=(48, 64), **HOW)
    assert found.contour()
    return [found.mask, *(picture.pixels for picture in pictures)]


@pytest.mark.parametrize("solver", ["dpm++2m-sde", "heun", "unipc", "euler-maruyama"])
def test_every_solver_runs_on_mps(tiny_refined: Path, solver: str) -> None:
    image, _ = phantom("fetal-head", 0, (48, 64))
    with Shim() as shim:
        made = Pipeline.load(tiny_refined, device="mps").reconstruct(image, **HOW, solver=solver)
    right = Pipeline.load(tiny_refined, device="cpu", dtype="float32").reconstruct(
        image, **HOW, solver=solver
    )
    assert np.abs(made.pixels.astype(int) - right.pixels).max() <= 1
    assert not missing(shim.seen)


@pytest.mark.parametrize("name", ["tiny", "fetal-head", "skin-lesion"])
def test_every_verb_runs_on_mps(tiny_refined: Path, name: str) -> None:
    kind = "skin-lesion" if name == "skin-lesion" else "fetal-head"
    image, other = (phantom(kind, seed, (48, 64))[0] for seed in (0, 1))
    ref = tiny_refined if name == "tiny" else name
    with Shim() as shim:
        made = everything(Pipeline.load(ref, device="mps"), image, other, whole=name == "tiny")
    right = everything(Pipeline.load(ref, device="cpu", dtype="float32"), image, other, whole=name == "tiny")
    for ours, theirs in zip(made, right, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert {"aten::grid_sampler_2d", "aten::convolution", "aten::upsample_bilinear2d"} <= shim.seen
    assert not missing(shim.seen), "MPS has no kernel for these"


def test_what_results_are_judged_by_is_found_on_mps() -> None:
    scan = scan_of(phantom("fetal-head", 0, (48, 64))[0])
    with Shim() as shim:
        pipeline = Pipeline.load("fetal-head", device="mps")
        [found] = pipeline.networks.examine(pipeline.networks.prepare(scan)[None], recon=True)
    pipeline = Pipeline.load("fetal-head", device="cpu", dtype="float32")
    [right] = pipeline.networks.examine(pipeline.networks.prepare(scan)[None], recon=True)
    assert found.theta == pytest.approx(right.theta, abs=1e-4) and not missing(shim.seen)


@pytest.mark.parametrize("arch", ["resnet50", "resnet50-vit-b16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_encoder_runs_on_mps(arch: Any, dtype: torch.dtype) -> None:
    encoder = EncoderConfig(arch=arch, width=0.125, reduce=4, hidden=16)
    decoder = DecoderConfig(channels=8, max_size=32)
    config = ModelConfig(image_size=64, z_dim=4, encoder=encoder, decoder=decoder, reference=16)
    batch = np.zeros((2, 1, 64, 64), np.float32)
    with Shim() as shim:
        networks = Networks(build(config), name=arch, folder=Path(), device=torch.device("mps"), dtype=dtype)
        z, theta = networks.encode(batch)
        assert networks.mask(theta[0], (30, 40)).shape == (30, 40)
    assert z.shape == (2, 4) and not missing(shim.seen)


def test_the_shim_is_as_strict_as_mps() -> None:
    with Shim():
        there = torch.ones(2, 3).to("mps")
        assert there.device.type == "mps" and there.cpu().device.type == "cpu"
        with pytest.raises(TypeError, match="float64"):
            there.double()
        with pytest.raises(RuntimeError, match="two devices"):
            _ = there + torch.ones(2, 3)
        with pytest.raises(TypeError, match="float64"):
            torch.zeros(2, dtype=torch.float64).to("mps")
