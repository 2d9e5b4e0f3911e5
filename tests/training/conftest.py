"""What the tests of training share: a toy's whole run."""

from pathlib import Path

import pytest
from support.toy_training import ToyTask, quiet, toy_run

from mhvae_cli.training.loop import Outcome, fit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four epochs in one go."""
    out = tmp_path_factory.mktemp("toy") / "whole"
    assert fit(ToyTask(out), toy_run(out), callback=quiet) == Outcome(True, 4)
    return out
