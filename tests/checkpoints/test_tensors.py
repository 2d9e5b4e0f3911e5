"""Files of tensors, and what is refused as one."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from support.model_folders import refused, tensors

from mhvae_cli.checkpoints import tensors as files
from mhvae_cli.checkpoints.folder import load_state
from mhvae_cli.errors import OutputError


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_weights_must_fit_the_model(folder: Path):
    shapes = {name: tensor.shape for name, tensor in tensors().items()}
    assert load_state(folder, expected=shapes).keys() == shapes.keys()
    wrong = {**shapes, "conv.weight": (4, 1, 5, 5)}
    more = {**shapes, "head.bias": (2,)}
    fewer = {name: shape for name, shape in shapes.items() if name != "bn.num_batches_tracked"}
    refused(r"conv.weight is \(4, 3, 5, 5\) in the file", load_state, folder, expected=wrong)
    refused("head.bias is absent in the file", load_state, folder, expected=more)
    refused("bn.num_batches_tracked is .* absent in the model", load_state, folder, expected=fewer)


def entry(shape: list[Any], start: int, end: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "truncated"),
        (b"\x01\x02", "truncated"),
        (struct.pack("<Q", 2**30) + b"{}", "header claims 1073741824"),
        (struct.pack("<Q", 2**63) + b"{}", "header claims"),
        (struct.pack("<Q", 100) + b"{}", "truncated in its header"),
        (b"PK\x03\x04" + b"\0" * 100 + b"archive/data.pkl", "pickled"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickled"),
        (raw(b"[1, 2]"), "its header is damaged"),
        (raw(b"{" * 50_000), "invalid safetensors file"),
        (raw(b'{"w": 1, "w": 2}'), "duplicate key"),
        (raw({"w": 3}), "its header is damaged"),
        (raw(entry([-2], 0, 8), bytes(8)), "impossible shape"),
        (raw(entry([True], 0, 4), bytes(4)), "impossible shape"),
        (raw(entry([2], 0, "8"), bytes(8)), "its header is damaged"),
        (raw(entry([2], 0, 8), bytes(7)), "truncated, [0-9]+ of [0-9]+ bytes"),
        (raw(entry([2], 0, 8), bytes(12)), "invalid safetensors file"),
        (raw(entry([2**62], 0, 8), bytes(8)), "invalid safetensors file"),
        (raw(entry([2], 4, 12), bytes(12)), "overlap or leave a gap"),
        (raw(entry([2], 0, 8) | {"v": entry([2], 4, 12)["w"]}, bytes(12)), "overlap"),
        (raw(entry([2], 0, 8) | {"v": entry([1], 12, 16)["w"]}, bytes(16)), "leave a gap"),
        (raw(entry([2], 0, 8) | {"v": entry([2], 0, 8)["w"]}, bytes(8)), "overlap"),
        (raw(entry([3], 0, 8), bytes(8)), "shape does not match its size in bytes"),
        (
            raw({"w": {"dtype": "F7", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
            "unsupported dtype 'F7'",
        ),
        (raw({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}}, bytes(8)), "damaged"),
        (raw(entry([2], 8, 0), bytes(0)), "invalid safetensors file"),
        (save({"w": torch.tensor([1.0, float("nan")])}), "w contains NaN"),
        (save({"w": torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16)}), "w contains NaN or infinity"),
    ],
)
def test_weights_that_are_refused(tmp_path: Path, data: bytes, match: str):
    (tmp_path / "vae.safetensors").write_bytes(data)
    refused(match, load_state, tmp_path)


def test_training_state_is_one_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run" / "last.safetensors"
    place = {"progress": json.dumps({"epoch": 2, "step": 17})}
    first = {"rng": torch.get_rng_state(), "w": torch.ones(3, 2, requires_grad=True).T}
    files.save_state(path, first, place)
    assert json.loads(files.read_metadata(path)["progress"]) == {"epoch": 2, "step": 17}
    state = load_state(path.parent, "last")
    assert torch.equal(state["rng"], first["rng"]) and torch.equal(state["w"], torch.ones(2, 3))

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OutputError):
        files.save_state(path, {"w": torch.zeros(2)}, {})
    assert torch.equal(load_state(path.parent, "last")["w"], torch.ones(2, 3))
    assert os.listdir(path.parent) == ["last.safetensors"]


def test_metadata_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(raw({"__metadata__": {"a": 1}}))
    refused("metadata is damaged", files.read_metadata, tmp_path / "x.safetensors")
    refused("no such file", files.read_metadata, tmp_path / "none.safetensors")
