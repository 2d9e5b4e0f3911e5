"""Where a pixel's size comes from, and the figures in mm, of heads and of cups that `segment` writes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.sequence import Sequence
from support.dicom_files import dicom, region

from mhvae_cli.evaluation.biometry import (
    COLUMNS,
    CUP_COLUMNS,
    HEAD_COLUMNS,
    measure,
    measure_cup,
    measure_head,
)
from mhvae_cli.images.read import read_resolution, read_scan
from mhvae_cli.images.scan import Scan, Spacing, stored_points
from mhvae_cli.images.spacing import SpacingSources, SpacingTable, parse_spacing, read_spacing_csv
from mhvae_cli.inference.networks import Networks

Mhvae = Callable[..., Any]
GREY = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHVAE_MODEL", str(tiny_model))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")


@pytest.fixture
def scans(phantom_folder: Path) -> list[str]:
    """Two grey phantoms of 64 x 80 px, a.png and b.png."""
    for name, image in zip("ab", sorted((phantom_folder / "images").iterdir()), strict=False):
        Path(f"{name}.png").write_bytes(image.read_bytes())
    return ["a.png", "b.png"]


def rows(ended: Any) -> list[dict[str, Any]]:
    assert ended.code == 0, ended.stderr
    return [json.loads(line) for line in ended.lines]


def tiff(path: str, unit: int | None, *resolutions: tuple[float, float], orientation: int = 1) -> Path:
    """A TIFF of a page a resolution."""
    pages = []
    for x, y in resolutions:
        tags: dict[int, Any] = {282: x, 283: y} | ({} if unit is None else {296: unit})
        tags |= {} if orientation == 1 else {274: orientation}
        pages.append((Image.fromarray(np.tile(GREY, (16, 20))), tags))
    first, info = pages[0]
    for page, tags in pages[1:]:
        page.encoderinfo = {"tiffinfo": tags}
    first.save(path, save_all=True, append_images=[page for page, _ in pages[1:]], tiffinfo=info)
    return Path(path)


def test_one_number_or_two() -> None:
    assert (
        parse_spacing("0.12") == (0.12, 0.12)
        and parse_spacing("0.12,0.3") == (0.12, 0.3)
        and parse_spacing("1e-3, 2") == (1e-3, 2)
    )


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "nan", "inf", "0.1,", ",0.1", "0.1,0.2,0.3", "0.1 mm", "0,1,"]
)
def test_sizes_that_make_no_sense(text: str, mhvae: Mhvae, scans: list[str]) -> None:
    ended = mhvae("segment", *scans, "-o", "m/", "--spacing", text)
    assert ended.code == 2 and "--spacing" in ended.stderr and "hint: " in ended.stderr
    assert not Path("m").exists()


@pytest.mark.parametrize(
    ("table", "sizes"),
    [
        ("filename,pixel size(mm),head circumference (mm)\na.png,0.1,44\n", {"a.png": (0.1, 0.1)}),
        ("filename,spacing_x,spacing_y\na.png,0.1,0.2\n", {"a.png": (0.1, 0.2), "b.png": None}),
        ("\ufeffInput,Spacing\nx/a.png,0.1\nb.png,0.2\n", {"x/a.png": (0.1, 0.1), "y/a.png": None}),
        ("file,spacing\nx/a.png,0.1\na.png,0.2\n", {"x/a.png": (0.1, 0.1), "y/a.png": (0.2, 0.2)}),
        ("id,pixel_size_mm\nA,0.1\n", {"z/a.png": (0.1, 0.1), "a.jpg": (0.1, 0.1), "a.b.png": None}),
        ("path,spacing\n./x//a.png,0.1\n", {"x/a.png": (0.1, 0.1), "a.png": None}),
    ],
)
def test_rows_go_by_path_or_by_name(table: str, sizes: dict[str, tuple[float, float] | None]) -> None:
    Path("t.csv").write_text(table)
    spacings = SpacingSources(read_spacing_csv(Path("t.csv")))
    for name, size in sizes.items():
        assert spacings.of(name, Scan(GREY), b"") == size, name


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("filename,spacing\na.png,0.1\nb.png,wide\n", "line 3: 'wide' is not a pixel size"),
        ("filename,spacing\na.png,-0.1\n", "line 2: '-0.1'"),
        ("filename,spacing\na.png,0\n", "line 2: '0'"),
        ("filename,spacing\na.png,nan\n", "line 2: 'nan'"),
        ("filename,spacing\na.png,\n", "line 2: ''"),
        ("filename,spacing_x,spacing_y\na.png,0.1\n", "line 2: None"),
        ("filename,spacing_x\na.png,0.1\n", "line 1: no column for the pixel spacing"),
        ("patient,spacing\na.png,0.1\n", "line 1: no column for the file name"),
        ("", "line 1: no column"),
        ("filename,spacing\na.png,0.1\nA.PNG,0.1\n", "line 3: duplicate entry for 'A.PNG'"),
        ("filename,spacing\nz.png,0.1\n", "names none of the inputs"),
    ],
)
def test_tables_that_make_no_sense(table: str, words: str, mhvae: Mhvae, scans: list[str]) -> None:
    Path("t.csv").write_text(table)
    ended = mhvae("segment", *scans, "-o", "m/", "--spacing-csv", "t.csv")
    assert ended.code == 2 and f"error: t.csv{'' if words[0] == 'n' else ', '}" in ended.stderr.replace(
        ": n", "n"
    )
    assert words in ended.stderr and not Path("m").exists()


def test_tables_that_are_none(mhvae: Mhvae, scans: list[str]) -> None:
    Path("t.csv").write_bytes(b"\xff\xfe\x00f")
    assert mhvae("segment", *scans, "--spacing-csv", "t.csv").code == 2
    assert "no such file" in mhvae("segment", *scans, "--spacing-csv", "none.csv").stderr


@pytest.mark.parametrize(("unit", "mm"), [(2, 25.4), (3, 10.0), (None, 25.4), (1, None)])
def test_the_resolution_of_a_tiff(unit: int | None, mm: float | None) -> None:
    path = tiff("a.tif", unit, (100, 50), (200, 400))
    found = [read_resolution(source, page=page) for source in (path, path.read_bytes()) for page in (0, 1)]
    assert found == (2 * [(mm / 100, mm / 50), (mm / 200, mm / 400)] if mm else 4 * [None])


def test_other_files_have_no_resolution() -> None:
    Image.fromarray(GREY).save("a.png", dpi=(300, 300))
    Image.fromarray(GREY).save("a.jpg", dpi=(300, 300))
    Path("a.dcm").write_bytes(b"\0" * 128 + b"DICM")
    assert [read_resolution(Path(name)) for name in ("a.png", "a.jpg", "a.dcm")] == [None] * 3
    assert read_resolution(tiff("zero.tif", 2, (0, 0))) is None


def test_who_is_believed_first() -> None:
    path, own = tiff("a.tif", 3, (100, 100)), Scan(GREY, spacing=Spacing(0.3, 0.4))
    table = SpacingTable({"a": Spacing(0.1, 0.1)})
    assert SpacingSources(table, Spacing(0.2, 0.2), True).of("a.tif", own, path) == (0.1, 0.1)
    assert SpacingSources(None, Spacing(0.2, 0.2), True).of("a.tif", own, path) == (0.2, 0.2)
    assert SpacingSources(None, None, True).of("a.tif", own, path) == (0.3, 0.4)
    assert SpacingSources(None, None, True).of("a.tif", Scan(GREY), path) == (0.1, 0.1)
    assert SpacingSources().of("a.tif", Scan(GREY), path) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_files_own_spacing_is_turned_to_the_stored_pixels(orientation: int) -> None:
    own = Scan(GREY, orientation, spacing=Spacing(0.3, 0.4))
    assert SpacingSources().of("a.png", own, b"") == ((0.3, 0.4) if orientation < 5 else (0.4, 0.3))


def test_no_spacing_no_millimetres(mhvae: Mhvae, scans: list[str]) -> None:
    Image.open("a.png").save("c.tif", dpi=(300, 300))
    for row in rows(mhvae("segment", "a.png", "c.tif", "-o", "m/", "--json", "--measure", "fetal-head")):
        told = {name for name in (*COLUMNS, *HEAD_COLUMNS) if row[name] is not None}
        assert {name for name in told if "mm" in name or "spacing" in name} == set() and "hc_px" in told


def test_the_ultrasound_region_of_the_whole_outline_gives_the_millimetres(
    mhvae: Mhvae, scans: list[str]
) -> None:
    array = np.asarray(Image.open("a.png"))
    Path("a.dcm").write_bytes(dicom(array))
    (plain,) = rows(mhvae("segment", "a.dcm", "-o", "plain/", "--json"))
    x0, y0 = (int(plain[f"bbox_{name}"]) for name in ("x0", "y0"))
    x1, y1 = (int(np.ceil(plain[f"bbox_{name}"])) - 1 for name in ("x1", "y1"))
    middle = (x0 + x1) // 2
    assert x0 > 4 and y0 > 2 and plain["spacing_note"] is None
    object_, largest = region(x0, y0, x1, y1, (0.03, 0.04)), region(0, 0, x0 - 1, 63, (0.5, 0.5))
    halves = [region(0, 0, middle, 63, (0.03, 0.03)), region(middle + 1, 0, 79, 63, (0.03, 0.03))]
    cases: list[tuple[list[Any], tuple[float, float] | str]] = [
        ([largest, object_], (0.3, 0.4)),
        ([object_, region(0, 0, 79, 63, (0.03, 0.04))], (0.3, 0.4)),
        ([object_, region(0, 0, x0 + 2, y0 + 1, (0.5, 0.5))], (0.3, 0.4)),  # beside the round outline
        ([largest], "outline is outside the ultrasound regions"),
        (halves, "outline crosses the ultrasound regions"),
        ([region(0, 0, 79, y1 - 2, (0.03, 0.03))], "outline crosses the ultrasound regions"),
        ([object_, *halves[:1]], "the ultrasound regions of the outline differ in spacing"),
        ([region(0, 0, 79, 63, (0.03, 0.03), units=4)], "no known spacing"),
        ([object_, region(middle, y0, middle, y1, (1, 1), form=3)], "no known spacing"),
    ]
    for regions, wanted in cases:
        Path("a.dcm").write_bytes(dicom(array, SequenceOfUltrasoundRegions=Sequence(regions)))
        options = ("--measure", "fetal-head", "--existing", "overwrite", "--report", "page.html")
        (row,) = rows(mhvae("segment", "a.dcm", "-o", "m/", "--json", *options))
        shown = f"no mm: {row['spacing_note']}" in Path("page.html").read_text()
        assert shown == (row["spacing_note"] is not None)
        if isinstance(wanted, str):
            assert wanted in row["spacing_note"]
            assert {row[name] for name in ("spacing_x", "spacing_y", "area_mm2", "hc_mm")} == {None}
            assert row["hc_px"] > 0
        else:
            assert (row["spacing_x"], row["spacing_y"]) == pytest.approx(wanted) and not row["spacing_note"]
            assert row["area_mm2"] == pytest.approx(row["area_px"] * wanted[0] * wanted[1], rel=1e-5)
    (row,) = rows(mhvae("segment", "a.dcm", "-o", "n/", "--json", "--spacing", "0.1"))
    assert row["spacing_x"] == 0.1 and row["spacing_note"] is None  # the user's word comes first


def test_a_row_an_input_and_one_size_for_the_rest(mhvae: Mhvae, scans: list[str]) -> None:
    Path("t.csv").write_text("filename,spacing_x,spacing_y\nb.png,0.5,0.25\n")
    found = rows(mhvae("segment", *scans, "-o", "m/", "--json", "--spacing-csv", "t.csv"))
    assert [row["spacing_x"] for row in found] == [None, 0.5]
    assert found[1]["area_mm2"] == pytest.approx(found[1]["area_px"] / 8, rel=1e-5)
    assert found[0]["area_mm2"] is None and found[0]["area_px"] > 0
    both = ("--spacing-csv", "t.csv", "--spacing", "0.1")
    found = rows(mhvae("segment", *scans, "-o", "n/", "--json", *both))
    assert [(row["spacing_x"], row["spacing_y"]) for row in found] == [(0.1, 0.1), (0.5, 0.25)]


def test_a_label_of_dots_an_inch_counts_only_if_it_is_trusted(mhvae: Mhvae) -> None:
    tiff("a.tif", 2, (254, 127), (508, 508))
    found = rows(mhvae("segment", "a.tif", "-o", "m/", "--json", "--trust-dpi"))
    assert [(row["spacing_x"], row["spacing_y"]) for row in found] == [(0.1, 0.2), (0.05, 0.05)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_figures_and_mask_lie_as_the_stored_pixels_do(
    mhvae: Mhvae, scans: list[str], orientation: int, tiny_model: Path
) -> None:
    """Pixels of 0.1 x 0.3 mm as stored: figures of the stored outline, against the mask that is written."""
    from mhvae_cli import Pipeline

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.asarray(Image.open("a.png"))).save("turned.png", exif=exif)
    options = ("--json", "--spacing", "0.1,0.3", "--measure", "fetal-head")
    (row,) = rows(mhvae("segment", "turned.png", "-o", "m/", *options))
    scan = read_scan(Path("turned.png"))
    found = Pipeline.load(str(tiny_model), device="cpu", dtype="float32").segment(scan)
    size = scan.pixels.shape[0], scan.pixels.shape[1]
    rings = [stored_points(ring, size, orientation) for ring in found.contour()]
    expected = {**measure(rings, (0.1, 0.3)), **measure_head(rings, (64, 80), (0.1, 0.3))}
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5, abs=1e-4)
    mask = np.asarray(Image.open("m/turned.png")) > 0
    assert mask.shape == (row["height"], row["width"]) == (64, 80)
    ys, xs = np.nonzero(mask)
    assert (row["centroid_x"], row["centroid_y"]) == pytest.approx(
        (xs.mean() + 0.5, ys.mean() + 0.5), abs=0.3
    )
    box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert [row[f"bbox_{name}"] for name in ("x0", "y0", "x1", "y1")] == pytest.approx(box, abs=1)
    values, vectors = np.linalg.eigh(np.cov(np.stack([xs, ys])))
    assert (row["minor_px"], row["major_px"]) == pytest.approx(4 * np.sqrt(values), rel=0.03)
    turn = np.radians(row["angle_deg"])
    assert abs(vectors[:, 1] @ [np.cos(turn), -np.sin(turn)]) > 0.99
    assert row["area_mm2"] == pytest.approx(mask.sum() * 0.03, rel=0.02)


def test_cup_and_disc_of_two_models(
    mhvae: Mhvae, scans: list[str], tiny_model: Path, tiny_refined: Path
) -> None:
    """The cup's model is the disc's here, so all ratios are 1; a smaller cup comes from another theta."""
    from mhvae_cli import Pipeline

    options = ("--json", "--measure", "cup-disc", "--cup-model", tiny_refined)
    found = rows(mhvae("segment", *scans, "-o", "m/", *options, "--overlay"))
    assert [(row["vcdr"], row["acdr"]) for row in found] == [(1, 1), (1, 1)]
    header = next(csv.reader(Path("m/results.csv").read_text().splitlines()))
    assert set(CUP_COLUMNS) < set(header) and not set(HEAD_COLUMNS) & set(header)
    pipeline = Pipeline.load(str(tiny_model), device="cpu", dtype="float32")
    disc = pipeline.segment(Path("a.png")).contour()
    middle = disc[0].mean(0)
    assert measure_cup([middle + (disc[0] - middle) / 2], disc)["acdr"] == pytest.approx(0.25)


@pytest.mark.parametrize("orientation", [1, 6])
def test_vertical_is_up_as_one_looks_at_it(
    mhvae: Mhvae, scans: list[str], orientation: int, tiny_refined: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mhvae_cli.inference.pipeline import Pipeline

    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open("a.png").save("eye.png", exif=exif)
    discs = {"tiny": (20.0, 24.0), "tiny-refined": (5.0, 12.0)}  # half axes, x and y, upright

    def contour(self: Pipeline, theta: np.ndarray, size: tuple[int, int], pose: Any) -> list[np.ndarray]:
        t = 2 * np.pi * np.arange(256) / 256
        return [
            np.stack([32 + discs[self.name][0] * np.cos(t), 32 + discs[self.name][1] * np.sin(t)], axis=1)
        ]

    monkeypatch.setattr(Networks, "contour", contour)
    (row,) = rows(
        mhvae(
            "segment", "eye.png", "-o", "m/", "--json", "--measure", "cup-disc", "--cup-model", tiny_refined
        )
    )
    assert (row["vcdr"], row["acdr"], row["cup"]) == (0.5, pytest.approx(1 / 8), "inside")


def test_options_that_need_each_other(mhvae: Mhvae, scans: list[str], tiny_model: Path) -> None:
    for options in (["--measure", "cup-disc"], ["--cup-model", tiny_model]):
        ended = mhvae("segment", *scans, "-o", "m/", *options)
        assert ended.code == 2 and "--cup-model" in ended.stderr and not Path("m").exists()
    options = ["--measure", "cup-disc", "--cup-model", "no-such-model"]
    ended = mhvae("segment", *scans, "-o", "m/", *options)
    assert ended.code == 6 and "no-such-model" in ended.stderr
