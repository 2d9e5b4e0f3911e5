"""examples/training/near_twins.py: what resembles each other is held out together."""

import csv
import runpy
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "training" / "near_twins.py"


def _picture(seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(levels).resize((160, 120), Image.Resampling.BICUBIC)


def _folder(folder: Path, pictures: dict[str, Image.Image], folds: dict[str, int]) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for name, picture in pictures.items():
        picture.save(folder / "images" / f"{name}.png")
        Image.new("L", picture.size, 255).save(folder / "masks" / f"{name}.png")
    if folds:
        lines = [f"{name},{fold}" for name, fold in folds.items()]
        (folder / "index.csv").write_text("\n".join(["id,fold", *lines]))
    return folder


def test_twins_share_a_subject_and_the_highest_fold(tmp_path: Path) -> None:
    pictures = {f"p{seed}": _picture(seed) for seed in range(4)}
    pictures["again"] = pictures["p1"].filter(ImageFilter.GaussianBlur(2)).resize((80, 80))
    folds = {"p0": 0, "p1": 1, "p2": 2, "p3": 3, "again": 3}
    first = _folder(tmp_path / "isic", pictures, folds)
    others = {"brighter": pictures["p2"].point(lambda level: level // 2 + 100), "alone": _picture(9)}
    second = _folder(tmp_path / "ham", others, {})
    runpy.run_path(str(SCRIPT))["main"](tmp_path / "out", [first, second])
    rows = {}
    for name in ("isic", "ham"):
        with open(tmp_path / "out" / name / "index.csv", newline="") as file:
            rows |= {row["id"]: row for row in csv.DictReader(file)}
    assert (tmp_path / "out" / "ham" / "images" / "alone.png").is_symlink()
    found = {name: row["fold"] for name, row in rows.items()}
    assert found == {"p0": "0", "p1": "3", "again": "3", "p2": "2", "p3": "3", "brighter": "2", "alone": ""}
    assert rows["p1"]["subject"] == rows["again"]["subject"]
    assert rows["p2"]["subject"] == rows["brighter"]["subject"]
    assert len({row["subject"] for row in rows.values()}) == 5
