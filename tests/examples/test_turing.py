"""examples/benchmarks/turing.py: a visual Turing test of real and edited images, and its marks."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from support.scripts import benchmark


@pytest.fixture(scope="module")
def turing() -> Iterator[ModuleType]:
    """examples/benchmarks/turing.py, imported as it runs."""
    with benchmark("turing") as module:
        yield module


# Marks


@pytest.mark.parametrize(
    "right, total, low, high",
    [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilsons_interval(turing: ModuleType, right: int, total: int, low: float, high: float) -> None:
    assert turing.wilson(right, total) == pytest.approx((low, high), abs=1e-4)


def test_wilsons_bounds_solve_its_equation(turing: ModuleType) -> None:
    """A bound p is 1.96 standard errors at p, sqrt(p (1 - p) / n), from the share."""
    for right, total in ((3, 20), (27, 40)):
        for bound in turing.wilson(right, total):
            error = np.sqrt(bound * (1 - bound) / total)
            assert abs(right / total - bound) == pytest.approx(1.959964 * error)


def test_marks_count_by_kind(turing: ModuleType) -> None:
    key = {1: "real", 2: "edited", 3: "edited", 4: "real", 5: "real"}
    marks = {1: "real", 2: "real", 3: "edited", 4: "edited"}
    assert turing.marked(key, marks) == {"all": (2, 4), "real": (1, 2), "edited": (1, 2)}


def _files(folder: Path, marks: str) -> Path:
    rows = ["number,kind,id,edit", "01,real,a,", '02,edited,b,"rotate 7, scale 1"', "03,edited,c,x"]
    (folder / "key.csv").write_text("\n".join(rows) + "\n")
    (folder / "marks.csv").write_text(marks)
    return folder / "marks.csv"


def test_marks_are_read_and_their_accuracy_printed(
    turing: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = _files(tmp_path, "number,mark\n1,real\n02, Edited \n")
    monkeypatch.setattr(sys, "argv", ["turing.py", str(tmp_path), "--mark", str(marks)])
    turing.main()
    head, everything, *_, missing = capsys.readouterr().out.splitlines()
    assert head.split() == ["images", "right", "accuracy", "95", "%", "interval"]
    assert everything.split()[:5] == ["all", "2", "of", "2", "100.0%"]
    assert missing == "1 of 3 images are not marked"


@pytest.mark.parametrize(
    "marks, message",
    [
        ("9,real\n", "there is no image '9'"),
        ("first,real\n", "there is no image 'first'"),
        ("1,fake\n", "image 1: real or edited, not 'fake'"),
        ("1\n", "image 1: real or edited, not ''"),
        ("1,real\n01,edited\n", "image 01 is marked twice"),
    ],
)
def test_marks_that_cannot_be_read_are_named(
    turing: ModuleType, tmp_path: Path, marks: str, message: str
) -> None:
    with pytest.raises(SystemExit, match=message):
        turing.print_marks(tmp_path, _files(tmp_path, marks))


# The test itself


@pytest.fixture(scope="module")
def made(
    turing: ModuleType, tiny_refined: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The data folder, with two images per subject, and a test of eight images."""
    from mhvae_cli.training.phantoms import write_phantoms

    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("turing") / "out"
    write_phantoms(data, "fetal-head", 24, size=(64, 80))
    rows = [f"fetal-head_{i:04d},{i // 2},3" for i in range(24)]
    (data / "index.csv").write_text("\n".join(["id,subject,fold", *rows]) + "\n")
    arguments = [out, "--data", data, "--fold", 3, "--model", tiny_refined, "--count", 8]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["turing.py", *map(str, arguments)])
        turing.main()
    return data, out


def _key(out: Path) -> list[dict[str, str]]:
    with open(out / "key.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_half_are_real_and_no_two_show_one_subject(made: tuple[Path, Path]) -> None:
    _, out = made
    rows = _key(out)
    assert [row["number"] for row in rows] == [str(number) for number in range(1, 9)]
    kinds = [row["kind"] for row in rows]
    assert sorted(kinds) == ["edited"] * 4 + ["real"] * 4
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)
    assert len({int(row["id"][-4:]) // 2 for row in rows}) == 8


def test_real_images_keep_their_pixels_and_edited_ones_do_not(made: tuple[Path, Path]) -> None:
    data, out = made
    for row in _key(out):
        with Image.open(out / f"{row['number']}.png") as shown:
            pixels = np.array(shown)
        with Image.open(data / "images" / f"{row['id']}.png") as original:
            same = np.array_equal(pixels, np.array(original))
            assert pixels.shape == (64, 80) and same == (row["kind"] == "real")
        if row["kind"] == "edited":
            turn, scale = (float(part.split()[1]) for part in row["edit"].split(", "))
            assert 5 <= abs(turn) <= 25 and 0.85 <= scale <= 1.15


def test_no_file_tells_what_it_is(made: tuple[Path, Path]) -> None:
    _, out = made
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            assert not image.info and not image.getexif() and image.mode == "L"


def test_the_sheet_offers_both_kinds_for_each_image(made: tuple[Path, Path]) -> None:
    page = (made[1] / "sheet.html").read_text()
    for number in range(1, 9):
        assert f'<img src="{number}.png">' in page
        for kind in ("real", "edited"):
            assert f'name="{number}" value="{kind}"' in page
    assert not any(row["id"] in page for row in _key(made[1]))


def test_a_folder_in_use_is_left_alone(
    turing: ModuleType, made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = made
    arguments = [out, "--data", data, "--fold", 3, "--model", "none"]
    monkeypatch.setattr(sys, "argv", ["turing.py", *map(str, arguments)])
    with pytest.raises(SystemExit, match="not an empty folder"):
        turing.main()


def test_too_few_subjects_end_the_program(
    turing: ModuleType, made: tuple[Path, Path], tiny_refined: Path, tmp_path: Path
) -> None:
    from mhvae_cli import Pipeline

    samples = turing.discover(made[0], masks=False)[:6]
    with pytest.raises(SystemExit, match="3 subjects with an object"):
        turing.exhibits(Pipeline.load(tiny_refined), samples, 40, np.random.default_rng(0))
