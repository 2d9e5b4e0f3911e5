"""`mhvae segment` with a tiny model of random weights: masks, tables, streams, faults, signals."""

import csv
import errno
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from mhvae_cli.evaluation import biometry as measure
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import stored, stored_points

Mhvae = Callable[..., Any]
ROOT = Path(__file__).parents[2]
HEADER = ",".join(["input,page,output,status,width,height", *measure.COLUMNS])


@pytest.fixture(autouse=True)
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantom_folder: Path, tiny_model: Path) -> Path:
    """Three phantoms in scans/ of the current folder, and the tiny model as the default."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHVAE_MODEL", str(tiny_model))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    images = sorted((phantom_folder / "images").iterdir())
    for name, image in zip("abc", images, strict=False):
        (tmp_path / "scans").mkdir(exist_ok=True)
        shutil.copy(image, tmp_path / "scans" / f"{name}.png")
    return tmp_path / "scans"


def table(folder: str = "masks") -> list[dict[str, str]]:
    text = Path(folder, "results.csv").read_text()
    assert text.startswith(HEADER + ",") and text.endswith("\n")
    return list(csv.DictReader(io.StringIO(text)))


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "L"
        return np.array(image)


def listing(folder: str = "masks") -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("mhvae-"))


def test_masks_are_the_pipelines_at_native_size(mhvae: Mhvae, tiny_model: Path) -> None:
    from mhvae_cli import Pipeline

    ended = mhvae("segment", "scans", "-o", "masks/")
    assert ended.code == 0 and ended.lines == [f"masks/{name}.png" for name in "abc"]
    assert listing() == ["a.png", "b.png", "c.png", "results.csv"]
    pipeline = Pipeline.load(str(tiny_model), device="cpu", dtype="float32")
    for name, row in zip("abc", table(), strict=True):
        scan = read_scan(Path(f"scans/{name}.png"))
        found = pipeline.segment(scan)
        mask = pixels(f"masks/{name}.png")
        assert mask.shape == scan.pixels.shape == (64, 80) and set(np.unique(mask)) == {0, 255}
        assert np.array_equal(mask > 0, found.mask)
        told = {"input": f"scans/{name}.png", "page": "0", "output": f"masks/{name}.png", "status": "ok"}
        told |= {"width": "80", "height": "64", "error": ""}
        assert {column: row[column] for column in told} == told
        for column, value in measure.measure(found.contour()).items():
            assert row[column] == "" if value is None else float(row[column]) == pytest.approx(value)


def test_empty_masks_are_written(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mhvae_cli.inference.networks.Networks.mask", lambda self, theta, size, pose: np.zeros(size, bool)
    )
    monkeypatch.setattr("mhvae_cli.inference.networks.Networks.contour", lambda self, theta, size, pose: [])
    ended = mhvae("segment", "scans/a.png", "-o", "masks/", "--measure", "fetal-head", "--spacing", "0.2")
    assert ended.code == 0 and not pixels("masks/a.png").any()
    (row,) = csv.DictReader(io.StringIO(Path("masks/results.csv").read_text()))
    told = {name: row[name] for name in (*measure.COLUMNS, *measure.HEAD_COLUMNS) if row[name]}
    assert told == {"area_px": "0.0", "spacing_x": "0.2", "spacing_y": "0.2", "area_mm2": "0.0"}


def test_batch_size_and_workers_change_nothing(mhvae: Mhvae) -> None:
    runs = {"one": ["-b", 1, "-j", 0], "two": ["-b", 2, "-j", 3], "det": ["--deterministic", "--seed", 5]}
    for folder, options in runs.items():
        assert mhvae("segment", "scans", "-o", folder, *options).code == 0
    for name in "abc":
        masks = [pixels(f"{folder}/{name}.png") for folder in runs]
        assert all(np.array_equal(mask, masks[0]) for mask in masks)
    one, two = ([float(row["area_px"]) for row in table(folder)] for folder in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_as_the_stored_pixels_do(mhvae: Mhvae, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open("scans/a.png") as image:
        Image.fromarray(np.array(image)).save("turned.png", exif=exif)
    with Image.open("turned.png") as image:
        ImageOps.exif_transpose(image).convert("L").save("upright.png")
    assert mhvae("segment", "turned.png", "upright.png", "-o", "masks").code == 0
    mask = Image.fromarray(pixels("masks/turned.png"))
    assert mask.size == (80, 64)
    mask.getexif()[0x0112] = orientation
    assert np.array_equal(np.array(ImageOps.exif_transpose(mask)), pixels("masks/upright.png"))
    upright = np.arange(12).reshape(3, 4)
    lying = stored(upright, orientation)
    for (y, x), value in np.ndenumerate(upright):
        moved = stored_points(np.array([[x + 0.5, y + 0.5]]), (3, 4), orientation)[0]
        assert lying[int(moved[1]), int(moved[0])] == value


def filled(rings: list[np.ndarray], size: tuple[int, int], scale: int = 8) -> np.ndarray:
    """Polygons in pixels as a mask, drawn `scale` times larger and sampled at the pixel centres."""
    canvas = Image.new("1", (size[1] * scale, size[0] * scale))
    for ring in rings:
        ImageDraw.Draw(canvas).polygon([tuple(point * scale - 0.5) for point in ring], fill=1)
    return np.array(canvas)[scale // 2 :: scale, scale // 2 :: scale]


def test_formats_agree_in_the_stored_frame(mhvae: Mhvae) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open("scans/a.png") as image:
        Image.fromarray(np.array(image)).save("turned.png", exif=exif)
    for kind in ("png", "tiff", "svg", "geojson"):
        assert mhvae("segment", "turned.png", "-o", "m/", "--format", kind).lines == [f"m/turned.{kind}"]
    assert mhvae("segment", "turned.png", "-o", "direct.svg").code == 0
    assert Path("direct.svg").read_text() == Path("m/turned.svg").read_text()
    mask = pixels("m/turned.png") > 0
    assert np.array_equal(pixels("m/turned.tiff") > 0, mask)
    feature = json.loads(Path("m/turned.geojson").read_text())["features"][0]
    properties = feature["properties"]
    assert list(properties)[: 2 + len(measure.COLUMNS)] == ["width", "height", *measure.COLUMNS]
    assert (properties["width"], properties["height"], properties["spacing_x"]) == (80, 64, None)
    assert properties["area_px"] == pytest.approx(mask.sum(), rel=0.01)
    rings = [np.array(polygon[0]) for polygon in feature["geometry"]["coordinates"]]
    assert (filled(rings, mask.shape) != mask).mean() < 0.005
    path = Path("m/turned.svg").read_text().split(' d="')[1].split('"')[0]
    numbers = [part.strip(" MZ").split() for part in path.split("Z") if part.strip()]
    drawn = [np.array([[float(v) for v in pair.split(",")] for pair in ring]) for ring in numbers]
    assert (filled(drawn, mask.shape) != mask).mean() < 0.005


def test_overlay_draws_on_the_upright_image(mhvae: Mhvae) -> None:
    ended = mhvae("segment", "scans/a.png", "-o", "m/", "--overlay")
    assert ended.lines == ["m/a.png", "m/a__overlay.png"]
    with Image.open("m/a__overlay.png") as drawn, Image.open("scans/a.png") as image:
        assert drawn.mode == "RGB" and drawn.size == image.size
        changed = (np.array(drawn) != np.array(image.convert("RGB"))).any(axis=2)
    mask = pixels("m/a.png") > 0
    edge = mask & ~(np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1))
    assert changed[edge].mean() > 0.9 and changed.mean() < 0.3


def test_pages_of_a_tiff(mhvae: Mhvae) -> None:
    arrays = [pixels(f"scans/{name}.png") for name in "abc"]
    images = [Image.fromarray(array) for array in arrays]
    images[0].save("stack.tif", save_all=True, append_images=images[1:])
    assert mhvae("segment", "stack.tif", "scans", "-o", "m").code == 0
    for page, name in enumerate("abc"):
        assert np.array_equal(pixels(f"m/stack_p{page}.png"), pixels(f"m/{name}.png"))
    assert [(row["input"], row["page"]) for row in table("m")][:3] == [
        ("stack.tif", str(p)) for p in range(3)
    ]


def test_stdin_to_stdout(mhvae: Mhvae) -> None:
    assert mhvae("segment", "scans/a.png", "-o", "a.png").code == 0
    ended = mhvae("segment", "-", "-o", "-", stdin=Path("scans/a.png").read_bytes())
    assert ended.code == 0 and ended.stdout == Path("a.png").read_bytes() and ended.stderr == ""
    assert listing(".") == ["a.png", "scans"]  # one file: no table
    assert mhvae("segment", "-", stdin=Path("scans/a.png").read_bytes()).lines == ["stdin.png"]
    ended = mhvae("segment", "-", "-o", "-", stdin=b"")
    assert ended.code == 4 and ended.stdout == b"" and ended.stderr.startswith("error: stdin: empty")


def test_json_lines(mhvae: Mhvae) -> None:
    Path("scans/bad.png").write_bytes(b"")
    ended = mhvae("segment", "scans", "-o", "masks", "--json")
    rows = [json.loads(line) for line in ended.lines]
    assert ended.code == 3 and [",".join(row)[: len(HEADER)] for row in rows] == [HEADER] * 4
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok"]
    assert rows[0]["area_px"] == pytest.approx((pixels("masks/a.png") > 0).sum(), rel=0.01)
    assert rows[0]["error"] is None and rows[0]["area_mm2"] is None
    assert rows[2]["output"] is None and rows[2]["error"] == "empty file"


def bad_inputs(folder: Path) -> dict[str, str]:
    """One file of each kind that cannot be used, and a word of what must be said of it."""
    folder.mkdir(exist_ok=True)
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    (folder / "folder.png").mkdir()
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(whole, "JPEG")
    (folder / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    (folder / "short.png").write_bytes(Path("scans/a.png").read_bytes()[:900])
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT")
    (folder / "broken.tif").write_bytes(b"II*\x00\x08\x00\x00\x00\x00\x00")
    return {
        "bomb.png": "pixels",
        "broken.tif": "",
        "cut.jpg": "truncated",
        "empty.png": "empty",
        "folder.png": "directory",
        "short.png": "truncated",
        "text.png": "not an image",
    }


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_bad_files_cost_their_own_rows_only(mhvae: Mhvae) -> None:
    bad = bad_inputs(Path("scans"))
    ended = mhvae("segment", "scans", "nope.png", "-o", "masks", "-b", 2)
    bad["nope.png"] = "no such file"
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.code == 3 and ended.lines == [f"masks/{name}.png" for name in "abc"]
    assert listing() == ["a.png", "b.png", "c.png", "results.csv"]
    assert len(errors) == len(bad) and "Traceback" not in ended.stderr
    rows = {Path(row["input"]).name: row for row in table()}
    for name, word in bad.items():
        assert rows[name]["status"] == "failed" and word in rows[name]["error"] and not rows[name]["output"]
        assert any(name in line and word in line for line in errors)
    order = [Path(row["input"]).name for row in table()]
    assert order == [*sorted([*[*bad][:-1], "a.png", "b.png", "c.png"]), "nope.png"]
    assert "11 done: 3 ok, 8 failed" in ended.stderr


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_nothing_usable_is_4(mhvae: Mhvae) -> None:
    bad_inputs(Path("bad"))
    assert mhvae("segment", "bad", "-o", "masks").code == 4
    assert listing() == ["results.csv"] and {row["status"] for row in table()} == {"failed"}
    Path("hollow").mkdir()
    ended = mhvae("segment", "hollow", "-o", "other")
    assert ended.code == 4 and "hollow: no images" in ended.stderr and "hint: " in ended.stderr
    ended = mhvae("segment", "nope.png", "-o", "mask.png")
    assert ended.code == 4 and not Path("mask.png").exists()


def test_on_error_stop(mhvae: Mhvae) -> None:
    Path("scans/b.png").write_bytes(b"")
    ended = mhvae("segment", "scans", "-o", "masks", "--on-error", "stop")
    assert ended.code == 3 and listing() == ["a.png", "results.csv"]
    assert [row["status"] for row in table()] == ["ok", "failed"] and "stopped, 2 of 3" in ended.stderr


def test_existing(mhvae: Mhvae) -> None:
    assert mhvae("segment", "scans/b.png", "-o", "masks/").code == 0
    Path("masks/b.png").write_bytes(b"mine")
    ended = mhvae("segment", "scans", "-o", "masks")
    assert ended.code == 7 and "masks/b.png: already exists" in ended.stderr and "--existing" in ended.stderr
    assert listing() == ["b.png", "results.csv"] and len(table()) == 1
    ended = mhvae("segment", "scans", "-o", "masks", "--existing", "skip")
    assert ended.code == 0 and ended.lines == ["masks/a.png", "masks/c.png"]
    assert Path("masks/b.png").read_bytes() == b"mine"
    assert [(row["input"][6], row["status"]) for row in table()] == [("b", "ok"), ("a", "ok"), ("c", "ok")]


def test_existing_overwrite(mhvae: Mhvae) -> None:
    Path("masks").mkdir()
    Path("masks/b.png").write_bytes(b"mine")
    for _ in range(2):
        assert mhvae("segment", "scans", "-o", "masks", "--existing", "overwrite").code == 0
        assert pixels("masks/b.png").any() and len(table()) == 3


def test_a_failed_row_is_replaced_when_its_input_is_mended(mhvae: Mhvae) -> None:
    good = Path("scans/b.png").read_bytes()
    Path("scans/b.png").write_bytes(good[:100])
    assert mhvae("segment", "scans", "-o", "masks").code == 3
    Path("scans/b.png").write_bytes(good)
    with Path("masks/results.csv").open("a") as file:
        file.write("scans/z.png,0,masks/z")  # as another program's crash would leave it
    assert mhvae("segment", "scans", "-o", "masks", "--existing", "skip").code == 0
    assert sorted((row["input"], row["status"]) for row in table()) == [
        (f"scans/{name}.png", "ok") for name in "abc"
    ]


def test_another_table_is_not_touched(mhvae: Mhvae) -> None:
    Path("masks").mkdir()
    Path("masks/results.csv").write_text("patient,finding\n")
    ended = mhvae("segment", "scans", "-o", "masks")
    assert ended.code == 7 and "results.csv" in ended.stderr and listing() == ["results.csv"]
    assert Path("masks/results.csv").read_text() == "patient,finding\n"


def test_shards_share_a_table(mhvae: Mhvae) -> None:
    for shard in ("1/2", "2/2"):
        assert mhvae("segment", "scans", "-o", "masks", "--shard", shard).code == 0
    assert sorted(row["input"][6] for row in table()) == ["a", "b", "c"]


def test_subfolders_are_kept(mhvae: Mhvae) -> None:
    Path("scans/x/y").mkdir(parents=True)
    shutil.copy("scans/a.png", "scans/x/y/a.png")
    ended = mhvae("segment", "scans", "-r", "-o", "masks")
    assert ended.code == 0 and ended.lines[-1] == "masks/x/y/a.png"
    assert np.array_equal(pixels("masks/x/y/a.png"), pixels("masks/a.png"))


def test_flag_beats_environment(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setenv("MHVAE_MODEL", "no-such-model")
    ended = mhvae("segment", "scans", "-o", "masks")
    assert ended.code == 6 and "no-such-model" in ended.stderr and not Path("masks").exists()
    assert mhvae("segment", "scans", "-o", "masks", "-m", tiny_model).code == 0


def test_a_device_asked_for_by_name_never_falls_back(mhvae: Mhvae) -> None:
    ended = mhvae("segment", "scans", "-o", "masks", "--device", "cuda:99")
    assert ended.code == 5 and "cuda:99" in ended.stderr and not Path("masks").exists()


def test_a_full_disk_is_7_and_leaves_nothing_half(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def full(source: Path, target: Path) -> None:
        if Path(target).name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    ended = mhvae("segment", "scans", "-o", "masks")
    assert ended.code == 7 and "error: masks/b.png: no space left on device" in ended.stderr
    assert listing() == ["a.png", "results.csv"] and [row["status"] for row in table()] == ["ok"]


def test_a_row_that_does_not_fit_leaves_no_trace(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write

    def short(file: int, data: bytes) -> int:
        return write(file, data[:9] if data.startswith(b"scans/b.png") else data)

    monkeypatch.setattr(os, "write", short)
    ended = mhvae("segment", "scans", "-o", "masks")
    assert ended.code == 7 and "results.csv: no space left" in ended.stderr
    assert [row["input"] for row in table()] == ["scans/a.png"]


def test_outputs_that_cannot_be_made(mhvae: Mhvae) -> None:
    Path("file").write_text("")
    ended = mhvae("segment", "scans", "-o", "file/masks/")
    assert ended.code == 7 and ended.stderr.startswith("error: file/masks")
    Path("masks/a.png").mkdir(parents=True)
    ended = mhvae("segment", "scans", "-o", "masks", "--existing", "overwrite")
    assert ended.code == 7 and "masks/a.png" in ended.stderr


def test_a_bug_is_one_line_and_exit_1(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: object, batch: np.ndarray, **_: object) -> np.ndarray:
        raise KeyError("weights")

    monkeypatch.setattr("mhvae_cli.inference.networks.Networks.posterior", broken)
    ended = mhvae("segment", "scans/a.png", "-o", "m.png")
    assert ended.code == 1 and "internal error: KeyError" in ended.stderr
    assert "Traceback" not in ended.stderr and not Path("m.png").exists()
    assert "Traceback" in mhvae("segment", "scans/a.png", "-o", "m.png", "-v").stderr


def test_quiet_and_verbose(mhvae: Mhvae) -> None:
    assert mhvae("segment", "scans", "-o", "q", "-q").stderr == ""
    assert "3 done: 3 ok" in mhvae("segment", "scans", "-o", "n").stderr
    assert "tiny" in mhvae("segment", "scans", "-o", "v", "-v").stderr
    assert "\r" in mhvae("segment", "scans", "-o", "p", "--progress", "on").stderr


@pytest.fixture
def crowd() -> None:
    """Enough inputs that a run is still going when it is stopped."""
    for number in range(400):
        os.link("scans/a.png", f"scans/n{number:03}.png")


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command as a process of its own, its output in pipes."""
    started: list[subprocess.Popen[str]] = []

    def begin(*args: str, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.Popen[str]:
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-m", "mhvae_cli", *args],
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_everything_whole(
    start: Callable[..., subprocess.Popen[str]], crowd: None, number: signal.Signals
) -> None:
    process = start("segment", "scans", "-o", "masks", "-j", "2")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number and time.monotonic() - begun < 10
    assert "Traceback" not in errors and "stopped" in errors
    rows = table()
    assert 0 < len(rows) < 403 and all(row["status"] == "ok" for row in rows)
    assert listing() == sorted([*(Path(row["output"]).name for row in rows), "results.csv"])
    assert all(pixels(row["output"]).shape == (64, 80) for row in rows)


def test_a_killed_run_leaves_a_whole_table(
    start: Callable[..., subprocess.Popen[str]], crowd: None, mhvae: Mhvae
) -> None:
    process = start("segment", "scans", "-o", "masks")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.communicate()
    rows = table()
    assert rows and {Path(row["output"]).name for row in rows} <= set(listing())
    assert mhvae("segment", "scans", "-o", "masks", "--existing", "skip").code == 0
    assert len(table()) == 403 == len(list(Path("masks").glob("*.png")))


def test_a_closed_pipe_ends_quietly(start: Callable[..., subprocess.Popen[str]], crowd: None) -> None:
    process = start("segment", "scans", "-o", "masks")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, errors = process.communicate(timeout=30)
    assert errors == "" and process.returncode == 141
    assert 0 < len(table()) < 403


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stdout_is_7(start: Callable[..., subprocess.Popen[str]]) -> None:
    with open("/dev/full", "w") as full:
        process = start("segment", "scans/a.png", "-o", "-", stdout=full)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 7 and errors == "error: stdout: no space left on device\n"


def test_the_first_mask_waits_for_little_more_than_torch(tiny_model: Path) -> None:
    code = (
        "import sys\nfrom mhvae_cli.cli import app\n"
        "try: app(['segment', 'scans/a.png', '-o', 'a.png'])\n"
        "except SystemExit as end: code = end.code\n"
        "heavy = ['torch._dynamo', 'sympy', 'scipy', 'rich', 'huggingface_hub']\n"
        "print(code, [name for name in heavy if name in sys.modules], file=sys.stderr)\n"
    )
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.stderr == "0 []\n"
