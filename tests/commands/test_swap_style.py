"""`mhvae swap-style`: whose style and whose position a picture has, every pair, and what is refused."""

import csv
import json
import os
import shutil
import weakref
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from support.ended import INVENT, QUICK, SIZES, done, pixels

from mhvae_cli import Pipeline
from mhvae_cli.images import read as imaging
from mhvae_cli.images.read import read_scan
from mhvae_cli.inference import synthesis as generation
from mhvae_cli.training.phantoms import phantom

Mhvae = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("three_sizes")


def code_of(pipeline: Pipeline, name: str) -> tuple[np.ndarray, np.ndarray]:
    code = pipeline.source(Path(f"{name}.png")).code
    return code.z, code.theta


def test_two_images_swap_their_styles_and_keep_their_positions(mhvae: Mhvae, pipeline: Pipeline) -> None:
    lines = done(mhvae("swap-style", "a.png", "b.png", "-o", "o", "--save-latents", *QUICK))
    endings = (".png", "_mask.png", ".safetensors", ".json")
    assert lines == [f"o/{pair}{end}" for pair in ("a__style-b", "b__style-a") for end in endings]
    for own, other in permutations("ab"):
        made = load_file(f"o/{own}__style-{other}.safetensors")
        (z, theta), (style, _) = code_of(pipeline, own), code_of(pipeline, other)
        assert np.array_equal(made["theta"], theta) and np.array_equal(made["z"], style)
        assert not np.array_equal(z, style)
        mask = pixels(f"o/{own}__style-{other}_mask.png")
        assert (
            np.array_equal(mask > 0, pipeline.networks.mask(theta, SIZES[own], made.get("pose")))
            and mask.any()
        )
        assert pixels(f"o/{own}__style-{other}.png").shape == SIZES[own]
    rows = csv.DictReader(Path("o/results.csv").read_text().splitlines())
    told = [(row["input"], row["style"], row["mix"], row["status"]) for row in rows]
    assert told == [("a.png", "b.png", "1.0", "ok"), ("b.png", "a.png", "1.0", "ok")]


def test_a_blend_goes_from_the_own_reconstruction_to_the_others_style(
    mhvae: Mhvae, pipeline: Pipeline
) -> None:
    for mix in (0, 0.5, 1):
        args = ("a.png", "b.png", "--mix", mix, "-o", f"m{mix}", "--save-latents")
        done(mhvae("swap-style", *args, *INVENT))
    half = load_file("m0.5/a__style-b.safetensors")
    (own, theta), (other, _) = code_of(pipeline, "a"), code_of(pipeline, "b")
    np.testing.assert_allclose(half["z"], (own + other) / 2, rtol=1e-5)
    assert np.array_equal(half["theta"], theta)
    done(mhvae("reconstruct", "a.png", "-o", "r/", *QUICK))
    plain, *made = (
        pixels(path).astype(int)
        for path in ("r/a__recon.png", *(f"m{mix}/a__style-b.png" for mix in (0, 0.5, 1)))
    )
    assert np.array_equal(plain, made[0])
    assert 0 < np.abs(made[1] - plain).sum() < np.abs(made[2] - plain).sum()


def test_every_pair_and_the_same_bits_in_any_company(mhvae: Mhvae) -> None:
    lines = done(mhvae("swap-style", "a.png", "b.png", "c.png", "-o", "all", *INVENT))
    pairs = permutations("abc", 2)
    assert lines == [f"all/{a}__style-{b}{end}.png" for a, b in pairs for end in ("", "_mask")]
    runs = {
        "two": ("b.png", "a.png", "-j", 0),
        "turned": ("c.png", "b.png", "a.png", "-b", 3, "-j", 3),
        "seed": ("a.png", "b.png", "--seed", 1),
    }
    for folder, args in runs.items():
        done(mhvae("swap-style", *args, "-o", folder, *INVENT))
    for name in ("a__style-b.png", "a__style-b_mask.png"):
        made = {folder: Path(folder, name).read_bytes() for folder in ("all", *runs)}
        assert made["all"] == made["two"] == made["turned"] != made["seed"]
    assert np.abs(pixels("all/a__style-b.png").astype(int) - pixels("seed/a__style-b.png")).mean() > 1
    assert not np.array_equal(pixels("all/a__style-b.png"), pixels("all/a__style-c.png"))


def test_one_style_for_all(mhvae: Mhvae) -> None:
    done(mhvae("swap-style", "a.png", "b.png", "-o", "pair", *INVENT))
    assert done(mhvae("swap-style", "a.png", "c.png", "--style", "b.png", "-o", "o/", *INVENT)) == [
        f"o/{name}__style-b{end}.png" for name in "ac" for end in ("", "_mask")
    ]
    assert np.array_equal(pixels("o/a__style-b.png"), pixels("pair/a__style-b.png"))
    done(mhvae("reconstruct", "b.png", "-o", "code.png", "--save-latents", *QUICK))
    done(mhvae("swap-style", "a.png", "--style", "code.safetensors", "-o", "one.png", *INVENT))
    assert np.array_equal(pixels("one.png"), pixels("o/a__style-b.png"))
    assert np.array_equal(pixels("one_mask.png"), pixels("o/a__style-b_mask.png"))
    data = Path("b.png").read_bytes()
    piped = mhvae("swap-style", "a.png", "--style", "-", "-o", "-", *INVENT, stdin=data)
    Path("piped.png").write_bytes(piped.stdout)
    assert piped.code == 0 and np.array_equal(pixels("piped.png"), pixels("one.png"))


def test_latents_stand_in_an_images_place(mhvae: Mhvae) -> None:
    for name in "ab":
        done(mhvae("reconstruct", f"{name}.png", "-o", f"codes/{name}.png", "--save-latents", *QUICK))
    done(mhvae("swap-style", "a.png", "b.png", "-o", "o", *INVENT))
    done(mhvae("swap-style", "codes/a.safetensors", "codes/b.json", "-o", "p", *INVENT))
    for name in ("a__style-b", "a__style-b_mask", "b__style-a", "b__style-a_mask"):
        assert np.array_equal(pixels(f"o/{name}.png"), pixels(f"p/{name}.png"))


def test_the_picture_lies_as_its_own_image_does(mhvae: Mhvae) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open("a.png") as image:
        image.save("turned.png", exif=exif)
    done(mhvae("swap-style", "turned.png", "b.png", "-o", "o", *QUICK))
    assert pixels("o/turned__style-b.png").shape == pixels("o/turned__style-b_mask.png").shape == (64, 80)
    assert pixels("o/b__style-turned.png").shape == SIZES["b"]
    with Image.open("o/turned__style-b.png") as image:
        assert image.getexif()[0x0112] == 6


def test_files_say_what_they_are_and_name_no_patient(mhvae: Mhvae) -> None:
    for name, new in zip("ab", ("jane-doe", "john-doe"), strict=True):
        shutil.copy(f"{name}.png", f"{new}.png")
    done(mhvae("swap-style", "jane-doe.png", "--style", "john-doe.png", "--mix", 0.25, "-o", "x.png", *QUICK))
    record = json.loads(done(mhvae("inspect", "x.png", "--json"))[0])["record"]
    assert record["edit"] == {"mix": 0.25} and len(record["sources"]) == 2 and record["synthetic"]
    assert record["command"].startswith("mhvae swap-style --mix 0.25")
    assert b"doe" not in Path("x.png").read_bytes()


def test_names_that_collide_stop_before_any_work(mhvae: Mhvae) -> None:
    for folder, name in zip("xy", "ab", strict=True):
        Path(folder).mkdir()
        shutil.copy(f"{name}.png", f"{folder}/S.png" if folder == "x" else f"{folder}/s.png")
    for args in (["x", "y"], ["x", "y", "c.png"], ["a.png", "b.png", "c.png", "./x/S.png", "y", "-r"]):
        ended = mhvae("swap-style", *args, "-o", "o/")
        assert ended.code == 7 and not ended.lines and not Path("o").exists()
        assert "x/S.png" in ended.stderr and "y/s.png" in ended.stderr and ended.stderr.count("error: ") == 1
    Path("all").mkdir()
    for folder in "xy":
        shutil.move(folder, "all")
    tree = mhvae("swap-style", "all", "-r", "-o", "o/", "--dry-run")
    assert tree.lines[::2] == ["o/x/S__style-s.png", "o/y/s__style-S.png"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "no inputs"),
        (["a.png"], "one image"),
        (["a.png", "./a.png"], "one image"),
        (["a.png", "b.png", "--mix", "1.5"], "--mix 1.5"),
        (["a.png", "b.png", "--mix", "-0.1"], "--mix -0.1"),
        (["a.png", "b.png", "--mix", "nan"], "--mix nan"),
        (["a.png", "b.png", "-o", "-"], "one image"),
        (["-", "--style", "-"], "stdin"),
        (["c.png", "--style", "[ab].png"], "exactly one image, got 2"),
    ],
)
def test_usage_errors(mhvae: Mhvae, args: list[str], said: str) -> None:
    before = sorted(os.listdir())
    ended = mhvae("swap-style", *args)
    first, *rest = ended.stderr.splitlines()
    assert ended.code == 2 and not ended.lines and sorted(os.listdir()) == before
    assert first.startswith("error: ") and said in first and len(rest) <= 1


def test_bad_files_cost_their_own_rows(mhvae: Mhvae) -> None:
    Path("bad.png").write_bytes(Path("a.png").read_bytes()[:200])
    plain = ("--no-refine", "-q")
    ended = mhvae("swap-style", "a.png", "gone.png", "b.png", "-o", "o", *plain)
    assert ended.code == 3 and ended.stderr == "error: gone.png: no such file or folder\n"
    assert [line for line in ended.lines if "mask" not in line] == ["o/a__style-b.png", "o/b__style-a.png"]
    ended = mhvae("swap-style", "a.png", "bad.png", "b.png", "-o", "p", *plain)
    assert ended.code == 3 and set(ended.stderr.splitlines()) == {"error: bad.png: truncated PNG"}
    assert [line for line in ended.lines if "mask" not in line] == ["p/a__style-b.png", "p/b__style-a.png"]
    ended = mhvae("swap-style", "a.png", "bad.png", "-o", "q", *plain)
    assert ended.code == 4 and sorted(os.listdir("q")) == [
        "mhvae-inputs.csv",
        "mhvae-run.json",
        "results.csv",
    ]
    ended = mhvae("swap-style", "a.png", "--style", "gone.png", "-o", "r")
    assert ended.code == 4 and ended.stderr.startswith("error: gone.png: no such") and not Path("r").exists()


def test_a_model_without_a_cddpm(mhvae: Mhvae, tiny_model: Path) -> None:
    args = ("swap-style", "a.png", "b.png", "-m", tiny_model, "-o", "o")
    ended = mhvae(*args)
    assert ended.code == 6 and "--no-refine" in ended.stderr and not Path("o").exists()
    assert len(done(mhvae(*args, "--no-refine"))) == 4


@pytest.fixture(scope="module")
def colour_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's shape, but of colour, with weights of its own and no cDDPM."""
    from mhvae_cli.checkpoints.folder import read_config, save_model
    from mhvae_cli.checkpoints.model_card import model_card
    from mhvae_cli.config import ModelConfig, from_dict
    from mhvae_cli.vae.model import build

    content = read_config(tiny_model)
    content["model"] |= {"channels": 3}
    state = build(from_dict(ModelConfig, content["model"]), seed=0).state_dict()
    folder = tmp_path_factory.mktemp("colour") / "model"
    save_model(folder, config=content, states={"vae": state}, card=model_card(content))
    return folder


def test_the_style_images_pixels_are_carried(mhvae: Mhvae, pipeline: Pipeline) -> None:
    """Where the style image shows its ground, and in the object; twice the same image changes nothing."""
    done(mhvae("swap-style", "a.png", "b.png", "-o", "o", "--seed", 1, *QUICK))
    done(mhvae("swap-style", "a.png", "b.png", "-o", "p", "--seed", 2, *QUICK))
    one, two = (pixels(f"{folder}/a__style-b.png") for folder in "op")
    assert 0.3 < (one == two).mean() < 1  # the rest is drawn
    shutil.copy("a.png", "same.png")
    done(mhvae("swap-style", "a.png", "same.png", "--mix", 0.5, "-o", "s", *QUICK))
    assert np.abs(pixels("s/a__style-same.png").astype(int) - pixels("a.png")).mean() <= 1
    rows = list(csv.DictReader(Path("o/results.csv").read_text().splitlines()))
    assert [row["detail"] for row in rows] == ["carry", "carry"]
    record = json.loads(done(mhvae("inspect", "o/a__style-b.png", "--json"))[0])["record"]
    assert record["derived_from_scan"] and "protect it" in record["notice"]


def test_grey_and_colour(mhvae: Mhvae, colour_model: Path) -> None:
    for name in "bc":
        with Image.open(f"{name}.png") as image:
            image.convert("RGB").save(f"{name}.png")
    plain = ("--no-refine", "-q")
    done(mhvae("swap-style", "a.png", "b.png", "-o", "grey", *plain))  # a grey model takes luma
    assert pixels("grey/b__style-a.png").shape == (*SIZES["b"], 3)  # as its own file; a's pixels are grey
    model = ("-m", colour_model, *plain)
    ended = mhvae("swap-style", "a.png", "b.png", "-o", "o", *model)
    assert (
        ended.code == 4
        and sorted(os.listdir("o")) == ["mhvae-inputs.csv", "mhvae-run.json", "results.csv"]
        and not ended.lines
    )
    faults = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert faults == [
        "error: a.png: grey, but b.png is in colour",
        "error: b.png: in colour, but a.png is grey",
    ]
    done(mhvae("swap-style", "b.png", "c.png", "-o", "p", *model))
    assert pixels("p/b__style-c.png").shape == (*SIZES["b"], 3)
    shutil.copy("a.png", "d.png")
    Path("e.png").write_bytes(Path("d.png").read_bytes())
    assert mhvae("swap-style", "d.png", "e.png", "-o", "q", *model).code == 0


def test_memory_does_not_grow_with_the_pairs(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    from mhvae_cli.runs.generation_jobs import CACHE_SIZE

    for number in range(20):
        Image.fromarray(phantom("fetal-head", number, (30, 30))[0]).save(f"s{number}.png")
    alive: dict[str, list[weakref.ref[Any]]] = {"pictures": [], "scans": []}
    most = {"pictures": 0, "scans": 0}

    def noted(kind: str, found: Any) -> Any:
        alive[kind].extend(map(weakref.ref, found if kind == "pictures" else [found]))
        most[kind] = max(most[kind], sum(each() is not None for each in alive[kind]))
        return found

    make, read = generation.make, read_scan
    monkeypatch.setattr(generation, "make", lambda *a, **k: noted("pictures", make(*a, **k)))
    monkeypatch.setattr(imaging, "read_scan", lambda *a, **k: noted("scans", read(*a, **k)))
    names = [f"s{number}.png" for number in range(20)]
    done(mhvae("swap-style", *names[:5], "-o", "o", "--no-refine"))
    done(mhvae("swap-style", *names, "--style", "a.png", "-o", "p", "--no-refine"))
    assert len(alive["pictures"]) == 5 * 4 + 20 and most["pictures"] <= 5
    assert len(alive["scans"]) >= 5 + 21 and most["scans"] <= CACHE_SIZE + 5
