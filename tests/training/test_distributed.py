"""Several processes make the run that one makes."""

import signal
import sys
from pathlib import Path

import pytest
import torch
from support.toy_training import log_of
from support.two_processes import two_processes

from mhvae_cli.checkpoints.tensors import load_tensors
from mhvae_cli.training.distributed import any_rank, catch_stop_signals, mean_over_ranks, process_group
from mhvae_cli.training.state import STATE

TWO = """
import sys, torch, warnings
warnings.simplefilter("ignore")
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from support.toy_training import CONFIG, ToyTask, quiet, toy_run, signal_at
from mhvae_cli.errors import UsageError
from mhvae_cli.training import loop
from mhvae_cli.training.loop import fit
from dataclasses import replace
import os, time
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo")
out, first = Path(sys.argv[1]), os.environ["RANK"] == "0"
try:
    fit(ToyTask(out), toy_run(out, config=replace(CONFIG, batch_size=3)), callback=print)
except UsageError as error:
    print(error)
save = loop.save
loop.save = lambda run, state: (time.sleep(0.3), save(run, state))  # on a slow disk
outcome = fit(ToyTask(out), toy_run(out), callback=signal_at(5) if first else print)
assert not outcome.finished and outcome.epoch == 2, outcome
outcome = fit(ToyTask(out), toy_run(out, resume=True), callback=quiet if first else print)
assert outcome.finished
torch.distributed.destroy_process_group()
"""


def test_two_processes_make_the_run_that_one_makes(whole: Path, tmp_path: Path) -> None:
    """Weights, batch-norm statistics, EMA and log, the run cut and resumed in the middle of an epoch."""
    out = tmp_path / "two"
    ends = two_processes([sys.executable, "-c", TWO, str(out), str(Path(__file__).parents[1])])
    for said, _ in ends:
        assert said == "batch size 3 is not divisible by 2 processes\n"  # the second says nothing else
    one, two = load_tensors(whole / STATE), load_tensors(out / STATE)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.allclose(value.double(), two[name].double(), atol=1e-4, rtol=1e-4), name
    for row, other in zip(log_of(whole), log_of(out), strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(
            {k: float(v) for k, v in other.items()}, rel=1e-3, abs=1e-4
        )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_kept_and_the_second_has_its_usual_effect(number: signal.Signals) -> None:
    seen: list[int] = []
    before = signal.signal(number, lambda got, _frame: seen.append(got))
    try:
        with catch_stop_signals() as caught:
            signal.raise_signal(number)
            assert (caught, seen) == ([number], [])
            signal.raise_signal(number)
            assert (caught, seen) == ([number], [number])
        signal.raise_signal(number)
        assert (caught, seen) == ([number], [number] * 2)
    finally:
        signal.signal(number, before)


def test_one_process_agrees_with_itself() -> None:
    with process_group(torch.device("cpu")) as (rank, world):
        assert (rank, world) == (0, 1) and not torch.distributed.is_initialized()
    place = torch.device("cpu")
    assert any_rank(True, place) and not any_rank(False, place)
    assert mean_over_ranks({"loss": 0.5}, place) == {"loss": 0.5}
