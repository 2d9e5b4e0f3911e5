"""A training run's state on disk: everything that a step changes, and the run's identity."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.tensors import load_tensors, read_metadata, save_state
from ..config import FitConfig
from ..errors import OutputError, UsageError

STATE = "state.safetensors"


@dataclass(frozen=True)
class TrainingRun:
    """Where and how one training runs. `identity` is what a resumed run must share with the first; `deadline`
    is a time of `time.monotonic` to stop at."""

    out: Path
    config: FitConfig
    identity: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    resume: bool = False
    deadline: float | None = None
    workers: int = 2


@dataclass
class Counters:
    """How far a run has come; `sums` are the epoch's loss parts so far, `best` the best validation score."""

    step: int = 0
    best: float = -math.inf
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainerState:
    """Everything that a step changes, as stored on disk."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: dict[str, Tensor]
    place: Counters


def check_out(run: TrainingRun) -> None:
    """Reject a folder that is not empty, and one to resume that has no run or another run."""
    state = run.out / STATE
    if not run.resume:
        if run.out.exists() and (not run.out.is_dir() or any(run.out.iterdir())):
            hint = "--resume goes on with it" if state.exists() else "name a new folder"
            raise OutputError(f"{run.out}: exists and is not empty", hint=hint)
        return
    if not state.exists():
        raise UsageError(f"{run.out}: nothing to resume", hint="leave out --resume to begin a run")
    texts = read_metadata(state)
    if "identity" not in texts:
        raise OutputError(f"{state}: not the state of a run")
    before, now = _flat(json.loads(texts["identity"])), _flat(json.loads(json.dumps(run.identity)))
    if changed := sorted(key for key, value in before.items() if key not in now or now[key] != value):
        first = "; ".join(f"{key} is {before[key]} there, {now.get(key)} here" for key in changed[:4])
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        hint = "resume with the options it was begun with"
        raise OutputError(f"{run.out}: another run: {first}{more}", hint=hint)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def begin(module: nn.Module, run: TrainingRun) -> TrainerState:
    """A fresh start with `module`, or where the state on disk stands."""
    module = module.to(run.device)
    optimizer = torch.optim.AdamW(_decay_groups(module, run.config.weight_decay), lr=run.config.lr)
    scaler = torch.amp.GradScaler(run.device.type, enabled=run.dtype == torch.float16)
    ema = {name: value.detach().clone() for name, value in module.state_dict().items()}
    live = TrainerState(module, optimizer, scaler, ema, Counters())
    return _restored(run, live) if run.resume else live


def save(run: TrainingRun, live: TrainerState) -> None:
    """Write the state atomically. OutputError if that fails."""
    tensors = {f"model.{k}": v for k, v in live.module.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in live.ema.items()}
    for i, moments in live.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
    place = {**vars(live.place), "best": None if math.isinf(live.place.best) else live.place.best}
    texts = {"place": place, "identity": dict(run.identity), "scaler": live.scaler.state_dict()}
    save_state(run.out / STATE, tensors, {name: json.dumps(value) for name, value in texts.items()})


def _restored(run: TrainingRun, live: TrainerState) -> TrainerState:
    """`live` with everything in the state on disk."""
    path = run.out / STATE
    tensors, texts = load_tensors(path), read_metadata(path)
    live.module.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    for name in live.ema:
        live.ema[name].copy_(tensors[f"ema.{name}"])
    parameters = [p for each in live.optimizer.param_groups for p in each["params"]]
    state = live.optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            like = parameters[int(i)] if value.ndim else value
            # In the parameter's memory layout: the same bits as without the stop, and as fast.
            state["state"].setdefault(int(i), {})[name] = torch.empty_like(like).copy_(value)
    live.optimizer.load_state_dict(state)
    if scaling := json.loads(texts.get("scaler", "{}")):
        live.scaler.load_state_dict(scaling)
    place = json.loads(texts["place"])
    place["best"] = -math.inf if place["best"] is None else place["best"]
    return replace(live, place=Counters(**place))


def _decay_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices and kernels only, not on biases and norms."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
