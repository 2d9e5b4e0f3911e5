"""The advice at the end of a training follows from its figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mhvae_cli.training.report import advise, report_cddpm


def box(width: int) -> np.ndarray:
    mask = np.zeros((96, 96), bool)
    mask[30:60, 30 : 30 + width] = True
    return mask


def ellipse() -> np.ndarray:
    rows, columns = np.mgrid[:96, :96]
    return np.hypot((rows - 40) / 20, (columns - 50) / 30) <= 1


def log(*, dice: float = 0.9, val_dice: float = 0.9, rise: float = 0.0) -> list[dict[str, float]]:
    smoothed = np.linspace(0.8, 0.8, 8) + rise * (np.arange(8) > 6)
    return [
        {"epoch": float(4 * i), "dice": dice, "val_dice": val_dice, "smoothed": s}
        for i, s in enumerate(smoothed, 1)
    ]


@pytest.mark.parametrize(
    ("rows", "family", "masks", "dice", "said"),
    [
        (log(), "affine", [ellipse()], 0.9, "no change"),
        (log(), "affine", [box(30)], 0.94, "--warp tps: ellipses agree"),
        (log(), "affine", [box(30)], 0.8, "no change"),  # the ellipse is not what limits it
        (log(), "tps", [ellipse()], 0.9, "--warp affine"),
        (log(rise=0.02), "tps", [box(30)], 0.9, "--epochs 64"),
        (log(dice=0.95), "tps", [box(30)], 0.9, "more images: its Dice is 0.950 on the 270 images"),
    ],
)
def test_advice_follows_from_the_figures(rows: Any, family: Any, masks: Any, dice: float, said: str) -> None:
    (line,) = advise(rows, dice, family, masks, trained_on=270)
    assert said in line


def test_there_are_two_lines_at_most() -> None:
    found = advise(log(dice=0.99, rise=0.1), 0.94, "affine", [box(30)], trained_on=9)
    assert [line.split()[0] for line in found] == ["--warp", "a"]


@pytest.mark.parametrize(("losses", "longer"), [([0.9, 0.7, 0.5, 0.4], True), ([0.9, 0.5, 0.4, 0.4], False)])
def test_a_cddpms_report_says_how_far_it_has_come(losses: list[float], longer: bool, tmp_path: Path) -> None:
    rows = [f"{i},1.0,{loss},{loss}" for i, loss in enumerate(losses, 1)]
    (tmp_path / "log.csv").write_text("\n".join(["epoch,seconds,loss,val_loss", *rows]) + "\n")
    (tmp_path / "sheets").mkdir()
    for epoch in (1, 4):
        (tmp_path / "sheets" / f"epoch{epoch:04d}.png").write_bytes(b"")
    told: list[str] = []
    report_cddpm(tmp_path, lambda event: told.append(event["phase"]))
    assert told[0] == "validation loss 0.900 at first, 0.400 at best" and "epoch0004.png" in told[1]
    assert ("--epochs 8" in told[-1]) == longer
    assert (tmp_path / "sheets" / "curves.png").stat().st_size > 0
