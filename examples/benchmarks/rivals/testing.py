"""Predictions of trained models, their scores per image, and what they cost."""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rows import read_csv, write_csv
from scipy.ndimage import label
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mhvae_cli import Pipeline
from mhvae_cli.evaluation.metrics import measure
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import read_mask, read_scan
from mhvae_cli.images.scan import Scan, scan_of, stored
from mhvae_cli.images.transforms import to_square
from mhvae_cli.inference.loading import load_model
from mhvae_cli.training.datasets import Sample

from . import nnunet
from .nets import RIVALS
from .ours import OURS
from .training import best_weights

PROFILES = ("paper256", "native")
METRICS = ("dice", "hausdorff", "hd95")
SCORES = ("id", "fold", "profile", *METRICS, "components", "holes", "empty")
TIMED = 20
"""Number of images whose time is measured."""
Segmenter = Callable[[Scan], np.ndarray]
"""An upright image to its mask bool (H, W)."""


@dataclass(frozen=True)
class Candidate:
    """A trained model as it is tested: a row of the table. `name` is also the folder of its masks."""

    name: str
    title: str
    encoder: str
    start: str
    looks: int
    segment: Segmenter
    parameters: float
    gflop: float


def candidates(
    name: str,
    folder: Path,
    *,
    size: int,
    channels: int,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> list[Candidate]:
    """A trained rival, or one of ours with one look and with two."""
    if name == nnunet.NAME:
        segment, count = nnunet.segmenter(folder, device, channels, batch_size)
        blank = scan_of(np.zeros((256, 256), np.uint8))
        cost = gflop(lambda: segment(blank))
        return [Candidate(name, "nnU-Net v2", "its own plan", "random", 1, segment, count, cost)]
    if name in RIVALS:
        rival = RIVALS[name]
        net = rival.build(channels, size)
        net.load_state_dict(best_weights(folder))
        net = net.eval()
        cost = gflop(lambda: net(torch.zeros(1, channels, size, size)))
        count = _millions(net.parameters())
        segment = _segmenter(net.to(device), size, channels, device, dtype)
        return [Candidate(name, rival.title, rival.encoder, "random", 1, segment, count, cost)]
    ours = OURS[name]
    model, _ = load_model(folder)
    encoder = model.encoder
    assert encoder.theta is not None
    count = _millions(
        p for part in (encoder.convnet, encoder.reduce, encoder.theta) for p in part.parameters()
    )
    image = torch.zeros(1, channels, size, size)
    cost = gflop(lambda: model.mask(model.locate(image).mean, (size, size)))
    pipeline = Pipeline.load(folder, device=str(device), dtype=str(dtype).removeprefix("torch."))
    title = ours.title if ours.warp else f"{ours.title} ({model.config.warp.family})"
    start = "ImageNet" if ours.start == "imagenet" else "random"
    return [
        Candidate(
            name if looks == 2 else f"{name}-1look",
            f"{title}, {'two looks' if looks == 2 else 'one look'}",
            ours.encoder,
            start,
            looks,
            lambda scan, looks=looks: pipeline.segment(scan, looks=looks).mask,
            count,
            looks * cost,
        )
        for looks in (1, 2)  # the row of two, by which a model counts as tested, is the last
    ]


def gflop(task: Callable[[], object]) -> float:
    """Of convolutions and matrix products, 2 a multiply-add; fused attention is taken apart to be counted."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            task()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return counter.get_total_flops() / 1e9


def predict(candidate: Candidate, test: Sequence[Sample], out: Path) -> float:
    """Write the mask of each image, of the size of its file, to OUT/NAME/pred/; milliseconds per image."""
    seconds = []
    for number, sample in enumerate(test):
        scan = read_scan(sample.image)
        if number == 0:
            candidate.segment(scan)  # the first call is slow
        begun = time.perf_counter()
        mask = candidate.segment(scan)
        if number < TIMED:
            seconds.append(time.perf_counter() - begun)
        write_atomic(
            out / candidate.name / "pred" / f"{sample.id}.png", encode_png(stored(mask, scan.orientation))
        )
    return 1e3 * statistics.median(seconds)


def score(name: str, test: Sequence[Sample], fold: int, out: Path) -> list[dict[str, str]]:
    """The rows of SCORES of the masks in OUT/NAME/pred/, which OUT/NAME/scores.csv keeps."""
    rows = []
    for sample in test:
        assert sample.mask is not None
        truth = read_mask(sample.mask)
        found = read_mask(out / name / "pred" / f"{sample.id}.png")
        pieces, holes = topology(found)
        for profile in PROFILES:
            scores = measure(found, truth, profile=profile)
            figures = (scores.dice, scores.px.hausdorff, scores.px.hd95)
            texts = (sample.id, fold, profile, *(f"{x:.6g}" for x in figures), pieces, holes, int(not pieces))
            rows.append(dict(zip(SCORES, map(str, texts), strict=True)))
    path = out / name / "scores.csv"
    kept = [row for row in read_csv(path) if row["fold"] != str(fold)]
    write_csv(path, SCORES, kept + rows)
    return rows


def topology(mask: np.ndarray) -> tuple[int, int]:
    """The numbers of connected components (8 neighbours) and of holes (4) of a mask bool (H, W)."""
    pieces = label(mask, np.ones((3, 3)))[1]
    ground = label(np.pad(~mask, 1, constant_values=True))[1]
    return pieces, ground - 1


def _segmenter(
    net: nn.Module, size: int, channels: int, device: torch.device, dtype: torch.dtype
) -> Segmenter:
    def segment(scan: Scan) -> np.ndarray:
        square = to_square(scan.pixels, size, channels, window=scan.window)
        image = torch.tensor(square[None], device=device)
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return net.segment(image, scan.pixels.shape[:2])[0]

    return segment


def _millions(parameters: Iterable[nn.Parameter]) -> float:
    return sum(p.numel() for p in parameters) / 1e6
