"""Each fold is tested by a model that never saw it, and what is done is not done again."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mhvae_cli.config import Recipe, from_dict
from mhvae_cli.errors import OutputError, UsageError
from mhvae_cli.evaluation.metrics import dice
from mhvae_cli.images.read import read_mask
from mhvae_cli.training.cross_validation import cross_validate
from mhvae_cli.training.datasets import Sample, discover, folds_of
from mhvae_cli.training.loop import Outcome
from mhvae_cli.training.train import TrainingOptions, train_vae

MODEL = {
    "image_size": 32,
    "z_dim": 4,
    "encoder": {"arch": "resnet18", "width": 0.125, "hidden": 16, "reduce": 4},
    "decoder": {"channels": 8, "max_size": 32},
}
RECIPE = from_dict(Recipe, {"model": MODEL, "train": {"epochs": 1, "batch_size": 2, "val_fraction": 0.3}})
WORK = TrainingOptions(torch.device("cpu"), torch.float32, workers=0)


def run(data: Path, out: Path, callback: Any = lambda event: None, **changed: Any) -> dict[int, Any]:
    given = {"recipe": RECIPE, "work": WORK, "count": 2, "only": None, "profile": "native", **changed}
    recipe, work = given.pop("recipe"), given.pop("work")
    return dict(cross_validate(data, recipe, work, out, callback=callback, **given))


def test_each_fold_is_scored_on_its_own_masks_once(
    phantom_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[list[str]] = []

    def watched(samples: list[Sample], *args: Any, **options: Any) -> Outcome:
        learnt.append([sample.id for sample in samples])
        return train_vae(samples, *args, **options)

    monkeypatch.setattr("mhvae_cli.training.cross_validation.train_vae", watched)
    folds = folds_of(discover(phantom_folder), 2, RECIPE.train.seed)
    found = run(phantom_folder, tmp_path)
    assert learnt == [[sample.id for sample in fold] for fold in reversed(folds)]
    for number, fold in enumerate(folds):
        assert [row.id for row in found[number]] == [sample.id for sample in fold]
        for sample, row in zip(fold, found[number], strict=True):
            pred = read_mask(tmp_path / f"fold{number}-masks" / f"{sample.id}.png")
            assert row.values["dice"] == pytest.approx(dice(pred, read_mask(sample.mask)))
    lost = next((tmp_path / "fold1-masks").iterdir())
    lost.unlink()
    said: list[dict[str, Any]] = []
    again = run(phantom_folder, tmp_path, callback=said.append)
    assert again == found and lost.exists()
    phases = [event["phase"] for event in said if event.get("phase", "").startswith("fold ")]
    assert phases == ["fold 1"]
    with pytest.raises(OutputError, match="cannot resume"):
        run(phantom_folder, tmp_path, recipe=replace(RECIPE, train=replace(RECIPE.train, lr=0.5)))


def test_a_run_out_of_time_yields_where_it_stopped(phantom_folder: Path, tmp_path: Path) -> None:
    """One fold is begun whatever the time, and cut after its first step; the other is not begun."""
    found = run(
        phantom_folder,
        tmp_path,
        recipe=replace(RECIPE, train=replace(RECIPE.train, epochs=9)),
        work=replace(WORK, deadline=0.0),
    )
    assert found == {0: Outcome(False, 1)}
    assert not (tmp_path / "fold0-masks").exists() and not (tmp_path / "fold1").exists()


def test_folds_that_are_none_and_shared_runs_are_refused(
    phantom_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="no fold 2 of 2"):
        run(phantom_folder, tmp_path, only=[2])
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="single process"):
        run(phantom_folder, tmp_path)
    assert not list(tmp_path.iterdir())
