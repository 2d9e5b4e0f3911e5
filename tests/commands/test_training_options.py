"""Options of training: nested flags, times to stop at, and how a training ends."""

import signal
import time
from pathlib import Path

import pytest
import typer

from mhvae_cli.commands.training_options import end_training, nest_keys, parse_max_time
from mhvae_cli.errors import UsageError
from mhvae_cli.training.loop import Outcome


def test_flags_that_were_given_are_nested() -> None:
    given = {"train.lr": 0.1, "train.loss.contour": 0.0, "model.z_dim": None, "start": "x"}
    assert nest_keys(given) == {"train": {"lr": 0.1, "loss": {"contour": 0.0}}, "start": "x"}
    assert nest_keys({"model.z_dim": None}) == {}


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200)])
def test_a_time_is_from_now(text: str, seconds: float) -> None:
    before = time.monotonic()
    limit = parse_max_time(text)
    assert limit is not None and before + seconds <= limit <= time.monotonic() + seconds


def test_no_time_is_no_limit_and_nonsense_is_refused() -> None:
    assert parse_max_time(None) is None
    for text in ("", "soon", "0", "-1h", "infs", "nan", "2d"):
        with pytest.raises(UsageError, match="not a duration"):
            parse_max_time(text)


def test_the_folder_is_payload_and_a_stop_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    end_training(Outcome(True, 3), Path("run"), quiet=False)
    assert capsys.readouterr() == ("run\n", "")
    end_training(Outcome(False, 2), Path("run"), quiet=False)
    assert capsys.readouterr() == ("", "stopped in epoch 2; resume with --resume\n")
    end_training(Outcome(False, 0), Path("run"), quiet=True)
    assert capsys.readouterr() == ("", "")
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(typer.Exit) as caught:
            end_training(Outcome(False, 1, number), Path("run"), quiet=True)
        assert caught.value.exit_code == 128 + number


def test_other_processes_of_a_run_say_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    end_training(Outcome(True, 3), Path("run"), quiet=False)
    end_training(Outcome(False, 3), Path("run"), quiet=False)
    assert capsys.readouterr() == ("", "")
