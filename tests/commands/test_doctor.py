"""`mhvae doctor`: what it tells, and that its self-test finds a device that computes wrongly."""

import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.device_shim import Shim

from mhvae_cli.commands import doctor
from mhvae_cli.inference import selftest

Mhvae = Callable[..., Any]


@pytest.fixture
def small_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the bundled models out, for speed."""
    monkeypatch.setattr(selftest, "bundled", lambda: [])


@pytest.fixture
def with_mps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 2**34)


def test_a_sound_machine(mhvae: Mhvae) -> None:
    ended = mhvae("doctor", "--device", "cpu")
    assert ended.code == 0 and not ended.stderr
    text = "\n".join(ended.lines)
    assert re.search(r"^  cpu float32, small: ok: \w+ off by \S+e-0[5-9], tolerance 1e-04$", text, re.M)
    for said in ("versions", f"torch: {torch.__version__}", "bundled: fetal-head, skin-lesion", "token: "):
        assert said in text
    assert str(Path.home()) not in text


def test_as_json(mhvae: Mhvae, small_only: None) -> None:
    ended = mhvae("doctor", "--device", "cpu", "--json")
    [line] = ended.lines
    facts = json.loads(line)
    assert ended.code == 0 and facts["ok"] is True
    assert facts["devices"][0]["device"] == "cpu" and facts["machine"]["usable"] >= 1
    first = facts["tests"][0]
    assert first["model"] == "small" and first["ok"] and set(first["off"]) == set(selftest.TRUTH)


def test_it_is_deterministic(mhvae: Mhvae, small_only: None) -> None:
    runs = [json.loads(mhvae("doctor", "--device", "cpu", "--json").lines[0])["tests"] for _ in range(2)]
    assert runs[0] == runs[1]


def test_secrets_and_homes_stay_inside(
    mhvae: Mhvae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_only: None
) -> None:
    home = tmp_path / "dr.who"
    (home / ".cache/huggingface").mkdir(parents=True)
    (home / ".cache/huggingface/token").write_text("hf_secret1")
    for name in [name for name in os.environ if name.startswith(("HF_", "XDG_")) or "PROXY" in name.upper()]:
        monkeypatch.delenv(name)
    given = {"HOME": str(home), "HF_TOKEN": "hf_secret2", "HTTPS_PROXY": "http://me:secret3@proxy"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    ended = mhvae("doctor", "--json", "--device", "cpu")
    told = "\n".join(ended.lines) + ended.stderr
    assert ended.code == 0 and "secret" not in told and "dr.who" not in told
    hub = json.loads(ended.lines[0])["hub"]
    assert hub["token"] and hub["proxies"] == ["HTTPS_PROXY"] and hub["cache"].startswith("~/")
    assert not doctor._hub({"HF_HOME": str(tmp_path / "none")})["token"]
    assert doctor._hub({"HF_HUB_OFFLINE": "1"})["offline"]


def test_a_device_that_is_not_there(mhvae: Mhvae) -> None:
    ended = mhvae("doctor", "--device", "cuda:7")
    assert ended.code == 5 and "cuda:7" in ended.stderr and "devices" in ended.lines


BROKEN: dict[str, Callable[..., Any]] = {
    "grid_sample": lambda real, x, grid, **how: real(x, grid.flip(3), **how),
    "interpolate": lambda real, x, *rest, **how: real(x, *rest, **how).roll(1, -1),
    "layer_norm": lambda real, x, *rest: real(x, *rest) * 1.01,
    "linear": lambda real, x, *rest: real(x, *rest).roll(1, -1),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_cpu_that_is_wrong_is_found(
    mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, small_only: None, name: str
) -> None:
    functional = torch.nn.functional
    monkeypatch.setattr(functional, name, partial(BROKEN[name], getattr(functional, name)))
    ended = mhvae("doctor", "--device", "cpu")
    assert ended.code == 5 and "cpu: computes wrong images" in ended.stderr
    assert any("cpu float32, small: WRONG" in line for line in ended.lines)


def test_a_race_is_found(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, small_only: None) -> None:
    """A convolution that loses one value in one call of many."""
    real, calls = torch.nn.functional.conv2d, 0

    def conv2d(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        made = real(*args, **kwargs)
        if calls == 100:  # not in the first run
            made[0, 0, 0] = 0
        return made

    monkeypatch.setattr(torch.nn.functional, "conv2d", conv2d)
    assert mhvae("doctor", "--device", "cpu").code == 5
    assert calls > 100


def test_numbers_that_are_none(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, small_only: None) -> None:
    real = torch.nn.functional.silu
    monkeypatch.setattr(torch.nn.functional, "silu", lambda x, **how: real(x, **how) * float("nan"))
    ended = mhvae("doctor", "--device", "cpu", "--json")
    facts = json.loads(ended.lines[0], parse_constant=pytest.fail)  # Infinity is no JSON
    assert ended.code == 5 and facts["ok"] is False and facts["tests"][0]["off"]["refine"] is None


def test_a_torch_that_cannot_be_imported(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    ended = mhvae("doctor")
    assert ended.code == 5 and ended.stderr.startswith("error: torch cannot be imported: ")
    assert "versions" in ended.lines


SPOILS: dict[str, tuple[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    "aten::mm": ("warp", lambda x: x * 1.001),
    "aten::bmm": ("warp", lambda x: x.flip(-1)),
    "aten::grid_sampler_2d": ("decode", lambda x: x.roll(1, -1)),
    "aten::upsample_bilinear2d": ("decode", lambda x: torch.cat([x[..., :-1, :], 0 * x[..., -1:, :]], -2)),
    "aten::convolution": ("encode", lambda x: x.roll(1, 1)),
    "aten::replication_pad2d": ("refine", lambda x: x.roll(3, -1)),
}


def test_a_sound_device_passes(mhvae: Mhvae, with_mps: None, small_only: None) -> None:
    with Shim() as shim:
        ended = mhvae("doctor")
    assert ended.code == 0, ended.stderr
    assert [line for line in ended.lines if line.startswith("  mps float32, small: ok")]
    assert "  mps: Apple GPU, 16.0 GiB, auto is float32" in ended.lines
    assert len(shim.seen) > 20


@pytest.mark.parametrize("operator", SPOILS)
def test_a_device_with_one_wrong_operator_is_found(
    mhvae: Mhvae, with_mps: None, small_only: None, operator: str
) -> None:
    stage, spoil = SPOILS[operator]
    with Shim({operator: spoil}) as shim:
        ended = mhvae("doctor", "--device", "mps", "--json")
    assert ended.code == 5 and "mps: computes wrong images" in ended.stderr
    assert "--device cpu" in ended.stderr and operator in shim.seen
    [cpu, mps] = json.loads(ended.lines[0])["tests"]
    assert cpu["ok"] and mps["off"][stage] > mps["allowed"][stage]


def test_a_device_that_lacks_an_operator(mhvae: Mhvae, with_mps: None, small_only: None) -> None:
    def refuse(_made: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("The operator 'aten::grid_sampler_2d' is not implemented for MPS.\nMore.")

    with Shim({"aten::grid_sampler_2d": refuse}):
        ended = mhvae("doctor", "--device", "mps")
    assert ended.code == 5
    said = [line for line in ended.lines if "FAILED" in line]
    assert said == [
        "  mps float32, small: FAILED: The operator 'aten::grid_sampler_2d' is not implemented for MPS."
    ]
