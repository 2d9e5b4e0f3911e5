"""The benchmark against DiffuseVAE: a small run, cut and resumed, and its table and charts."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from support.scripts import benchmark

from mhvae_cli.checkpoints.folder import read_config


@pytest.fixture(scope="module")
def bench() -> Iterator[ModuleType]:
    with benchmark("diffusevae") as module:
        yield module


def small(network: torch.nn.Module, squares: np.ndarray) -> np.ndarray:
    """Features of images (N, C, S, S): 64 of their pixels."""
    return squares[:, 0, ::8, ::8].reshape(len(squares), -1).astype(np.float64)


def test_two_methods_are_trained_and_measured_and_a_cut_run_goes_on(
    bench: ModuleType,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    measured, begun = bench.measured, []

    def watched(args: Any, method: str, *rest: Any) -> Any:
        begun.append(method)
        if len(begun) == 2:
            raise KeyboardInterrupt
        return measured(args, method, *rest)

    monkeypatch.setattr(bench, "load", lambda path: torch.nn.Identity())
    monkeypatch.setattr(bench, "features", small)
    monkeypatch.setattr(bench, "measured", watched)
    monkeypatch.setattr(bench, "REPEATS", 2)
    encoder = {"arch": "resnet18", "width": 0.125, "reduce": 4, "hidden": 16}
    decoder = {"channels": 8, "max_size": 32}
    small_vae = {**bench.VAE["model"], "z_dim": 4, "encoder": encoder, "decoder": decoder}
    monkeypatch.setitem(bench.VAE, "model", small_vae)
    monkeypatch.setitem(bench.VAE, "start", "scratch")
    monkeypatch.setattr(bench, "UNET", {"channels": 8, "levels": 2, "blocks": 1})
    given = [str(tmp_path), "--smoke", "--size", "32", "--judge", str(tiny_model)]
    given += ["--methods", "form-2", "ours"]
    monkeypatch.setattr(sys, "argv", ["diffusevae.py", *given])
    with pytest.raises(KeyboardInterrupt):
        bench.main()
    trainings = bench.read_csv(tmp_path / "trainings.csv")
    assert [row["name"] for row in trainings] == ["single", "form-2", "multi", "ours"]
    assert read_config(tmp_path / "form-2")["model"]["single_head"]
    assert read_config(tmp_path / "form-2")["cddpm"]["model"]["sees"] == "x+recon"
    assert not read_config(tmp_path / "ours")["model"]["single_head"]
    written = (tmp_path / "ours" / "cddpm.safetensors").stat().st_mtime_ns

    bench.main()
    assert begun == ["form-2", "ours", "ours", "real"]
    assert bench.read_csv(tmp_path / "trainings.csv") == trainings
    assert (tmp_path / "ours" / "cddpm.safetensors").stat().st_mtime_ns == written
    rows = bench.read_csv(tmp_path / "diffusevae.csv")
    figures = {(row["of"], row["figure"]) for row in rows if row["method"] == "ours"}
    assert figures >= {
        ("repeat 2", "Dice"),
        ("repeat 2", "drift"),
        ("draws", "Dice"),
        ("reconstruct", "Dice"),
    }
    assert figures >= {("sample", name) for name in ("KID x 1000", "precision", "recall", "FID", "FID, half")}
    assert {row["figure"] for row in rows if row["method"] == "real"} >= {"FID", "KID x 1000"}
    for name in ("sheet-ours.png", "sheet-form-2.png", "repeats.png"):
        assert (tmp_path / name).exists()
    head = (tmp_path / "diffusevae.md").read_text().splitlines()[0]
    assert head == "| Of | Figure | Images | form-2 | ours | real |"
    assert "repeat 2" in capsys.readouterr().out
    given += ["paper", "--cddpm-steps", "2", "--vae-steps", "3"]
    monkeypatch.setattr(sys, "argv", ["diffusevae.py", *given])
    with pytest.raises(SystemExit):
        bench.main()
    assert capsys.readouterr().err.endswith("multi was trained for 2 steps\n")


def test_the_table_has_a_column_per_method_and_the_errors(bench: ModuleType) -> None:
    def row(method: str, figure: str, value: str, error: str) -> dict[str, str]:
        return dict(zip(bench.COLUMNS, (method, "sample", figure, "9", value, error), strict=True))

    rows = [row("a", "Dice", "0.9", "0.01"), row("a", "KID", "3", "1 to 5"), row("b", "KID", "4", "")]
    head, body = bench.table_of(rows)
    assert head == ["Of", "Figure", "Images", "a", "b"]
    assert body == [["sample", "Dice", "9", "0.9 ± 0.01", ""], ["sample", "KID", "9", "3 (1 to 5)", "4"]]


def test_an_unknown_fold_is_one_line_and_exit_2(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "load", lambda path: torch.nn.Identity())
    monkeypatch.setattr(sys, "argv", ["diffusevae.py", str(tmp_path), "--smoke", "--fold", "7"])
    with pytest.raises(SystemExit) as stopped:
        bench.main()
    assert stopped.value.code == 2 and capsys.readouterr().err == "error: no fold 7 in index.csv\n"
