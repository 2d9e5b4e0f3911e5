"""Which files are inputs and what they are called; DICOM, 16-bit and float inputs through the commands."""

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.dicom_files import ID, NAME, dicom
from support.pictures import picture
from support.run_folders import Fork, rows, states

from mhvae_cli.images.encode import encode_png, encode_tiff
from mhvae_cli.images.read import read_mask, read_scan, read_text
from mhvae_cli.images.transforms import to_uint8
from mhvae_cli.runs.inputs import Item, gather
from mhvae_cli.training.phantoms import phantom

HEAD, _ = phantom("fetal-head", 3, (64, 80))
DEEP = HEAD.astype(np.uint16) * 9 + 300
SIZE = {"BitsStored": 12, "HighBit": 11}


def named(*operands, **options):
    items = gather([str(each) for each in operands], **options).items
    return [(item.name, str(item.stem), item.page) for item in items]


# --- which files -----------------------------------------------------------------------------------------


def test_a_folder_of_dicom_with_and_without_suffixes(here):
    data = dicom(HEAD)
    Path("scans/series").mkdir(parents=True)
    for name in ("IM-2", "IM-10", "1.2.840.5", "1.2.840.6", "a.dcm", "b.IMA", "series/I1", ".hidden"):
        Path("scans", name).write_bytes(data)
    for name in ("DICOMDIR", "notes.txt", "README", "table.csv", "scan.foo"):
        Path("scans", name).write_bytes(data if name in ("DICOMDIR", "scan.foo") else b"text")
    flat = ["1.2.840.5", "1.2.840.6", "a", "b", "IM-2", "IM-10"]
    assert [stem for _, stem, _ in named("scans")] == flat
    assert [stem for _, stem, _ in named("scans", recursive=True)] == [*flat, "series/I1"]
    assert named("scans/IM-2", "scans/scan.foo") == [("scans/IM-2", "IM-2", 0), ("scans/scan.foo", "scan", 0)]


def test_frames_are_inputs_whatever_the_file_is_called(here):
    frames = np.stack([HEAD] * 11)
    for name in ("cine.dcm", "IM-1", "plain.dcm"):
        Path(name).write_bytes(dicom(HEAD) if name == "plain.dcm" else dicom(frames, frames=11))
    found = named("cine.dcm", "IM-1", "plain.dcm")
    assert [stem for _, stem, _ in found[:11]] == [f"cine_p{page:02d}" for page in range(11)]
    assert found[10] == ("cine.dcm", "cine_p10", 10)
    assert found[11] == ("IM-1", "IM-1_p00", 0) and found[-1] == ("plain.dcm", "plain", 0)


def test_files_whose_suffix_tells_are_not_opened(here, monkeypatch):
    Path("scans").mkdir()
    for name in ("a.png", "b.jpg", "c.txt"):
        Path("scans", name).write_bytes(b"never read")
    opened = []
    monkeypatch.setattr("builtins.open", lambda path, *_, **__: opened.append(path))
    monkeypatch.setattr(Path, "open", lambda path, *_, **__: opened.append(path))
    assert len(named("scans")) == 2 and not opened


def test_ten_thousand_inputs_take_few_bytes_and_little_time(here):
    import tracemalloc

    Path("scans").mkdir()
    data = encode_png(np.zeros((4, 4), np.uint8))
    for number in range(10_000):
        Path("scans", f"ISIC_{number:07d}.png").write_bytes(data)
    gather(["scans/ISIC_0000000.png"])
    begun = time.process_time()
    assert len(gather(["scans"]).items) == 10_000
    assert time.process_time() - begun < 3
    tracemalloc.start()
    items = gather(["scans"]).items
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 350 * len(items) and peak < 900 * len(items)


def test_an_item_is_a_path_and_what_it_is_called(here):
    item = Item("a/b.png", "a/b.png", "a/b")
    assert (item.source, item.stem) == (Path("a/b.png"), Path("a/b"))
    assert Item("stdin", b"data", "stdin").source == b"data"


# --- through the commands --------------------------------------------------------------------------------


def test_segment_reads_dicom_and_tells_millimetres(mhvae, tiny_model, here):
    Path("in").mkdir()
    Path("in/one.dcm").write_bytes(dicom(HEAD, PixelSpacing=[0.3, 0.2]))
    Path("in/cine").write_bytes(dicom(np.stack([DEEP, DEEP]), frames=2, **SIZE))
    Path("in/plain.png").write_bytes(encode_png(HEAD))
    Path("in/report.dcm").write_bytes(dicom(HEAD, Rows=0))
    ended = mhvae("segment", "in", "-o", "out", "-m", tiny_model)
    assert ended.code == 3 and sorted(ended.lines) == [
        f"out/{n}.png" for n in ("cine_p0", "cine_p1", "one", "plain")
    ]
    masks = {name: read_mask(Path(f"out/{name}.png")) for name in ("one", "plain", "cine_p1")}
    np.testing.assert_array_equal(masks["one"], masks["plain"])
    assert masks["cine_p1"].shape == HEAD.shape
    by_name = {(row["input"], row["page"]): row for row in rows("out")}
    assert (
        by_name["in/one.dcm", "0"]["spacing_x"] == "0.2" and by_name["in/one.dcm", "0"]["spacing_y"] == "0.3"
    )
    area = float(by_name["in/one.dcm", "0"]["area_px"]) * 0.06
    assert float(by_name["in/one.dcm", "0"]["area_mm2"]) == pytest.approx(area)
    assert by_name["in/plain.png", "0"]["area_mm2"] == "" == by_name["in/cine", "1"]["area_mm2"]
    assert by_name["in/report.dcm", "0"]["error"] == "DICOM file without an image"


def test_dicom_on_stdin(mhvae, tiny_model, here):
    ended = mhvae("segment", "-", "-o", "-", "-m", tiny_model, stdin=dicom(HEAD))
    Path("a.png").write_bytes(encode_png(HEAD))
    mhvae("segment", "a.png", "-o", "b.png", "-m", tiny_model)
    np.testing.assert_array_equal(read_mask(ended.stdout), read_mask(Path("b.png")))


def test_no_output_has_anything_of_the_patient(mhvae, tiny_refined, here):
    Path("in").mkdir()
    Path("in/a.dcm").write_bytes(dicom(DEEP, **SIZE, ImageComments=NAME, PixelSpacing=[0.1, 0.1]))
    Path("in/b.dcm").write_bytes(dicom(DEEP)[:-9])
    said = []
    for verb, *options in (
        ("segment", "--overlay", "--json"),
        ("segment", "--format", "geojson", "--existing", "overwrite"),
        ("reconstruct", "--save-latents", "--steps", "1", "--format", "tiff"),
    ):
        ended = mhvae(verb, "in", "-o", "out", "-m", tiny_refined, "-v", *options)
        assert ended.code == 3, ended.stderr
        said += [ended.stdout, ended.stderr.encode()]
    ended = mhvae("inspect", "in", "--json")
    said += [ended.stdout, ended.stderr.encode()]
    assert json.loads(ended.lines[0])["bits"] == 16
    files = [path.read_bytes() for path in Path("out").rglob("*") if path.is_file()]
    assert len(files) >= 6
    for data in [*said, *files]:
        assert NAME.encode() not in data and ID.encode() not in data and b"19700101" not in data


@pytest.mark.parametrize("kind", ["png", "tiff", "float", "dicom"])
def test_the_window_decides_what_the_network_sees(mhvae, tiny_model, here, kind):
    """The mask of wide numbers under --window is that of the 8-bit picture it shows."""
    levels = (HEAD.astype(np.uint16) - HEAD.min()) * 13 + 500
    levels[:8] = 4095  # a console's text, far above the tissue: percentiles see it
    source = Path(f"deep.{ {'float': 'tiff', 'dicom': 'dcm'}.get(kind, kind) }")
    if kind == "float":
        Image.fromarray(levels.astype(np.float32) / 4 - 1).save(source)
    else:
        encode = {"png": encode_png, "tiff": encode_tiff, "dicom": lambda a: dicom(a, **SIZE)}
        source.write_bytes(encode[kind](levels))
    window = (500 / 4 - 1, 1500 / 4 - 1) if kind == "float" else (500, 1500)
    shown = np.clip((levels.astype(float) - 500) / 1000, 0, 1)
    Path("shown.png").write_bytes(encode_png(np.rint(shown * 65535).astype(np.uint16)))
    runs = {"a": (source, f"{window[0]},{window[1]}"), "b": (source, "auto"), "c": ("shown.png", "full")}
    masks = {}
    for name, (file, option) in runs.items():
        ended = mhvae("segment", file, "-o", f"{name}.png", "-m", tiny_model, "--window", option)
        assert ended.code == 0, ended.stderr
        masks[name] = read_mask(Path(f"{name}.png"))
    assert (masks["a"] != masks["c"]).sum() <= 2 < (masks["a"] != masks["b"]).sum()


def test_made_pictures_have_the_windows_numbers(mhvae, tiny_model, here):
    """What is black under --window is written as LO, what is white as HI; the rest of the file is kept."""
    Path("deep.png").write_bytes(encode_png(DEEP))
    plain, *_ = (to_uint8(DEEP, (300, 2595)),)
    Path("plain.png").write_bytes(encode_png(plain))
    common = ("-m", tiny_model, "--no-refine", "--window", "300,2595")
    for name in ("deep", "plain"):
        ended = mhvae("reconstruct", f"{name}.png", "-o", f"{name}_again.png", *common)
        assert ended.code == 0, ended.stderr
    deep, eight = (read_scan(Path(f"{name}_again.png")).pixels for name in ("deep", "plain"))
    assert (deep.dtype, eight.dtype) == (np.uint16, np.uint8)
    np.testing.assert_allclose(deep, 300 + eight / 255 * 2295, atol=20)
    record = read_text(Path("deep_again.png"))["mhvae"]
    assert "--window 300,2595" in record
    moved = ("warp", "deep.png", "--shift", "3,0", "-o", "moved.png", *common)
    assert mhvae(*moved).code == 0
    kept = read_scan(Path("moved.png")).pixels
    assert (kept[:, :4] == DEEP[:, :4]).mean() > 0.75  # all but the object


@pytest.mark.parametrize("window", ["", "all", "5", "5,5", "9,5", "nan,5", "0,inf", "0,nan", "1,2,3", "a,b"])
@pytest.mark.parametrize("verb", ["segment", "reconstruct"])
def test_windows_that_make_no_sense_are_usage_errors(mhvae, here, verb, window):
    Path("a.png").write_bytes(encode_png(HEAD))
    ended = mhvae(verb, "a.png", "-o", "b.png", "--window", window)
    assert (
        ended.code == 2
        and ended.stderr.startswith(f"error: --window {window}: ")
        and "hint: " in ended.stderr
    )
    assert not Path("b.png").exists()


Mhvae = Callable[..., Any]


def test_names_in_a_folder(mhvae: Mhvae, here: Path) -> None:
    for name in ("scan10.png", "scan2.JPG", "Scan1.tif", ".hidden.png", "notes.txt", "sub/x.png"):
        (here / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "notes.txt":
            (here / "scans" / name).write_text("no image")
        else:
            picture(here / "scans" / name)
    ended = mhvae("segment", "scans", "-o", "masks", "--dry-run")
    assert ended.code == 0 and ended.lines == ["masks/Scan1.png", "masks/scan2.png", "masks/scan10.png"]
    assert not (here / "masks").exists()
    deep = mhvae("segment", "scans", "-r", "-o", "masks/", "--dry-run")
    assert deep.lines == [*ended.lines, "masks/sub/x.png"]
    assert mhvae("segment", "scans/sub/x.png", "--dry-run").lines == ["x.png"]  # the current folder
    again = mhvae("segment", "scans", "scans/scan2.JPG", "./scans/../scans/scan10.png", "--dry-run")
    assert again.lines == ["Scan1.png", "scan2.png", "scan10.png"]  # each file once


def test_results_inside_the_inputs_are_no_inputs(mhvae: Mhvae, here: Path) -> None:
    picture(here / "scans/x/a.png")
    picture(here / "scans/masks/x/a.png")
    args = ("segment", "scans", "-r", "-o", "scans/masks/", "--existing", "overwrite", "--dry-run")
    assert mhvae(*args).lines == ["scans/masks/x/a.png"]


def test_globs_and_literals(mhvae: Mhvae, here: Path) -> None:
    for name in ("scan[1].png", "scan1.png", "scan2.png", "d/deep.png"):
        picture(here / name)
    dry = ("-o", "m/", "--dry-run")
    assert mhvae("segment", "scan[1].png", *dry).lines == ["m/scan[1].png"]
    assert mhvae("segment", "scan[12].png", *dry).lines == ["m/scan1.png", "m/scan2.png"]
    assert mhvae("segment", "**/d*.png", *dry).lines == ["m/deep.png"]
    ended = mhvae("segment", "nothing*.png", "scan1.png", *dry)
    assert ended.code == 3 and "nothing*.png: no matching files" in ended.stderr


def test_lists(mhvae: Mhvae, here: Path) -> None:
    picture(here / "a b.png")
    picture(here / "c.png")
    (here / "list.txt").write_text("a b.png\n\nc.png\r\n")
    lines = ["m/a b.png", "m/c.png"]
    assert mhvae("segment", "--from-file", "list.txt", "-o", "m", "--dry-run").lines == lines
    assert (
        mhvae("segment", "--from-file", "-", "-o", "m", "--dry-run", stdin=b"a b.png\nc.png").lines == lines
    )
    missing = mhvae("segment", "--from-file", "no.txt")
    assert missing.code == 4 and missing.stderr.startswith("error: no.txt: no such file")


def test_the_lines_of_a_list_end_at_line_feeds_alone(mhvae: Mhvae, here: Path) -> None:
    names = [f"a{separator}b.png" for separator in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r"]
    for name in ("first.png", *names):
        picture(here / name)
    text = "\ufefffirst.png\r\n" + "\n".join(names) + "\r\n"
    (here / "list.txt").write_bytes(text.encode())
    for source, stdin in (("list.txt", None), ("-", text.encode())):
        ended = mhvae("segment", "--from-file", source, "-o", "m", "--dry-run", "--json", stdin=stdin)
        assert ended.code == 0
        assert [json.loads(line)["input"] for line in ended.lines] == ["first.png", *names]


def test_paths_that_end_in_nul(mhvae: Mhvae, here: Path) -> None:
    names = ["plain.png", "two\nlines.png", "\r\n.png", " .png", os.fsdecode(b"caf\xe9.png")]
    for name in names:
        picture(here / name)
    data = b"".join(os.fsencode(name) + b"\0" for name in names)
    (here / "list0").write_bytes(data)
    for verb in ("segment", "reconstruct"):
        for source, stdin in (("list0", None), ("-", data)):
            ended = mhvae(verb, "--from-file0", source, "-o", "m", "--dry-run", "--json", stdin=stdin)
            assert ended.code == 0 and [json.loads(line)["input"] for line in ended.lines] == names
    assert len(mhvae("inspect", "--from-file0", "list0", "--json").lines) == len(names)
    both = mhvae("segment", "--from-file", "-", "--from-file0", "-", stdin=data)
    assert both.code == 2 and "stdin can be read only once" in both.stderr
    wrong = mhvae("segment", "--from-file", "list0", "-o", "m", "--dry-run")
    assert wrong.code == 4 and wrong.stderr.startswith("error: list0: contains NUL characters\nhint: ")
    assert "--from-file0" in wrong.stderr


def test_a_list_or_an_image_without_end(
    mhvae: Mhvae, here: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setattr("mhvae_cli.runs.inputs.LIST_BYTES", 2**20)
    monkeypatch.setattr("mhvae_cli.runs.inputs.STDIN_BYTES", 2**20)
    (here / "list").symlink_to("/dev/zero")
    zeros = bytes(2**20 + 1)
    for option, source, stdin in (
        ("--from-file", "list", None),
        ("--from-file0", "list", None),
        ("--from-file", "-", zeros),
    ):
        ended = mhvae("segment", option, source, "-o", "m", stdin=stdin)
        assert ended.code == 4 and ended.stderr.startswith(f"error: {source}: larger than 1 MiB")
    ended = mhvae("segment", "-", "-o", "m/", stdin=zeros)
    assert ended.code == 4 and ended.stderr.startswith("error: stdin: larger than 1 MiB")


def test_a_list_may_be_a_fifo(mhvae: Mhvae, here: Path) -> None:
    picture(here / "a.png")
    os.mkfifo(here / "list")
    threading.Thread(target=lambda: (here / "list").write_text("a.png\n")).start()
    ended = mhvae("segment", "--from-file", "list", "-o", "m", "--dry-run", "--json")
    assert [json.loads(line)["input"] for line in ended.lines] == ["a.png"]


def test_pages(mhvae: Mhvae, here: Path) -> None:
    picture(here / "three.tif", 3)
    picture(here / "many.tiff", 11)
    assert mhvae("segment", "three.tif", "--dry-run").lines == [f"three_p{i}.png" for i in range(3)]
    assert mhvae("segment", "many.tiff", "--dry-run").lines == [f"many_p{i:02}.png" for i in range(11)]
    assert mhvae("segment", "three.tif", "-o", "-").code == 2


# --- files that are not regular ---------------------------------------------------------------------------


@pytest.fixture
def pipe(three_scans: None) -> str:
    """A FIFO that nobody writes: whoever opens it waits for ever."""
    os.mkfifo("pipe.png")
    return "pipe.png"


def ended_in_time(*args: object) -> tuple[int, str]:
    """The exit code and stderr of a command that is killed after 30 s, in a process of its own."""
    return Fork(*args, first=lambda: signal.alarm(30) and None).wait()


@pytest.mark.parametrize("verb", [("segment",), ("segment", "-j", 0), ("reconstruct", "--no-refine")])
def test_what_is_not_a_regular_file_costs_its_own_row(pipe: str, verb: tuple[str, ...]) -> None:
    os.rename(pipe, "scans/pipe.png")
    Path("scans/zero.png").symlink_to("/dev/zero")
    Path("scans/folder.png").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("scans/socket.png")
    code, errors = ended_in_time(*verb, "scans", "-o", "m")
    assert code == 3 and states() == {
        **dict.fromkeys(("a", "b", "c"), "ok"),
        **dict.fromkeys(("pipe", "zero", "socket", "folder"), "failed"),
    }
    told = {Path(row["input"]).stem: row["error"] for row in rows() if row["error"]}
    odd = dict.fromkeys(("pipe", "zero", "socket"), "not a regular file")
    assert told == {**odd, "folder": "is a directory"} and "error: scans/pipe.png: not a" in errors
    code, errors = ended_in_time(*verb, "scans", "-o", "m", "--existing", "skip")
    assert code == 3
    names = ("scans/a.png", "scans/zero.png", "scans/pipe.png")
    assert ended_in_time(*verb, *names, "-o", "n")[0] == 3 and states("n")["pipe"] == "failed"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("segment {}", 4),
        ("inspect {}", 4),
        ("swap-style scans/a.png {}", 4),
        ("warp scans/a.png --theta {}", 4),
        ("interpolate scans/a.png {}", 4),
        ("evaluate masks masks", 4),
        ("segment scans/a.png -o m/ --spacing-csv {}", 2),
        ("segment scans/a.png -o m/ -m model", 6),
        ("models import {}", 6),
        ("models verify model", 6),
        ("train-vae --data data --out run --config {}", 2),
        ("train-vae --data data --out run", 4),
        ("train-vae --data heads --out run --reference {}", 4),
    ],
)
def test_a_pipe_is_never_opened(
    pipe: str, tiny_model: Path, phantom_folder: Path, command: str, code: int
) -> None:
    shutil.copytree(tiny_model, "model")
    shutil.copytree(phantom_folder, "data")
    Path("heads").symlink_to(phantom_folder)
    Path("masks").mkdir()
    for place in ("model/README.md", "model/cddpm.safetensors", "masks/pipe.png"):
        Path(place).unlink(missing_ok=True)
        os.mkfifo(place)
    mask = min(Path("data/masks").iterdir())
    mask.unlink()
    os.mkfifo(mask)
    found, errors = ended_in_time(*command.format(pipe).split())
    assert found == code and "not a regular file" in errors and "Traceback" not in errors, errors
