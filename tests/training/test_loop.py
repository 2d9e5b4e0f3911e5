"""The fit loop on a toy: exact resume, EMA, schedule, signals, NaN and a full disk."""

import errno
import io
import math
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy_training import BATCH, CONFIG, COUNT, ToyTask, log_of, quiet, same_run, signal_at, toy_run
from torch import Tensor

from mhvae_cli.checkpoints.tensors import load_tensors
from mhvae_cli.errors import OutputError
from mhvae_cli.training.loop import Diverged, Outcome, fit, order, schedule, seconds_per_step
from mhvae_cli.training.state import STATE


@pytest.mark.parametrize("step", [1, 3, 6, 8, 11])
def test_a_run_cut_anywhere_ends_with_the_same_bits(step: int, whole: Path, tmp_path: Path) -> None:
    cut = fit(ToyTask(tmp_path), toy_run(tmp_path), callback=signal_at(step))
    assert cut == Outcome(False, -(-step // 3), signal.SIGTERM)
    assert load_tensors(tmp_path / STATE)["optimizer.0.step"] == step
    assert fit(ToyTask(tmp_path), toy_run(tmp_path, resume=True), callback=quiet) == Outcome(True, 4)
    same_run(whole, tmp_path)


def test_a_run_cut_at_every_step_ends_with_the_same_bits(whole: Path, tmp_path: Path) -> None:
    run = toy_run(tmp_path, deadline=time.monotonic() - 1)
    stops = [fit(ToyTask(tmp_path), run, callback=quiet)]
    run = toy_run(tmp_path, deadline=time.monotonic() - 1, resume=True)
    while not stops[-1].finished:
        stops.append(fit(ToyTask(tmp_path), run, callback=quiet))
    assert [stop.epoch for stop in stops] == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]
    assert {stop.signal for stop in stops} == {None}
    same_run(whole, tmp_path)


def test_workers_change_nothing(whole: Path, tmp_path: Path) -> None:
    for workers in (0, 5):
        out = tmp_path / str(workers)
        fit(ToyTask(out), toy_run(out, workers=workers), callback=quiet)
        same_run(whole, out)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_handlers_are_given_back(number: int, tmp_path: Path) -> None:
    before = signal.getsignal(number)
    outcome = fit(ToyTask(tmp_path), toy_run(tmp_path), callback=signal_at(2, number))
    assert outcome == Outcome(False, 1, number)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_acts_at_once(tmp_path: Path) -> None:
    def say(event: dict[str, Any]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        fit(ToyTask(tmp_path), toy_run(tmp_path), callback=say)
    assert threading.active_count() == threads
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_in_the_last_step_is_too_late(whole: Path, tmp_path: Path) -> None:
    assert fit(ToyTask(tmp_path), toy_run(tmp_path), callback=signal_at(12)) == Outcome(True, 4)
    same_run(whole, tmp_path)


def test_the_best_and_the_last_are_kept(whole: Path) -> None:
    kept, state = load_tensors(whole / "kept.safetensors"), load_tensors(whole / STATE)
    rows = log_of(whole)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    smoothed = [float(row["smoothed"]) for row in rows]
    scores = [-((epoch - 2.4) ** 2) for epoch in (1, 2, 3, 4)]
    means = [sum(scores[max(0, i - 2) : i + 1]) / len(scores[max(0, i - 2) : i + 1]) for i in range(4)]
    assert smoothed == pytest.approx([min(pair) for pair in zip(scores, means, strict=True)], rel=1e-4)
    best = smoothed.index(max(smoothed))
    assert float(kept["last.bias"]) == pytest.approx(float(rows[best]["val"]), rel=1e-5)
    assert float(state["ema.last.bias"]) == pytest.approx(float(rows[3]["val"]), rel=1e-5)
    assert not torch.equal(kept["conv.weight"], state["ema.conv.weight"])


def test_weights_ema_and_log_are_what_the_formulas_give(whole: Path) -> None:
    """Adam with decoupled decay, clipping, the schedule and the EMA, written out here on their own."""
    task = ToyTask(whole)
    net = task.module.train()
    weights = dict(net.named_parameters())
    first = {k: torch.zeros_like(p) for k, p in weights.items()}
    second = {k: torch.zeros_like(p) for k, p in weights.items()}
    ema = {k: v.clone() for k, v in net.state_dict().items()}
    log, misses = [], []
    for step in range(12):
        epoch = step // 3
        lr = CONFIG.lr * schedule(step / 12, CONFIG.lr_warmup)
        plan = order(COUNT, BATCH, seed=0, epoch=epoch)[step % 3]
        parts = net(task.batch(plan, epoch), step / 12)
        grads = torch.autograd.grad(parts["loss"], list(weights.values()))
        norm = torch.sqrt(sum(g.square().sum() for g in grads))
        assert norm > CONFIG.clip or step > 0  # the first gradient is clipped
        for (name, p), g in zip(weights.items(), grads, strict=True):
            g = g * min(1.0, CONFIG.clip / (float(norm) + 1e-6))
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.999 * second[name] + 0.001 * g * g
            m, v = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.999 ** (step + 1))
            decay = CONFIG.weight_decay if p.ndim > 1 else 0.0
            p.data = p.data * (1 - lr * decay) - lr * m / (v.sqrt() + 1e-8)
        rate = min(CONFIG.ema, (2 + step) / (11 + step))
        for name, value in net.state_dict().items():
            ema[name] = rate * ema[name] + (1 - rate) * value if value.is_floating_point() else value.clone()
        misses.append(parts["miss"].item())
        if step % 3 == 2:
            log.append(sum(misses[-3:]) / 3)
    state = load_tensors(whole / STATE)
    for name, value in net.state_dict().items():
        assert torch.allclose(state[f"model.{name}"].double(), value.double(), atol=2e-5), name
        assert torch.allclose(state[f"ema.{name}"].double(), ema[name].double(), atol=2e-5), name
    assert [float(row["miss"]) for row in log_of(whole)] == pytest.approx(log, rel=1e-3)


def test_the_schedule_rises_and_falls_to_a_hundredth() -> None:
    assert 0 < schedule(0.0, 0.1) < 0.02
    assert schedule(0.05, 0.1) == pytest.approx(0.5, abs=0.01)
    assert schedule(0.1, 0.1) == 1 == schedule(0.0, 0.0)
    assert schedule(0.55, 0.1) == pytest.approx((1 + 0.01) / 2)
    assert schedule(1.0, 0.1) == pytest.approx(0.01)


def test_an_epoch_takes_each_sample_once_in_an_order_of_its_own() -> None:
    plans = [order(13, 4, seed=1, epoch=epoch) for epoch in range(2)]
    for plan in plans:
        flat = [i for batch in plan for i in batch]
        assert [len(batch) for batch in plan] == [4, 4, 4]
        assert len(set(flat)) == 12 and set(flat) <= set(range(13))
    assert plans[0] != plans[1]
    assert plans[0] == order(13, 4, seed=1, epoch=0) != order(13, 4, seed=2, epoch=0)
    (few,) = order(3, 4, seed=0, epoch=0)
    assert len(few) == 4 and set(few) == {0, 1, 2}


def test_a_run_ends_when_validation_stops_improving_and_stays_ended(tmp_path: Path) -> None:
    """The scores fall after the third epoch; the others are not trained, not even when resumed."""
    config = replace(CONFIG, epochs=9, patience=2)
    assert fit(ToyTask(tmp_path), toy_run(tmp_path, config=config), callback=quiet) == Outcome(True, 5)
    assert [row["epoch"] for row in log_of(tmp_path)] == ["1", "2", "3", "4", "5"]
    state = (tmp_path / STATE).read_bytes()
    again = fit(ToyTask(tmp_path), toy_run(tmp_path, config=config, resume=True), callback=quiet)
    assert again == Outcome(True, 5) and (tmp_path / STATE).read_bytes() == state


@pytest.mark.parametrize("step", [2, 5, 10])
def test_validation_every_other_epoch_is_resumed_to_the_bit(step: int, tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=5, validate_every=2)
    fit(ToyTask(tmp_path / "whole"), toy_run(tmp_path / "whole", config=config), callback=quiet)
    rows = log_of(tmp_path / "whole")
    assert [row["epoch"] for row in rows] == ["2", "4", "5"]
    out = tmp_path / "cut"
    fit(ToyTask(out), toy_run(out, config=config), callback=signal_at(step))
    fit(ToyTask(out), toy_run(out, config=config, resume=True), callback=quiet)
    same_run(tmp_path / "whole", out)


def test_a_step_is_timed_without_a_trace(tmp_path: Path) -> None:
    task = ToyTask(tmp_path)
    before = {name: value.clone() for name, value in task.module.state_dict().items()}
    assert 0 < seconds_per_step(task, toy_run(tmp_path)) < 5
    assert all(torch.equal(before[name], value) for name, value in task.module.state_dict().items())
    assert all(parameter.grad is None for parameter in task.module.parameters())


class _BadGradient(torch.autograd.Function):
    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_ctx: Any, grad: Tensor) -> Tensor:
        return grad * math.nan


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
def test_a_loss_that_is_no_number_ends_the_run_and_spoils_nothing(kind: str, tmp_path: Path) -> None:
    """In the sixth step, the last of epoch 2: what epoch 1 left stays."""

    def spoil(call: int) -> Tensor | float:
        if call != 6:
            return 0.0
        return {"nan": math.nan, "inf": math.inf}.get(kind, _BadGradient.apply(task.module.last.bias).sum())

    task = ToyTask(tmp_path, spoil)
    threads, after_one = threading.active_count(), {}

    def say(event: dict[str, Any]) -> None:
        if event.get("step") == 4:
            after_one.update({p.name: p.read_bytes() for p in tmp_path.iterdir()})

    with pytest.raises(Diverged, match=r"epoch 2, step 6") as caught:
        fit(task, toy_run(tmp_path), callback=say)
    assert caught.value.exit_code == 8 and "--lr" in caught.value.hint
    assert after_one.keys() == {STATE, "kept.safetensors", "log.csv"}
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == after_one
    assert threading.active_count() == threads


def test_a_validation_without_numbers_is_not_kept(tmp_path: Path) -> None:
    task = ToyTask(tmp_path)
    task.validate = lambda _ema, epoch: {"val": 1.0, "score": 1.0 if epoch == 1 else math.nan}
    with pytest.raises(Diverged, match="epoch 2"):
        fit(task, toy_run(tmp_path), callback=quiet)
    assert [row["epoch"] for row in log_of(tmp_path)] == ["1"]
    assert load_tensors(tmp_path / STATE)["optimizer.0.step"] == 3


def test_a_full_disk_costs_the_last_state_only(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Disk(io.FileIO):
        def writelines(self, pieces: Any) -> None:
            data = b"".join(pieces)
            again = (tmp_path / STATE).exists() and b"optimizer.0.step" in data[:5000]
            if again and len(log_of(tmp_path)) == 3:
                self.write(data[:1000])
                raise OSError(errno.ENOSPC, "No space left on device")
            self.write(data)

    usual = Path.open

    def opened(path: Path, mode: str = "r", **how: Any) -> Any:
        return Disk(path, mode) if mode == "wb" else usual(path, mode, **how)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(OutputError, match="no space left") as caught:
        fit(ToyTask(tmp_path), toy_run(tmp_path), callback=quiet)
    assert caught.value.exit_code == 7
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.safetensors", "log.csv", STATE]
    monkeypatch.undo()
    assert load_tensors(tmp_path / STATE)["optimizer.0.step"] == 6
    fit(ToyTask(tmp_path), toy_run(tmp_path, resume=True), callback=quiet)
    same_run(whole, tmp_path)


def test_a_fault_in_a_batch_comes_out_as_it_is_and_leaves_no_thread(tmp_path: Path) -> None:
    task, threads = ToyTask(tmp_path), threading.active_count()

    def fail(_indices: list[int], epoch: int) -> Any:
        raise MemoryError("no more") if epoch else RuntimeError("first")

    task.batch = fail
    with pytest.raises(RuntimeError, match="first"):
        fit(task, toy_run(tmp_path), callback=quiet)
    assert threading.active_count() == threads


def test_a_folder_that_cannot_be_written_shows_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    task = ToyTask(tmp_path)
    with pytest.raises(OutputError):
        fit(task, toy_run(tmp_path / "file" / "run"), callback=quiet)
    assert task.module.calls == 0
