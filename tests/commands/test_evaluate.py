"""`mhvae evaluate` as a user meets it: folders of masks scored, summed up and compared."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.discs import DIAGONAL, NOTHING, disc, write, write_truths
from typer.testing import CliRunner, Result

from mhvae_cli.cli import app
from mhvae_cli.evaluation import metrics
from mhvae_cli.evaluation import scoring as evaluation
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


@pytest.fixture
def truths(tmp_path: Path) -> Path:
    return write_truths(tmp_path / "truth")


@pytest.fixture
def preds(tmp_path: Path) -> Path:
    return write(tmp_path / "pred", a=disc(6), b=disc(8, x=23), c=NOTHING, d=NOTHING)


def test_json_holds_every_image_the_summary_and_the_counts(preds: Path, truths: Path) -> None:
    result = run(preds, truths, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert report["counts"] == {
        "images": 4,
        "scored": 4,
        "failed": 0,
        "missing_predictions": 0,
        "empty_predictions": 2,
        "empty_truths": 1,
    }
    shifted = metrics.dice(disc(8, x=23), disc(8))
    assert [image["dice"] for image in report["images"]] == [1, shifted, 0, 1]
    assert [image["hausdorff"] for image in report["images"]] == [0, 3, DIAGONAL, 0]
    values = [0, 3, DIAGONAL, 0]
    assert report["summary"]["hausdorff"] == pytest.approx(
        {"n": 4, "mean": np.mean(values), "sd": np.std(values), "median": 1.5}
    )
    assert "hausdorff_mm" not in report["summary"]


def test_the_thresholded_jaccard_is_0_below_65(tmp_path: Path) -> None:
    square = np.zeros((40, 40), bool)
    square[:20, :20] = True  # 400 pixels, of which 260, 259 and all are found
    found = {
        name: square & (np.arange(1600).reshape(40, 40) < last) for name, last in (("a", 520), ("b", 499))
    }
    truth = write(tmp_path / "truth", a=square, b=square, c=square)
    pred = write(tmp_path / "pred", **found, c=square)
    report = json.loads(run(pred, truth, "--json", "--csv", tmp_path / "scores.csv").stdout)
    assert [image["iou"] for image in report["images"]] == [0.65, 259 / 400, 1]
    assert [image["thresholded_jaccard"] for image in report["images"]] == [0.65, 0, 1]
    assert report["summary"]["thresholded_jaccard"]["mean"] == pytest.approx(0.55)
    with (tmp_path / "scores.csv").open() as file:
        assert [float(row["thresholded_jaccard"]) for row in csv.DictReader(file)] == [0.65, 0, 1]
    cells = [[cell.strip() for cell in line.split("\t")] for line in run(pred, truth).stdout.splitlines()]
    assert ["thresholded jaccard", "3", "0.5500", "0.4143", "0.6500"] in cells


def test_paper256_measures_squashed_masks(preds: Path, truths: Path) -> None:
    report = json.loads(run(preds, truths, "--json", "--profile", "paper256").stdout)
    distances = [image["hausdorff"] for image in report["images"]]
    assert distances[1] == pytest.approx(3 * 256 / 40, abs=1)
    assert distances[2] == pytest.approx(256 * math.sqrt(2))
    assert report["counts"]["empty_predictions"] == 2


def test_the_table_is_plain_text_off_a_terminal(preds: Path, truths: Path) -> None:
    result = run(preds, truths)
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "\x1b" not in result.stdout
    cells = [[cell.strip() for cell in line.split("\t")] for line in result.stdout.splitlines()]
    assert ["hausdorff px", "4", "13.25", "21.25", "1.50"] in cells
    assert ["empty predictions", "2"] in cells
    assert ["empty truths", "1"] in cells
    assert ["profile", "native"] in cells


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
def test_the_table_is_drawn_on_a_terminal(preds: Path, truths: Path) -> None:
    import pty

    folder = preds.rename(preds.with_name("[red]"))
    control, terminal = pty.openpty()
    command = [sys.executable, "-m", "mhvae_cli", "evaluate", folder.name, str(truths)]
    environment = os.environ | {"NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}
    environment["PYTHONPATH"] = str(Path(evaluation.__file__).parents[2])
    code = subprocess.run(command, stdout=terminal, cwd=folder.parent, env=environment).returncode
    os.close(terminal)
    shown = os.read(control, 65536).decode()
    os.close(control)
    assert code == 0
    assert "[red]" in shown
    assert "\u2500" in shown
    assert "\t" not in shown
    assert "hausdorff px 4 13.25" in " ".join(shown.split())


def test_a_missing_prediction_is_a_missed_object_and_is_said(preds: Path, truths: Path) -> None:
    for name in ("a", "d"):
        (preds / f"{name}.png").unlink()
    result = run(preds, truths, "--json")
    assert result.exit_code == 0
    assert (
        "ground-truth masks without a prediction, scored as missed objects: 2 of 4 (first: a.png)"
        in result.stderr
    )
    report = json.loads(result.stdout)
    assert report["counts"]["missing_predictions"] == 2
    assert report["counts"]["empty_predictions"] == 1
    first, last = report["images"][0], report["images"][3]
    assert (first["status"], first["dice"], first["hausdorff"]) == ("missing", 0, DIAGONAL)
    assert (last["status"], last["dice"], last["hausdorff"]) == ("missing", 0, DIAGONAL)
    assert run(preds, truths, "-q").stderr == ""


def test_predictions_without_a_truth_are_said_and_left_out(preds: Path, truths: Path) -> None:
    write(preds, z=disc(3))
    (preds / "results.csv").write_text("input\n")
    result = run(preds, truths, "--json")
    assert "predictions without a ground-truth mask, ignored: 1 (first: z.png)" in result.stderr
    assert json.loads(result.stdout)["counts"]["images"] == 4


def test_a_mask_that_cannot_be_used_costs_its_own_row(preds: Path, truths: Path, tmp_path: Path) -> None:
    whole = (preds / "a.png").read_bytes()
    (preds / "a.png").write_bytes(whole[: len(whole) // 2])
    write_atomic(preds / "b.png", encode_png(disc(8)[:20, :10]))
    table = tmp_path / "new" / "rows.csv"
    result = run(preds, truths, "--json", "--csv", table)
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert report["counts"]["failed"] == 2
    assert report["summary"]["dice"]["n"] == 2
    assert "a.png: truncated PNG" in result.stderr
    assert "b.png: 10 x 20 pixels, but the truth has 40 x 30" in result.stderr
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["status"] for row in rows] == ["failed", "failed", "ok", "ok"]
    assert (rows[0]["dice"], rows[2]["dice"], rows[2]["pred_empty"]) == ("", "0.0", "1")
    assert "truncated" in rows[0]["error"]
    assert os.listdir(table.parent) == ["rows.csv"]


def test_nothing_that_can_be_scored_is_exit_4(tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "a.png").write_text("not an image")
    result = run(folder, write(tmp_path / "truth", a=disc(5)))
    assert result.exit_code == 4
    assert result.stderr.startswith("error: ")


def test_folders_that_do_not_pair_are_exit_4(preds: Path, truths: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    other = write(tmp_path / "other", a_mask=disc(5))
    for arguments, words in (
        ((preds, other), "no mask shares a name"),
        ((preds, empty), "no masks"),
        ((tmp_path / "nowhere", truths), "nowhere: no such file or directory"),
        ((preds / "a.png", truths), "a.png: not a directory"),
        ((preds, truths, "--compare", other), "no mask shares a name"),
    ):
        result = run(*arguments)
        assert result.exit_code == 4
        assert words in result.stderr
        assert len(result.stderr.splitlines()) <= 2
        assert result.stdout == ""


def test_bad_usage_is_exit_2(preds: Path, truths: Path) -> None:
    assert run(preds).exit_code == 2
    assert run(preds, truths, "--profile", "kind").exit_code == 2
    assert run(preds, truths, "--nope").exit_code == 2


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("id,pixel_size_mm\na,0.5\nb,0.2\n", {"a": 0, "b": 0.6}),
        ("\ufeffImage,fold,spacing_x,spacing_y\nB.png,1,0.3,0.1\n", {"b": 0.9}),
        ("name,spacing_x,spacing_y\nb,0.1,0.3\n", {"b": 0.3}),
    ],
)
def test_distances_in_mm(
    table: str, expected: dict[str, float], preds: Path, truths: Path, tmp_path: Path
) -> None:
    sizes = tmp_path / "index.csv"
    sizes.write_text(table, encoding="utf-8")
    result = run(preds, truths, "--json", "--spacing-csv", sizes)
    report = json.loads(result.stdout)
    found = {
        image["id"]: image["hausdorff_mm"] for image in report["images"] if image["hausdorff_mm"] is not None
    }
    assert found == pytest.approx(expected)
    assert report["summary"]["hausdorff_mm"]["n"] == len(expected)
    assert report["summary"]["hausdorff"]["n"] == 4
    assert f"images without a pixel size: {4 - len(expected)} of 4" in result.stderr


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("id,pixel_size_mm\na,0.1\nb,wide\n", "line 3: 'wide' is not a pixel size in mm"),
        ("id,pixel_size_mm\na,-1\n", "line 2: '-1' is not a pixel size in mm"),
        ("id,spacing_x,spacing_y\na,1\n", "line 2: None is not a pixel size in mm"),
        ("id,pixel_size_mm\na,1\nA.png,1\n", "line 3: duplicate entry for 'A.png'"),
        ("patient,pixel_size_mm\na,1\n", "no column for the file name"),
        ("id,spacing_x\na,1\n", "no column for the pixel spacing"),
        ("", "no column for the file name"),
        ("id,pixel_size_mm\nother,1\n", "names none of the images"),
    ],
)
def test_pixel_sizes_that_make_no_sense(
    table: str, words: str, preds: Path, truths: Path, tmp_path: Path
) -> None:
    sizes = tmp_path / "index.csv"
    sizes.write_text(table)
    result = run(preds, truths, "--spacing-csv", sizes)
    assert result.exit_code == 2
    assert words in result.stderr
    assert result.stdout == ""


def test_the_csv_is_never_overwritten_unasked(preds: Path, truths: Path, tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("mine")
    result = run(preds, truths, "--csv", table)
    assert (result.exit_code, result.stdout, table.read_text()) == (7, "", "mine")
    assert run(preds, truths, "--csv", table, "--existing", "skip").exit_code == 0
    assert table.read_text() == "mine"
    assert run(preds, truths, "--csv", table, "--existing", "overwrite").exit_code == 0
    assert table.read_text().startswith("id,status,dice,iou,thresholded_jaccard,hausdorff,hd95,assd,")


def test_compare_reports_the_paired_difference(preds: Path, truths: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other", a=disc(6, x=22), b=disc(8), c=disc(10), d=NOTHING)
    result = run(preds, truths, "--compare", other, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    change = report["comparison"]["hausdorff"]
    assert (change["n"], change["mean"], change["other"]) == (4, 53 / 4, 2 / 4)
    assert change["difference"] == 51 / 4
    assert report["other"]["pred"] == str(other)
    assert report["other"]["counts"]["empty_predictions"] == 1
    assert json.loads(run(preds, truths, "--compare", other, "--json").stdout) == report
    assert "PRED - OTHER" in run(preds, truths, "--compare", other).stdout


def test_a_failed_row_of_the_other_folder_leaves_both_sides(
    preds: Path, truths: Path, tmp_path: Path
) -> None:
    other = write(tmp_path / "other", a=disc(6), b=disc(8), c=disc(10), d=NOTHING)
    (other / "c.png").write_bytes(b"")
    result = run(preds, truths, "--compare", other, "--json")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert report["summary"]["dice"]["n"] == 4
    assert report["comparison"]["dice"]["n"] == 3
    assert report["comparison"]["hausdorff"]["mean"] == 1


def test_evaluating_needs_no_torch(preds: Path, truths: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from mhvae_cli.evaluation.scoring import pair, score\n"
        "from pathlib import Path\n"
        "pairs = pair(Path(sys.argv[1]), Path(sys.argv[2])).pairs\n"
        "print([score(each).values['dice'] for each in pairs][0])"
    )
    command = [sys.executable, "-c", code, str(preds), str(truths)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "1.0"


def test_any_name_is_one_cell_of_the_table(tmp_path: Path) -> None:
    names = ["cr\r", "-1", "=1+1"]
    for folder in ("pred", "truth"):
        write(tmp_path / folder, **dict.fromkeys(names, disc(6)))
    assert run(tmp_path / "pred", tmp_path / "truth", "--csv", tmp_path / "t.csv").exit_code == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        assert {row["id"] for row in csv.DictReader(file, strict=True)} == {"cr\r", "-1", "./=1+1"}
