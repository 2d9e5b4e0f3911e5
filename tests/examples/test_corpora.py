"""The corpora's own judgement: which pages are the same, and that no reader can take the run down."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.pictures import COLOUR, DEEP, GREY, saved, tiff
from support.scripts import benchmark

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def corpora() -> Iterator[ModuleType]:
    """examples/benchmarks/corpora.py, imported as its neighbours do."""
    with benchmark("corpora") as module:
        yield module


def test_the_same_pixels(corpora: ModuleType) -> None:
    floats = RNG.random((20, 30)).astype(np.float32)
    stretched = np.rint((floats - floats.min()) / np.ptp(floats) * 65535).astype(np.uint16)
    signed = RNG.integers(-2000, 2000, (20, 30)).astype(np.int16)
    colours = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
    for mine, others in [
        (GREY, GREY.copy()),
        (stretched, floats),
        ((signed.astype(int) + 32768).astype(np.uint16), signed),
        (4095 - DEEP % 4096, DEEP % 4096),
        (colours, (colours >> 8).astype(np.uint8)),
    ]:
        assert corpora.difference(mine, others) == ""


def test_other_pixels(corpora: ModuleType) -> None:
    swapped = COLOUR[..., ::-1].copy()
    off = np.array(DEEP, np.uint16)
    off[0, 3] += 9
    for mine, others in [
        (COLOUR, swapped),
        (COLOUR, 255 - COLOUR),
        (GREY, GREY.T),
        (off, DEEP),
        (RNG.permutation(GREY.ravel()).reshape(GREY.shape), GREY),
    ]:
        assert corpora.difference(mine, others)


def test_a_reader_that_hangs_or_breaks_costs_its_own_file(corpora: ModuleType, tmp_path: Path) -> None:
    def hangs(path: Path) -> None:
        time.sleep(60)

    def breaks(path: Path) -> None:
        raise ZeroDivisionError

    assert corpora.alone(hangs, tmp_path, 1).fault == "not done in 1 s"
    assert "ZeroDivisionError" in corpora.alone(breaks, tmp_path, 9).fault


def test_outcomes(corpora: ModuleType, tmp_path: Path) -> None:
    for name, data, wanted in [
        ("a.png", saved_png(), ["both"]),
        ("a.tga", saved_png("TGA"), ["theirs only"]),
        ("a.tif", tiff(GREY, DEEP), ["both", "both"]),
        ("a.txt", b"text", ["neither"]),
    ]:
        (tmp_path / name).write_bytes(data)
        reads = [corpora.alone(reader, tmp_path / name, 60) for reader in (corpora.theirs, corpora.ours)]
        assert [what for what, _ in corpora.outcomes(*reads)] == wanted and not reads[1].fault


def saved_png(form: str = "PNG") -> bytes:
    from PIL import Image

    return saved(Image.fromarray(COLOUR), form)
