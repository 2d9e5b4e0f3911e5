"""nnU-Net v2 (Isensee et al. 2021), 2-D: its own planner, augmentation, loss, optimiser and inference.

What a lab would take instead. On equal terms are the images, their split, and the time or number of images.
The batch is the planned one, but at most ours: what is planned for a GPU of 8 GB can take minutes a step on a
CPU. The poly schedule follows the budget instead of 1,000 epochs. Planning and preprocessing are not counted;
an epoch here is some EPOCH seconds, and the weights are those of nnU-Net's best one.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mhvae_cli.errors import UsageError
from mhvae_cli.filesystem import place, write_atomic
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.images.scan import Scan, upright
from mhvae_cli.images.transforms import shown_by, to_uint8
from mhvae_cli.training.distributed import catch_stop_signals

from .torchvision_stub import stub_torchvision
from .training import Budget, Data, Stopped, Tell, Timer, Trained, finish

NAME, DATASET, PLANS = "nnunet", "Dataset001_rivals", "nnUNetPlans"
INSTALL = "the two commands are in examples/benchmarks/rivals/requirements-nnunet.txt"
EPOCH = 50.0
VALIDATION_SHARE = 5
"""A validation batch for so many of training, as in nnU-Net."""
LATEST, BEST = "checkpoint_latest.pth", "checkpoint_best.pth"
RESUMED, COUNTERS = "resumed.pth", "counters.json"


def check_installed() -> None:
    """UsageError if nnU-Net is missing."""
    if find_spec("nnunetv2") is None:
        raise UsageError("not installed: nnunetv2", hint=INSTALL)


def train(
    data: Data, budget: Budget, out: Path, *, channels: int, device: torch.device, seed: int, tell: Tell
) -> Trained:
    """Plan, preprocess and train, or go on with the training in `out`. Raises Stopped after a signal."""
    with _environment(out):
        if not (out / "prepared").exists():
            tell("planning and preprocessing")
            _prepare(data, out, channels)
        os.environ |= {"nnUNet_n_proc_DA": "0"}
        torch.manual_seed(seed)
        np.random.seed(seed)
        trainer = _trainer(out, device, data.batch_size)
        counters = Trained()
        if (out / COUNTERS).exists():
            trainer.load_checkpoint(str(out / RESUMED))
            counters = Trained(**json.loads((out / COUNTERS).read_text()))
            tell(f"goes on after {counters.steps} steps, {counters.seconds / 60:.1f} min")
        with open(out / "nnunet.txt", "a") as log, redirect_stdout(log):
            trainer.on_train_start()
        clock = Timer(counters.seconds)
        with catch_stop_signals() as caught, open(out / "nnunet.txt", "a") as log, redirect_stdout(log):
            while budget.progress(counters.seconds, counters.images) < 1:
                dice = _epoch(trainer, budget, counters, clock, caught)
                with clock.paused():
                    trainer.on_epoch_end()
                    place(_folder(trainer) / LATEST, out / RESUMED)  # which a cut cannot leave half written
                    write_atomic(out / COUNTERS, json.dumps(asdict(counters)).encode())
                    tell(f"{counters.steps} steps, {counters.seconds / 60:.1f} min: Dice {dice:.4f}")
                if caught:
                    raise Stopped(caught[0])
    finish(out, counters)
    return counters


def segmenter(out: Path, device: torch.device, channels: int, batch_size: int) -> tuple[Any, float]:
    """Segments an image as nnU-Net does by default, mirrored in turn; and millions of parameters."""
    with _environment(out):
        trainer = _trainer(out, device, batch_size)
        trainer.load_checkpoint(str(_folder(trainer) / BEST))
    trainer.set_deep_supervision_enabled(False)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=device, perform_everything_on_device=False, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        [trainer.network.state_dict()],
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )

    def segment(scan: Scan) -> np.ndarray:
        planes = _planes(scan, channels)[:, None].astype(np.float32)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            found = predictor.predict_single_npy_array(planes, {"spacing": (999, 1, 1)})
        return np.asarray(found)[0] == 1

    return segment, sum(p.numel() for p in trainer.network.parameters()) / 1e6


def _epoch(trainer: Any, budget: Budget, counters: Trained, clock: Any, caught: list[int]) -> float:
    """Train for some EPOCH seconds and validate; the Dice of the validation patches."""
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    begun, losses = counters.seconds, []
    while not losses or (counters.seconds - begun < EPOCH and not caught):
        progress = budget.progress(counters.seconds, counters.images)
        if progress >= 1:
            break
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - progress) ** 0.9
        losses.append(trainer.train_step(next(trainer.dataloader_train)))
        counters.steps += 1
        counters.images += trainer.batch_size
        counters.seconds = clock.seconds
    trainer.on_train_epoch_end(losses)
    with torch.no_grad():
        trainer.on_validation_epoch_start()
        batches = range(max(1, len(losses) // VALIDATION_SHARE))
        found = [trainer.validation_step(next(trainer.dataloader_val)) for _ in batches]
        trainer.on_validation_epoch_end(found)
    counters.seconds = clock.seconds
    return float(trainer.logger.get_value("mean_fg_dice", step=-1))


def _prepare(data: Data, out: Path, channels: int) -> None:
    """Write the images as nnU-Net wants them, plan, preprocess, and note the split."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    raw, samples = out / "raw" / DATASET, [*data.train.samples, *data.val.samples]
    for sample in samples:
        assert sample.mask is not None
        scan = read_scan(sample.image)
        planes = _planes(scan, channels)
        image = planes[0] if channels == 1 else np.moveaxis(planes, 0, 2)
        mask = upright(read_mask(sample.mask), scan.orientation).astype(np.uint8)
        write_atomic(raw / "imagesTr" / f"{sample.id}_0000.png", encode_png(np.ascontiguousarray(image)))
        write_atomic(raw / "labelsTr" / f"{sample.id}.png", encode_png(mask))
    described = {
        "channel_names": {str(number): f"channel {number}" for number in range(channels)},
        "labels": {"background": 0, "object": 1},
        "numTraining": len(samples),
        "file_ending": ".png",
    }
    write_atomic(raw / "dataset.json", json.dumps(described).encode())
    with open(out / "nnunet.txt", "a") as log, redirect_stdout(log):
        extract_fingerprints([1], num_processes=1, show_progress_bar=False, verbose=False)
        plan_experiments([1])
        preprocess([1], configurations=("2d",), num_processes=(1,), show_progress_bar=False)
    split = {
        name: [sample.id for sample in part.samples]
        for name, part in (("train", data.train), ("val", data.val))
    }
    write_atomic(out / "preprocessed" / DATASET / "splits_final.json", json.dumps([split]).encode())
    write_atomic(out / "prepared", b"")


def _trainer(out: Path, device: torch.device, batch_size: int) -> Any:
    """nnU-Net's trainer of the plan in `out`."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    prepared = out / "preprocessed" / DATASET
    plans = json.loads((prepared / f"{PLANS}.json").read_text())
    plan = plans["configurations"]["2d"]
    plan["batch_size"] = min(plan["batch_size"], batch_size)
    plans["continue_training"] = False  # `train` says so by loading the state
    described = json.loads((prepared / "dataset.json").read_text())
    with open(out / "nnunet.txt", "a") as log, redirect_stdout(log):
        trainer = nnUNetTrainer(plans, "2d", 0, described, device=device)
        trainer.save_every = 1
        trainer.initialize()
    return trainer


def _folder(trainer: Any) -> Path:
    return Path(trainer.output_folder)


def _planes(scan: Scan, channels: int) -> np.ndarray:
    """The image as uint8 (C, H, W)."""
    planes = np.moveaxis(np.atleast_3d(to_uint8(scan.pixels, scan.window)), 2, 0)
    return np.rint(shown_by(planes, channels)).astype(np.uint8)


@contextmanager
def _environment(out: Path) -> Iterator[None]:
    """nnU-Net's folders within `out`; no processes of its own, and no compiler."""
    check_installed()
    stub_torchvision()
    folders = {f"nnUNet_{name}": str(out.resolve() / name) for name in ("raw", "preprocessed", "results")}
    # The planner takes it as a number of threads, which cannot be 0; `train` sets it to 0.
    os.environ |= folders | {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f"}
    yield
