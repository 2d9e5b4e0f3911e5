"""The training state on disk, and how a run is started or resumed from it."""

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
    """Where and how a model is trained.

    `identity` holds the settings and data that must not change when the run is resumed; `deadline` is the
    time of `time.monotonic` at which to stop.
    """

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
    """The progress of a run: `sums` of the loss terms since the last validation; the scores of the `recent`
    validations, the `best` smoothed one, and the number of validations since (`stale`)."""

    step: int = 0
    best: float = -math.inf
    recent: list[float] = field(default_factory=list)
    stale: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainerState:
    """Everything that a training step changes."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: dict[str, Tensor]
    counters: Counters


def check_output_folder(run: TrainingRun) -> None:
    """Check that the output folder is empty, or holds the run to resume.

    Raises OutputError for a folder in use or a run with other settings, UsageError for nothing to resume.
    """
    state = run.out / STATE
    if not run.resume:
        if run.out.exists() and (not run.out.is_dir() or any(run.out.iterdir())):
            hint = "use --resume to continue its run" if state.exists() else "choose a new folder"
            raise OutputError(f"{run.out}: exists and is not empty", hint=hint)
        return
    if not state.exists():
        raise UsageError(f"{run.out}: nothing to resume", hint="omit --resume to start a new run")
    texts = read_metadata(state)
    if "identity" not in texts:
        raise OutputError(f"{state}: not a training state")
    before = _flatten(json.loads(texts["identity"]))
    now = _flatten(json.loads(json.dumps(run.identity)))  # through JSON: tuples become lists
    if changed := sorted(key for key, value in before.items() if key not in now or now[key] != value):
        changes = "; ".join(f"{key} was {before[key]}, is now {now.get(key)}" for key in changed[:4])
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        hint = "resume with the options that the run was started with"
        raise OutputError(f"{run.out}: cannot resume: {changes}{more}", hint=hint)


def stored_length(out: Path) -> dict[str, Any]:
    """What `automatic.in_time` made of the length of the run in `out`; empty if there is none."""
    texts = read_metadata(out / STATE) if (out / STATE).exists() else {}
    train = json.loads(texts.get("identity", "{}")).get("train", {})
    return {name: train[name] for name in ("epochs", "validate_every", "lr_warmup") if name in train}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat


def start_or_resume(module: nn.Module, run: TrainingRun) -> TrainerState:
    """The state of a new run of `module`, or the one on disk."""
    module = module.to(run.device)
    optimizer = torch.optim.AdamW(_decay_groups(module, run.config.weight_decay), lr=run.config.lr)
    scaler = torch.amp.GradScaler(run.device.type, enabled=run.dtype == torch.float16)
    ema = {name: value.detach().clone() for name, value in module.state_dict().items()}
    state = TrainerState(module, optimizer, scaler, ema, Counters())
    return _restore(run, state) if run.resume else state


def save(run: TrainingRun, state: TrainerState) -> None:
    """Write the state atomically. Raises OutputError if that fails."""
    tensors = {f"model.{k}": v for k, v in state.module.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in state.ema.items()}
    for i, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in moments.items()}
    counters = vars(state.counters)
    if math.isinf(state.counters.best):
        counters = {**counters, "best": None}  # JSON has no infinity
    texts = {"place": counters, "identity": dict(run.identity), "scaler": state.scaler.state_dict()}
    save_state(run.out / STATE, tensors, {name: json.dumps(value) for name, value in texts.items()})


def _restore(run: TrainingRun, state: TrainerState) -> TrainerState:
    """Load the state on disk into `state`."""
    path = run.out / STATE
    tensors, texts = load_tensors(path), read_metadata(path)
    state.module.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    for name in state.ema:
        state.ema[name].copy_(tensors[f"ema.{name}"])
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    optimizer = state.optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, i, name = key.split(".")
            like = parameters[int(i)] if value.ndim else value
            # The memory layout of the parameter makes a resumed run bit-identical, and as fast.
            optimizer["state"].setdefault(int(i), {})[name] = torch.empty_like(like).copy_(value)
    state.optimizer.load_state_dict(optimizer)
    if scaler := json.loads(texts.get("scaler", "{}")):
        state.scaler.load_state_dict(scaler)
    counters = json.loads(texts["place"])
    counters["best"] = -math.inf if counters["best"] is None else counters["best"]
    return replace(state, counters=Counters(**counters))


def _decay_groups(module: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameter groups with weight decay for matrices and kernels, and without for biases and norms."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
