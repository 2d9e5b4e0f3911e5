"""An archive holds one model to the bit, and no other archive is taken."""

from pathlib import Path

import numpy as np
import pytest
from support.model_folders import files_of, sums_of

from mhvae_cli.checkpoints.archive import name_in, pack, unpack
from mhvae_cli.checkpoints.folder import FILES
from mhvae_cli.errors import ModelError


def test_every_flipped_bit_is_found(tiny_model: Path, tmp_path: Path) -> None:
    good = b"".join(pack(tiny_model, "tiny", sums_of(tiny_model)))
    rng = np.random.default_rng(0)
    starts = [good.index(f"tiny/{name}".encode()) for name in files_of(tiny_model)]
    places = [*rng.integers(0, len(good), 60), *(s + rng.integers(0, 512) for s in starts * 8)]
    for index, place in enumerate(places):
        data = bytearray(good)
        data[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "x").write_bytes(data)
        try:
            unpack(tmp_path / "x", tmp_path / f"{index}", FILES)
        except ModelError:
            continue
        name = data[:100].split(b"/")[0]  # the name of the model is the one thing without a sum
        assert name != b"tiny" and files_of(tmp_path / f"{index}") == files_of(tiny_model)


def test_a_model_comes_out_as_it_went_in(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.mhvae"
    path.write_bytes(b"".join(pack(tiny_model, "tiny", sums_of(tiny_model))))
    assert name_in(path) == "tiny"
    unpack(path, tmp_path / "out", FILES)
    assert files_of(tmp_path / "out") == files_of(tiny_model)
    with pytest.raises(ModelError, match="do not belong to a model"):
        unpack(path, tmp_path / "few", ["config.json"])
    assert not (tmp_path / "few").exists()


def test_a_file_that_changes_meanwhile_is_not_packed(tiny_model: Path) -> None:
    sums = sums_of(tiny_model)
    with pytest.raises(ModelError, match=r"config\.json: changed while it was being read"):
        list(pack(tiny_model, "tiny", sums | {"config.json": sums["README.md"]}))
