"""`mhvae interpolate`: the codes on the way and over the grid, one path of noise, the GIF and the sheet."""

import csv
import json
import os
import shutil
import weakref
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from support.ended import INVENT, QUICK, SIZES, done, pixels

from mhvae_cli import Pipeline
from mhvae_cli.inference import synthesis as generation
from mhvae_cli.training.phantoms import phantom

Mhvae = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("three_sizes")


def frames_of(path: str) -> list[np.ndarray]:
    with Image.open(path) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.array(image.convert("L")))
        return found


def codes(pipeline: Pipeline) -> list[dict[str, np.ndarray]]:
    """What the encoder finds in a.png and in b.png."""
    found = [pipeline.source(Path(f"{name}.png")).code for name in "ab"]
    return [{"z": code.z, "theta": code.theta} for code in found]


def record_of(mhvae: Mhvae, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done(mhvae("inspect", path, "--json"))[0])["record"]
    return found


@pytest.mark.parametrize(
    ("mode", "style", "position"), [(None, 1, 1), ("--style-only", 1, 0), ("--position-only", 0, 1)]
)
def test_codes_go_evenly_along_the_way(
    mhvae: Mhvae, pipeline: Pipeline, mode: str | None, style: int, position: int
) -> None:
    options = [*([mode] if mode else []), "--frames", 5, "--save-latents", "--no-refine"]
    lines = done(mhvae("interpolate", "a.png", "b.png", "-o", "o", *options))
    endings = (".png", "_mask.png", ".safetensors", ".json")
    assert lines == [f"o/a__to-b_{number}{end}" for number in range(5) for end in endings]
    a, b = codes(pipeline)
    for number in range(5):
        made, share = load_file(f"o/a__to-b_{number}.safetensors"), number / 4
        for name, moves in (("z", style), ("theta", position)):
            wanted = (1 - share * moves) * a[name] + share * moves * b[name]
            np.testing.assert_allclose(made[name], wanted, atol=1e-6)
        mask = pixels(f"o/a__to-b_{number}_mask.png") > 0
        assert np.array_equal(mask, pipeline.networks.mask(made["theta"], SIZES["a"], made.get("pose")))
        assert pixels(f"o/a__to-b_{number}.png").shape == SIZES["a"]
    rows = list(csv.DictReader(Path("o/results.csv").read_text().splitlines()))
    assert [(row["input"], row["to"]) for row in rows] == [("a.png", "b.png")] * 5
    assert [float(row["style"]) for row in rows] == [style * n / 4 for n in range(5)]
    assert [float(row["position"]) for row in rows] == [position * n / 4 for n in range(5)]


def test_a_grid_has_styles_along_rows_and_positions_down_columns(mhvae: Mhvae, pipeline: Pipeline) -> None:
    args = ("a.png", "b.png", "--grid", "--frames", 3, "-o", "g", "--save-latents")
    lines = done(mhvae("interpolate", *args, *QUICK))
    cells = [f"g/a__to-b_r{r}_c{c}" for r, c in product(range(3), repeat=2)]
    assert [line for line in lines if "mask" not in line and line.endswith("png")] == [
        *(f"{cell}.png" for cell in cells),
        "g/a__to-b_grid.png",
    ]
    a, b = codes(pipeline)
    for cell, (r, c) in zip(cells, product(range(3), repeat=2), strict=True):
        made = load_file(f"{cell}.safetensors")
        np.testing.assert_allclose(made["z"], a["z"] + (b["z"] - a["z"]) * c / 2, atol=1e-6)
        np.testing.assert_allclose(made["theta"], a["theta"] + (b["theta"] - a["theta"]) * r / 2, atol=1e-6)
    for cell, code in ((cells[0], a), (cells[-1], b)):
        made = load_file(f"{cell}.safetensors")
        assert all(np.array_equal(made[name], code[name]) for name in ("z", "theta"))
    for row in range(3):
        masks = [Path(f"g/a__to-b_r{row}_c{c}_mask.png") for c in range(3)]
        assert np.array_equal(pixels(masks[0]), pixels(masks[2]))
    record = record_of(mhvae, f"{cells[1]}.png")
    assert record["edit"] == {"style": 0.5, "position": 0.0}
    sheet = pixels("g/a__to-b_grid.png")
    assert sheet.shape[1] == 3 * 260 + 4 and sheet.ndim == 3
    where = [np.flatnonzero((sheet < 250).any(axis=(2, axis))) for axis in (0, 1)]
    for cell, (r, c) in zip(cells, product(range(3), repeat=2), strict=True):
        left, top = where[0][0] + c * 260, where[1][-1] + 1 - (3 - r) * 205 - (2 - r) * 4
        shown = sheet[top : top + 205, left : left + 256, 0].astype(float)
        small = np.array(Image.fromarray(pixels(f"{cell}.png")).resize((256, 205)), float)
        assert np.abs(shown - small).mean() < 3
    record = record_of(mhvae, "g/a__to-b_grid.png")
    assert record["command"].startswith("mhvae interpolate --grid")
    assert record["edit"] == {"frames": 3, "mode": ["--grid"]}


def test_all_pictures_have_one_path_of_noise(mhvae: Mhvae) -> None:
    """Between an image and its copy nothing but noise could differ."""
    shutil.copy("a.png", "same.png")
    done(mhvae("interpolate", "a.png", "same.png", "--frames", 3, "-o", "o", *INVENT))
    first, *others = (pixels(f"o/a__to-same_{number}.png") for number in range(3))
    assert all(np.array_equal(first, other) for other in others)
    done(mhvae("interpolate", "a.png", "same.png", "--frames", 2, "-o", "p", "--seed", 1, *INVENT))
    assert np.abs(pixels("p/a__to-same_0.png").astype(int) - first).mean() > 1


def test_the_way_back_is_the_same_way(mhvae: Mhvae) -> None:
    Image.fromarray(pixels("b.png")).resize((80, 64)).save("b.png")
    done(mhvae("interpolate", "a.png", "b.png", "--frames", 3, "-o", "o", *QUICK))
    done(mhvae("interpolate", "b.png", "a.png", "--frames", 3, "-o", "o", *QUICK, "-b", 2, "-j", 0))
    for number in range(3):
        assert np.array_equal(
            pixels(f"o/a__to-b_{number}.png").astype(int), pixels(f"o/b__to-a_{2 - number}.png")
        )


def test_an_image_at_the_same_share_is_the_same_file(mhvae: Mhvae) -> None:
    """However many images are between the two."""
    for count, folder in ((3, "o"), (5, "p")):
        options = ("--frames", count, "--save-latents", "-o", folder, *QUICK)
        done(mhvae("interpolate", "a.png", "b.png", *options))
    for end in (".png", "_mask.png", ".safetensors", ".json"):
        for few, many in enumerate((0, 2, 4)):
            one, other = Path(f"o/a__to-b_{few}{end}"), Path(f"p/a__to-b_{many}{end}")
            assert one.read_bytes() == other.read_bytes(), one


def test_a_gif_goes_there_and_back(mhvae: Mhvae) -> None:
    lines = done(mhvae("interpolate", "a.png", "b.png", "--frames", 4, "--gif", "-o", "o", *QUICK))
    assert lines[-1] == "o/a__to-b.gif" and len(lines) == 9
    frames = frames_of("o/a__to-b.gif")
    for frame, number in zip(frames, [0, 1, 2, 3, 2, 1], strict=True):
        assert np.array_equal(frame, pixels(f"o/a__to-b_{number}.png"))
    record = record_of(mhvae, "o/a__to-b.gif")
    assert record["synthetic"] and record["sources"] == record_of(mhvae, "o/a__to-b_1.png")["sources"]
    assert record["edit"]["frames"] == 4 and len(record["sources"]) == 2
    ended = mhvae("interpolate", "a.png", "b.png", "--frames", 2, "--gif", "-o", "p", "--json", *QUICK)
    rows = [json.loads(line) for line in done(ended)]
    assert [row["output"] for row in rows] == [f"p/a__to-b{end}" for end in ("_0.png", "_1.png", ".gif")]
    assert len(frames_of("p/a__to-b.gif")) == 2


def test_sixteen_bits_are_shown_through_one_window(mhvae: Mhvae) -> None:
    wide = pixels("a.png").astype(np.uint16) * 100 + 5000
    Image.frombytes("I;16", wide.shape[::-1], wide.astype("<u2").tobytes()).save("w.png")
    args = ("w.png", "b.png", "--frames", 3, "--gif", "-o", "o")
    done(mhvae("interpolate", *args, *QUICK))
    made = [pixels(f"o/w__to-b_{number}.png") for number in range(3)]
    assert all(each.max() > 5000 for each in made)
    numbers = np.concatenate([each.ravel() for each in made])
    levels = np.concatenate([frame.ravel() for frame in frames_of("o/w__to-b.gif")[:3]]).astype(int)
    assert (np.diff(levels[np.argsort(numbers, kind="stable")]) >= 0).all()


def test_a_large_gif_is_made_smaller(mhvae: Mhvae) -> None:
    Image.fromarray(phantom("fetal-head", 0, (1100, 600))[0]).save("large.png")
    args = ("large.png", "b.png", "--frames", 2, "--gif", "-o", "o", "--no-refine")
    done(mhvae("interpolate", *args))
    assert pixels("o/large__to-b_0.png").shape == (1100, 600)
    frame = frames_of("o/large__to-b.gif")[0]
    assert frame.shape == (512, 279)
    small = np.array(Image.fromarray(pixels("o/large__to-b_0.png")).resize((279, 512)), float)
    assert np.abs(frame - small).mean() < 1


def test_numbers_are_padded_and_nothing_is_written_in_a_dry_run(mhvae: Mhvae) -> None:
    lines = done(mhvae("interpolate", "a.png", "b.png", "--frames", 11, "--gif", "-o", "o", "--dry-run"))
    assert lines[0] == "o/a__to-b_00.png" and lines[-3:] == [
        "o/a__to-b_10.png",
        "o/a__to-b_10_mask.png",
        "o/a__to-b.gif",
    ]
    lines = done(mhvae("interpolate", "a.png", "b.png", "--frames", 11, "--grid", "--dry-run"))
    assert len(lines) == 243 and lines[-2:] == ["a__to-b_r10_c10_mask.png", "a__to-b_grid.png"]
    assert sorted(os.listdir()) == [f"{name}.png" for name in SIZES]


def test_the_whole_needs_all_its_pictures(mhvae: Mhvae) -> None:
    """What is left alone cannot be in a GIF: one file missing means that all are made."""
    args = ("interpolate", "a.png", "b.png", "--frames", 3, "--gif", "-o", "o", *QUICK)
    done(mhvae(*args))
    before = {path: path.read_bytes() for path in Path("o").iterdir() if path.suffix != ".json"}
    assert mhvae(*args).code == 7
    assert done(mhvae(*args, "--existing", "skip")) == []
    for gone in ("o/a__to-b.gif", "o/a__to-b_1.png"):
        os.remove(gone)
        assert len(done(mhvae(*args, "--existing", "skip"))) == 7
        assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no inputs"),
        (["a.png"], "exactly two images, got 1"),
        (["a.png", "b.png", "c.png"], "exactly two images, got 3"),
        (["a.png", "b.png", "--frames", "1"], "--frames"),
        (["a.png", "b.png", "--grid", "--gif"], "--gif"),
        (["a.png", "b.png", "--grid", "--style-only"], "--style-only"),
        (["a.png", "b.png", "--position-only", "--style-only"], "--style-only"),
        (["a.png", "b.png", "--gif", "--frames", "101"], "100"),
        (["a.png", "b.png", "--grid", "--shard", "1/2"], "--shard"),
        (["a.png", "b.png", "-o", "-"], "-o -"),
    ],
)
def test_usage_errors(mhvae: Mhvae, args: list[str], said: str) -> None:
    before = sorted(os.listdir())
    ended = mhvae("interpolate", *args)
    first, *rest = ended.stderr.splitlines()
    assert ended.code == 2 and not ended.lines and sorted(os.listdir()) == before
    assert first.startswith("error: ") and said in first and len(rest) <= 1


def test_an_image_that_fails_is_told_of_once(mhvae: Mhvae) -> None:
    Path("bad.png").write_bytes(Path("a.png").read_bytes()[:200])
    for name, fault in (("gone.png", "no such file or folder"), ("bad.png", "truncated PNG")):
        ended = mhvae("interpolate", "a.png", name, "--gif", "-o", "o", "-q", *QUICK)
        assert ended.code == 4 and ended.stderr == f"error: {name}: {fault}\n" and not ended.lines
    assert sorted(os.listdir("o")) == ["mhvae-inputs.csv", "mhvae-run.json", "results.csv"]


def test_pictures_do_not_pile_up(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most, make = 0, generation.make

    def noted(*args: Any, **how: Any) -> Any:
        nonlocal most
        found = make(*args, **how)
        alive.extend(map(weakref.ref, found))
        most = max(most, sum(each() is not None for each in alive))
        return found

    monkeypatch.setattr(generation, "make", noted)
    done(mhvae("interpolate", "a.png", "b.png", "--frames", 30, "--gif", "-o", "o", "--no-refine"))
    assert len(alive) == 30 and most <= 5
