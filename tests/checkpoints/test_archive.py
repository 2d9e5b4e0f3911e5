"""An archive holds one model to the bit, and no other archive is taken."""

from pathlib import Path

import numpy as np
from support.model_folders import files_of, sums_of

from mhvae_cli.checkpoints.archive import pack, unpack
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
