"""Results are made of sources that are read once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mhvae_cli.inference.networks import Networks
from mhvae_cli.runs.generation import generate
from mhvae_cli.runs.generation_jobs import GenerationRequest
from mhvae_cli.runs.inputs import Item
from mhvae_cli.runs.settings import GenerationSettings


def test_sources_of_many_results_are_not_read_for_each(
    tiny_refined: Path, images: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(images[0]).save(path)
    item = Item(str(path), path, Path("a"))
    encoded = []
    examine: Callable[..., Any] = Networks.examine
    monkeypatch.setattr(
        Networks, "examine", lambda *given, **how: (encoded.append(1), examine(*given, **how))[1]
    )
    requests = [GenerationRequest((item,), Path(f"a{number}")) for number in range(9)]
    settings = GenerationSettings(
        out=str(tmp_path / "o"), model=str(tiny_refined), device="cpu", no_refine=True, workers=2
    )
    assert generate("again", requests, settings, many=True) == 0
    assert len(encoded) == 1 and len(list((tmp_path / "o").glob("a?.png"))) == 9
