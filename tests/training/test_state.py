"""A run's state on disk: what is resumed is the same run, to the layout in memory."""

from pathlib import Path

import pytest
from support.toy_training import Toy, ToyTask, signal_at, toy_run

from mhvae_cli.errors import OutputError, UsageError
from mhvae_cli.training.loop import fit
from mhvae_cli.training.state import check_output_folder


def test_the_moments_keep_their_layout_on_disk_and_back(tmp_path: Path) -> None:
    from mhvae_cli.training.state import start_or_resume

    fit(ToyTask(tmp_path), toy_run(tmp_path), callback=signal_at(2))
    live = start_or_resume(Toy(), toy_run(tmp_path, resume=True))
    moments = live.optimizer.state[live.module.conv.weight]
    assert moments["exp_avg"].stride() == live.module.conv.weight.stride() != (27, 9, 3, 1)


def test_check_out_wants_an_empty_place_or_the_same_run(whole: Path, tmp_path: Path) -> None:
    check_output_folder(toy_run(tmp_path))
    check_output_folder(toy_run(tmp_path / "new"))
    check_output_folder(toy_run(whole, resume=True))
    with pytest.raises(OutputError, match="not empty") as caught:
        check_output_folder(toy_run(whole))
    assert "--resume" in caught.value.hint
    with pytest.raises(UsageError, match="nothing to resume"):
        check_output_folder(toy_run(tmp_path, resume=True))
    with pytest.raises(OutputError, match="cannot resume: kind was toy, is now") as caught:
        check_output_folder(toy_run(whole, resume=True, identity={"kind": {"deep": 1}}))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty") as caught:
        check_output_folder(toy_run(tmp_path))
    assert "new folder" in caught.value.hint
