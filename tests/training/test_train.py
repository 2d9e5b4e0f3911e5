"""Samples of several folders, folds held out, colour found, and what makes a run another run."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mhvae_cli.config import Recipe
from mhvae_cli.errors import InputError, UsageError
from mhvae_cli.training.datasets import discover
from mhvae_cli.training.train import (
    TrainingOptions,
    gather,
    hold_out,
    plan_vae,
)

WORK = TrainingOptions(torch.device("cpu"), torch.float32)


def test_samples_of_several_folders_are_told_apart(phantom_folder: Path, tmp_path: Path) -> None:
    one, two = (shutil.copytree(phantom_folder, tmp_path / name) for name in ("one", "two"))
    alone, both = gather([one]), gather([one, two])
    assert [sample.id for sample in alone] == [sample.id for sample in discover(one)]
    assert [sample.id for sample in both] == [f"{n}/{s.id}" for n in ("one", "two") for s in alone]
    assert {sample.subject.partition("/")[0] for sample in both} == {"one", "two"}
    assert len({sample.subject for sample in both}) == 2 * len({sample.subject for sample in alone})
    with pytest.raises(UsageError, match="two data folders have the same name"):
        gather([one, shutil.copytree(two, tmp_path / "deep" / "one")])


def test_a_fold_is_held_out_whole(phantom_folder: Path) -> None:
    samples = discover(phantom_folder)
    assert hold_out(samples, None) == samples
    rest = hold_out(samples, 1)
    assert rest == [sample for sample in samples if sample.fold != 1] and 0 < len(rest) < len(samples)
    with pytest.raises(UsageError, match="no fold 9"):
        hold_out(samples, 9)


def test_a_run_is_known_by_its_recipe_its_data_and_its_reference(
    phantom_folder: Path, tmp_path: Path
) -> None:
    samples, recipe = discover(phantom_folder), Recipe()
    plan = plan_vae(samples, recipe, WORK, tmp_path)
    assert sorted(s.id for s in plan.train + plan.val) == [s.id for s in samples]
    assert not {s.subject for s in plan.train} & {s.subject for s in plan.val}

    def identity(samples=samples, recipe=recipe, work=WORK, reference=None):
        return plan_vae(samples, recipe, work, tmp_path, reference=reference).run.identity

    assert identity(samples[::-1], work=replace(WORK, workers=0, command="another")) == plan.run.identity
    other = replace(recipe, train=replace(recipe.train, lr=0.5))
    mask = np.ones((3, 4), bool)
    for changed in (identity(samples[1:]), identity(recipe=other), identity(reference=mask)):
        assert changed != plan.run.identity
    assert identity(reference=mask) != identity(reference=mask.T)


def test_one_subject_cannot_be_split(phantom_folder: Path, tmp_path: Path) -> None:
    samples = [replace(sample, subject="one") for sample in discover(phantom_folder)]
    with pytest.raises(InputError, match="too few subjects: 8 images of 1 subject"):
        plan_vae(samples, Recipe(), WORK, tmp_path)
