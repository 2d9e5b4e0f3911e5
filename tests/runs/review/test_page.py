"""The review page: order, earlier pages, and in a browser, if there is one."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import chromium
from support.chromium import Chromium
from support.review_pages import COLUMNS, EVIL, Parsed, failure, names, page, result, rings_of, thumb

from mhvae_cli.errors import OutputError, UsageError
from mhvae_cli.inference.networks import Networks
from mhvae_cli.runs.review.page import Review, check_page

Mhvae = Callable[..., Any]


def test_flagged_first_then_failed_then_the_others_in_order(tmp_path: Path) -> None:
    rows = [result("a10.png"), failure("b.png", "empty file"), result("c.png", qc="warn", qc_why="theta")]
    rows += [result("d.png", qc=None), result("e.png", qc="warn", qc_why="theta;folds"), result("f.png")]
    rows += [result("g.png", status="missed", error="dice 0.5, below 0.9")]
    parsed = Parsed(page(tmp_path / "night.html", rows))
    assert names(parsed) == ["e.png", "c.png", "g.png", "b.png", "a10.png", "f.png", "d.png"]
    assert [row["kind"] for row in parsed.rows] == ["flagged"] * 3 + ["failed", "ok", "ok", "done"]
    assert "theta, folds" in parsed.rows[0]["cells"][1] and "below 0.9" in parsed.rows[2]["cells"][1]
    assert parsed.rows[3]["cells"][3] == "empty file"
    for told in ("all 7", "flagged 3", "failed 1", "ok 2", "not checked 1", "theta 2", "folds 1"):
        assert told in parsed.text
    assert "Stopped" not in parsed.text


def test_a_run_that_stopped_says_so(tmp_path: Path) -> None:
    run = {"model": "fetal-head", "versions": {"mhvae": "9.9", "torch": None}, "dtype": None}
    text = Parsed(page(tmp_path / "night.html", [result("a.png")], total=1234, **run)).text
    assert "Stopped: 1 of 1,234 inputs" in text
    assert "fetal-head" in text and "mhvae 9.9" in text and "None" not in text


def test_rows_of_earlier_runs_keep_their_pictures(tmp_path: Path) -> None:
    path, table = tmp_path / "night.html", tmp_path / "results.csv"
    rows = [result("a.png", qc="warn", qc_why="theta"), result("b.png"), result("gone.png")]
    first = page(path, rows)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS[:3], "another", *COLUMNS[3:]])
        writer.writeheader()
        writer.writerows([rows[0], {**rows[1], "made_by": "another model"}, result("new.png")])
    review = Review(path, title="mhvae segment", columns=COLUMNS, total=4)
    review.add(result("new.png"), thumb(200))
    stale = {"a": "", "b": "made by another model", "lost": ""}
    review.add_earlier(table, {(f"{n}.png", "0", f"out/{n}.png"): why for n, why in stale.items()})
    review.write({})
    review.close()
    parsed = Parsed(path.read_text())
    assert names(parsed) == ["a.png", "b.png", "new.png", "lost.png"]
    assert "stale: made by another model" in parsed.rows[1]["cells"][1]
    assert "3 rows are from earlier runs, 2 of them without an image" in parsed.text
    assert ["earlier run" in row["cells"][2] for row in parsed.rows] == [True, True, False, True]
    line = next(line for line in path.read_text().splitlines() if "a.png" in line and "<svg" in line)
    assert re.search("<svg.*?</svg>", line)[0] in first  # type: ignore[index]
    assert path.read_text().count("<svg") == 2


def test_pages_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="html"):
        check_page(tmp_path / "scan.png", "overwrite")
    there = tmp_path / "there.html"
    check_page(there, "error")
    there.write_text("mine")
    with pytest.raises(OutputError, match="already exists"):
        check_page(there, "error")
    check_page(there, "skip")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        Review(tmp_path / "file" / "night.html", title="", columns=COLUMNS, total=1)
    review = Review(there, title="", columns=COLUMNS, total=1)
    review.add(result("a.png"), thumb())
    monkeypatch.setattr(
        "os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OutputError, match="no space left"):
        review.write({})
    review.close()
    assert there.read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == [
        "file",
        "there.html",
    ]


def test_a_killed_run_leaves_nothing(tmp_path: Path) -> None:
    code = f"""
import os
from pathlib import Path
from mhvae_cli.runs.review.page import Review
columns = ("input", "output", "status")
review = Review(Path({str(tmp_path / "night.html")!r}), title="", columns=columns, total=9)
for i in range(5000): review.add(dict(input="x" * 100, status="ok"))
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if chromium.COMMAND is None:
        pytest.skip("no Chromium here")
    with Chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


FRAME = (
    "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
)
SHOWN = "[...body.rows].filter((row) => !row.hidden).map((row) => values(row)[0])"


def test_in_a_browser(browser: Chromium, tmp_path: Path) -> None:
    rows = [result(f"s{i}.png", hc_mm=mm) for i, mm in ((10, 30.0), (9, None), (2, 4.0))]
    rows += [result(EVIL[0], qc="warn", qc_why="theta", hc_mm=250.0), failure("f.png")]
    rows += [result(f"more{i:03}.png", hc_mm=500.0 + i) for i in range(300)]
    page(tmp_path / "night.html", rows, model="fetal-head")
    browser.open(tmp_path / "night.html")
    assert browser.run(SHOWN)[:5] == [EVIL[0], "f.png", "s10.png", "s9.png", "s2.png"]
    browser.run("document.querySelector('[data-sort^=hc_mm]').click()")
    assert browser.run(SHOWN)[:3] == ["s2.png", "s10.png", EVIL[0]] and browser.run(SHOWN)[-1] in (
        "f.png",
        "s9.png",
    )
    browser.run("document.querySelector('[data-sort^=hc_mm]').click()")
    assert browser.run(SHOWN)[0] == "more299.png" and browser.run(SHOWN)[-1] in ("f.png", "s9.png")
    browser.run("document.querySelector('[data-sort^=input]').click()")
    assert [name for name in browser.run(SHOWN) if name[0] == "s"] == ["s2.png", "s9.png", "s10.png"]
    browser.run("$('text').value = 'theta'; $('text').dispatchEvent(new Event('input'))")
    assert browser.run(SHOWN) == [EVIL[0]]
    browser.run("$('text').value = ''; document.querySelector('[data-kind=failed]').click()")
    assert browser.run(SHOWN) == ["f.png"]
    browser.run("document.querySelector('[data-kind=\"\"]').click(); sort('', false)")
    for key in ("j", "x", "j", "k", "Enter"):
        browser.press(key)
    assert browser.run("[dialog.open, $('name').textContent]") == [True, EVIL[0]]
    browser.press("j")
    browser.press("x")
    assert browser.run("[$('name').textContent, $('marks').textContent]") == ["f.png", "2"]
    browser.press("Escape")
    browser.run("dialog.close(); document.querySelector('[data-kind=marked]').click()")
    assert browser.run(SHOWN) == [EVIL[0], "f.png"]
    saved = browser.run(
        "new Promise((done) => { URL.createObjectURL = (blob) => { blob.text().then(done); return '#'; };"
        " save(); })"
    )
    assert list(csv.reader(io.StringIO(saved))) == [
        ["input", "page", "output"],
        [EVIL[0], "0", f"out/{EVIL[0]}"],
        ["f.png", "0", ""],
    ]
    asked = [
        e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"
    ]
    assert all(url.startswith(("file://", "data:")) for url in asked)
    assert sum(url.startswith("file://") for url in asked) == 1
    assert not [e for e in browser.events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]


def test_pictures_are_drawn_and_foreign_scripts_are_not_run(browser: Chromium, tmp_path: Path) -> None:
    text = page(tmp_path / "night.html", [result("a.png")])
    tampered = text.replace("<tbody>", "<tbody><script>document.title = 'run'</script>", 1)
    (tmp_path / "tampered.html").write_text(tampered)
    browser.open(tmp_path / "tampered.html")
    assert browser.run("document.title") == "mhvae segment"
    browser.open(tmp_path / "night.html")
    browser.run(FRAME)
    browser.shot(tmp_path / "shot.png")
    x, y, width, height = browser.run(
        "(({ x, y, width, height }) => [x, y, width, height])"
        "(document.querySelector('svg').getBoundingClientRect())"
    )
    with Image.open(tmp_path / "shot.png") as image:
        shot = np.asarray(image.convert("RGB"), int)[
            round(y) : round(y + height), round(x) : round(x + width)
        ]
    cyan = (np.abs(shot - [0, 229, 255]).sum(axis=2) < 60).nonzero()
    scale = min(width / 100, height / 80)
    assert abs((cyan[1].max() - cyan[1].min()) - 80 * scale) < 4  # the square of 80 by 40 px
    assert abs((cyan[0].max() - cyan[0].min()) - 40 * scale) < 4


def test_thousands_of_rows_do_not_choke(browser: Chromium, tmp_path: Path) -> None:
    rows = [
        result(f"case{i * 7919 % 3000}.png", hc_mm=float(i * 31 % 977), qc="warn" if i % 50 == 0 else "ok")
        for i in range(3000)
    ]
    page(tmp_path / "night.html", rows)
    browser.open(tmp_path / "night.html")
    opened = browser.run(FRAME)
    took = browser.run(
        "(async () => { const begun = performance.now(); sort('hc_mm hc_px', true);"
        f" return await {FRAME} - begun; }})()"
    )
    assert browser.run(SHOWN)[0] and browser.run("body.rows.length") == 3000
    assert opened < 20_000 and took < 10_000  # a machine under load; choking is minutes


@pytest.fixture
def scans(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phantom_folder: Path, tiny_model: Path) -> Path:
    """Four phantoms, a file that is cut off and a lying name, in scans/ of the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHVAE_MODEL", str(tiny_model))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    folder = tmp_path / "scans"
    folder.mkdir()
    images = sorted((phantom_folder / "images").iterdir())[:4]
    for name, image in zip(("a.png", "b.png", "c.png", "<b>&amp;.png"), images, strict=True):
        (folder / name).write_bytes(image.read_bytes())
    (folder / "cut.png").write_bytes(images[0].read_bytes()[:300])
    return folder


def told(parsed: Parsed) -> dict[str, dict[str, Any]]:
    """The values of each row by input and column."""
    table = next(attrs for tag, attrs in parsed.tags if tag == "table")
    columns = json.loads(str(table["data-columns"]))
    return {row["values"][0]: dict(zip(columns, row["values"], strict=True)) for row in parsed.rows}


def test_segment_writes_the_page(mhvae: Mhvae, scans: Path) -> None:
    ended = mhvae("segment", "scans", "-o", "out/", "--report", "night.html", "--measure", "fetal-head")
    assert ended.code == 3 and "night.html" not in ended.lines
    parsed = Parsed(Path("night.html").read_text())
    found = told(parsed)
    with open("out/results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert found.keys() == {row["input"] for row in rows}
    for row in rows:
        for name, value in found[row["input"]].items():
            assert str(value if value is not None else "") == row[name] or value == float(row[name]), name
    assert names(parsed)[-1] != "scans/cut.png" and "truncated" in parsed.text
    for told_of in ("tiny", "torch", "--measure fetal-head", "float32"):
        assert told_of in parsed.text
    assert str(Path.home()) not in Path("night.html").read_text()
    pictures = re.findall(r'<svg viewBox="0 0 (\d+) (\d+)">', Path("night.html").read_text())
    assert len(pictures) == 4 and {(int(w), int(h)) for w, h in pictures} == {(800, 640)}


def test_outlines_lie_on_the_upright_picture(mhvae: Mhvae, scans: Path, tiny_model: Path) -> None:
    from mhvae_cli import Pipeline

    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open("scans/a.png") as image:
        image.save("turned.png", exif=exif)
    assert mhvae("segment", "turned.png", "-o", "out/", "--report", "night.html").code == 0
    outline = re.search(r'<svg viewBox="0 0 640 800">.*? d="([^"]*)"', Path("night.html").read_text())
    pipeline = Pipeline.load(str(tiny_model), device="cpu", dtype="float32")
    true = np.concatenate(pipeline.segment("turned.png").contour())
    drawn = np.concatenate(rings_of(outline[1]))  # type: ignore[index]
    assert np.abs(np.ptp(drawn, axis=0) - np.ptp(true, axis=0)).max() < 1.5
    assert np.linalg.norm(drawn[:, None] - true[None], axis=2).min(axis=1).max() < 0.5


def test_skip_shows_what_was_made_before(mhvae: Mhvae, scans: Path) -> None:
    assert mhvae("segment", "scans/a.png", "scans/b.png", "-o", "out/", "--report", "night.html").code == 0
    before = Parsed(Path("night.html").read_text())
    again = ("segment", "scans/a.png", "scans/b.png", "scans/c.png", "-o", "out/", "--report", "night.html")
    refused = mhvae(*again)
    assert refused.code == 7 and not Path("out/c.png").exists()
    ended = mhvae(*again, "--existing", "skip")
    assert ended.code == 0 and ended.lines == ["out/c.png"]
    parsed, text = Parsed(Path("night.html").read_text()), Path("night.html").read_text()
    assert sorted(names(parsed)) == [f"scans/{name}.png" for name in "abc"] and text.count("<svg") == 3
    assert "2 rows are from earlier runs." in parsed.text
    first, second = told(before), told(parsed)
    assert all(second[name]["area_px"] == first[name]["area_px"] for name in first)
    assert mhvae(*again, "--existing", "overwrite").code == 0
    assert "earlier" not in Path("night.html").read_text().partition("<table")[2].partition("</table")[0]


def test_pages_that_are_refused_cost_nothing(mhvae: Mhvae, scans: Path) -> None:
    assert mhvae("segment", "scans", "-o", "out/", "--report", "scans/a.png").code == 2
    assert mhvae("segment", "scans", "-o", "out/", "--report", "night.html", "--dry-run").code == 0
    assert sorted(path.name for path in scans.parent.iterdir()) == ["scans"]


def test_a_stopped_run_has_a_page_of_what_is_done(mhvae: Mhvae, scans: Path) -> None:
    inputs = [f"scans/{name}.png" for name in ("a", "cut", "b")]
    options = ("--on-error", "stop", "--report", "pages/night.html")
    assert mhvae("segment", *inputs, "-o", "out/", *options).code == 3
    assert "Stopped: 2 of 3 inputs" in Parsed(Path("pages/night.html").read_text()).text
    assert os.listdir("pages") == ["night.html"]


def test_an_interrupted_run_has_one_too(mhvae: Mhvae, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.inference.pipeline import Pipeline

    mask, calls = Networks.mask, []

    def interrupted(self: Pipeline, theta: np.ndarray, size: tuple[int, int], pose: Any) -> np.ndarray:
        calls.append(size)
        if len(calls) == 3:
            until = time.monotonic() + 20
            while len(Path("out/results.csv").read_text().splitlines()) < 2 and time.monotonic() < until:
                time.sleep(0.01)  # the first result is written by another thread
            raise KeyboardInterrupt
        return mask(self, theta, size, pose)

    monkeypatch.setattr(Networks, "mask", interrupted)
    inputs = [f"scans/{name}.png" for name in "abc"]
    assert mhvae("segment", *inputs, "-o", "out/", "-b", 1, "-j", 0, "--report", "night.html").code == 130
    with open("out/results.csv", newline="") as file:
        done = [row["input"] for row in csv.DictReader(file)]
    parsed = Parsed(Path("night.html").read_text())
    assert done and names(parsed) == done and f"Stopped: {len(done)} of 3 inputs" in parsed.text
