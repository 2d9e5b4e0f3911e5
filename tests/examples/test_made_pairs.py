"""The benchmark on made pairs: what the generator sees, even batches, what pairs are worth, and resuming."""

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from support.scripts import benchmark

from mhvae_cli.config import AugmentConfig, DecoderConfig, EncoderConfig
from mhvae_cli.training.datasets import Sample


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with benchmark("made_pairs") as module:
        yield module


@pytest.fixture(scope="module")
def table(bench: ModuleType) -> ModuleType:
    return sys.modules["worth"]


def test_batches_show_every_image_as_often(bench: ModuleType) -> None:
    fit = bench.Fit(steps=7, lr=1e-3, augment=AugmentConfig(), seed=1, batch=8)
    batches = list(sys.modules["steps"].batches([3, 5, 8, 9, 12], fit))
    assert [len(batch) for batch in batches] == [8] * 7
    counts = Counter(index for batch in batches for index in batch)
    assert set(counts) == {3, 5, 8, 9, 12} and max(counts.values()) - min(counts.values()) <= 1


def test_an_arm_takes_its_pairs(bench: ModuleType) -> None:
    def pair(name: str, dice: float) -> tuple[Sample, float]:
        return Sample(name, Path(), None, name, None), dice

    pairs = {
        "carried": [pair("a", 0.1), pair("b", 0.2)],
        "sample": [pair("c", 0.8), pair("d", 0.9), pair("e", 0.95), pair("f", 0.99)],
    }
    expected = {"real": "", "carried": "ab", "samples-1": "cd", "samples-1-good": "de"}
    expected |= {"samples-4": "cdef", "samples-4-good": "def"}
    found = {arm: "".join(sample.id for sample in bench.chosen(arm, pairs, 2)) for arm in bench.ARMS}
    assert found == expected


@pytest.mark.parametrize(
    "dice, expected", [(0.4, "< 10"), (0.5, "10"), (0.6, "20"), (0.7, "40"), (0.75, "77"), (0.9, "> 100")]
)
def test_what_a_dice_is_worth(table: ModuleType, dice: float, expected: str) -> None:
    """.5 with 10, .7 with 40: .6 is worth their geometric mean, 20. 60 images count as no worse than 40."""
    assert table.worth([(10, 0.5), (40, 0.7), (60, 0.65), (100, 0.8)], dice) == expected


def test_the_table_compares_the_same_seeds(table: ModuleType) -> None:
    def row(images: int, seed: int, arm: str, made: int, dice: float) -> dict[str, str]:
        values = {"images": images, "seed": seed, "segmenter": "unet", "arm": arm, "made": made, "dice": dice}
        return {name: str(value) for name, value in values.items()}

    rows = [row(10, 0, "real", 0, 0.5), row(10, 1, "real", 0, 0.7), row(40, 0, "real", 0, 0.8)]
    rows += [row(10, 0, "carried", 20, 0.65), row(10, 1, "carried", 18, 0.75)]
    *_, last = table.compared(rows)
    assert last[:5] == ["unet", "carried", "10", "19", "2"]
    assert last[5:] == ["0.700 (0.650 to 0.750)", "+0.100 (+0.050 to +0.150)", "20"]
    assert table.charts(rows).shape == (2 * 420, 640, 3)


def test_the_small_unet_segments_what_it_was_shown(bench: ModuleType) -> None:
    unet = sys.modules["small_unet"].SmallUNet(3)
    assert unet(torch.zeros(2, 3, 32, 32)).shape == (2, 1, 32, 32)
    assert 1e5 < sum(parameter.numel() for parameter in unet.parameters()) < 1e6


def test_the_generator_sees_no_other_mask_and_a_cut_run_goes_on(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs, seen, begun = sys.modules["pairs"], {}, []
    generator, train_cddpm, train = pairs.generator, pairs.train_cddpm, bench.train

    def watched_generator(
        folder: Path, position: Path, config: Any, images: Any, *rest: Any, **how: Any
    ) -> Path:
        seen["masks"] = {sample.id for sample in images.samples}
        return generator(folder, position, config, images, *rest, **how)

    def watched_cddpm(model: Path, samples: list[Sample], *rest: Any, **how: Any) -> Any:
        seen["images"], seen["start"] = samples, how["start"]
        return train_cddpm(model, samples, *rest, **how)

    def watched_train(name: str, *rest: Any) -> Any:
        begun.append(name)
        if len(begun) == 4:
            raise KeyboardInterrupt
        return train(name, *rest)

    monkeypatch.setattr(bench, "generator", watched_generator)
    monkeypatch.setattr(pairs, "train_cddpm", watched_cddpm)
    monkeypatch.setattr(bench, "train", watched_train)
    recipe_of = bench.recipe_of

    def tiny(samples: list[Sample], size: int) -> Any:
        recipe = recipe_of(samples, size)
        encoder = EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=16)
        small = {"z_dim": 4, "encoder": encoder, "decoder": DecoderConfig(channels=8, max_size=32)}
        return replace(recipe, model=replace(recipe.model, **small), start="scratch")

    monkeypatch.setattr(bench, "recipe_of", tiny)
    monkeypatch.setattr(pairs, "TONES", 8)
    monkeypatch.setitem(pairs.CDDPM["diffusion"], "unet", {"channels": 8, "levels": 2, "blocks": 1})
    arms = ["real", "carried", "samples-4"]
    given = [
        str(tmp_path),
        "--smoke",
        "--size",
        "32",
        "--counts",
        "6",
        "--segmenters",
        "unet",
        "--arms",
        *arms,
    ]
    monkeypatch.setattr(sys, "argv", ["made_pairs.py", *given])
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    assert begun == ["unet", "ours", "unet", "unet"]  # `ours` is the generator's position part
    samples = bench.discover(tmp_path / "phantoms")
    assert len(seen["masks"]) == 6 and seen["start"] == "scratch"
    assert all(sample.mask is None and sample.fold != 3 for sample in seen["images"])
    assert {sample.fold for sample in samples if sample.id in seen["masks"]} <= {0, 1, 2}
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "seed0-6").rglob("*.*")}
    assert len([path for path in made if path.parent.name == "masks"]) > 12

    begun[:] = ["", "", "", ""]
    bench.main()
    assert begun[4:] == ["unet"]
    assert {path: path.stat().st_mtime_ns for path in made} == made
    rows = bench.read_csv(tmp_path / "made_pairs.csv")
    assert [row["arm"] for row in rows] == arms and {row["test"] for row in rows} == {"4"}
    assert rows[0]["made"] == "0" and 6 < int(rows[1]["made"]) <= 12
    assert (tmp_path / "made_pairs.png").exists()
    assert (tmp_path / "made_pairs.md").read_text().startswith("| Segmenter | Arm | N |")
    assert "carried" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["made_pairs.py", *given, "--steps", "4"])
    with pytest.raises(SystemExit):
        bench.main()
    assert capsys.readouterr().err.endswith("made_pairs.csv has trainings of other --steps\n")


def test_carried_pairs_begin_from_the_true_mask(
    bench: ModuleType, tiny_refined: Path, phantom_folder: Path
) -> None:
    from mhvae_cli import Pipeline
    from mhvae_cli.evaluation.metrics import dice
    from mhvae_cli.images.read import read_mask

    pipeline, pairs = Pipeline.load(tiny_refined, device="cpu", dtype="float32"), sys.modules["pairs"]
    samples = bench.discover(phantom_folder)[:3]
    found = []
    for sample in samples:
        code = pairs.true_source(pipeline, sample).code
        found.append(dice(pipeline.networks.mask_of(code), read_mask(sample.mask)))
    assert min(found) > 0.95  # a model of random weights finds nothing of the kind
    names = [name for name, draft in pairs.carried(pipeline, samples, 0)]
    assert names == ["warp_0000", "swap_0000", "warp_0001", "swap_0001", "warp_0002", "swap_0002"]


def test_an_unknown_fold_and_too_few_images_are_one_line(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["made_pairs.py", str(tmp_path), "--smoke", "--fold", "9"])
    with pytest.raises(SystemExit) as stopped:
        bench.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: no fold 9 in index.csv\n"
    monkeypatch.setattr(sys, "argv", ["made_pairs.py", str(tmp_path), "--smoke", "--counts", "99"])
    with pytest.raises(SystemExit) as stopped:
        bench.main()
    assert stopped.value.code == 2 and "15 images outside fold 3" in capsys.readouterr().err


def test_masks_of_the_unet_have_the_native_size(bench: ModuleType) -> None:
    class Left(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = -torch.ones(1, 1, 8, 8)
            logits[..., :4] = 1
            return logits

    found = bench._unet_mask(Left(), np.zeros((3, 8, 8), np.float32), (30, 40))
    assert found.shape == (30, 40) and found[:, :20].all() and not found[:, 20:].any()
