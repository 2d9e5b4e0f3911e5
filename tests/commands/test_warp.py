"""`mhvae warp`: measured turns and areas, handles, kept backgrounds, names and faults, with tiny models."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from support.ended import pixels

from mhvae_cli.inference.networks import Networks

Mhvae = Callable[..., Any]
SIZE = (200, 300)
FAST = ("--no-refine", "-j", 0)


def tilted(family: str, folder: Path) -> Path:
    """A model, 32 px and grey, that finds the same slanting ellipse of about 2 : 1 in every image."""
    import torch

    from mhvae_cli.checkpoints.folder import FORMAT, KIND, save_model
    from mhvae_cli.config import DecoderConfig, EncoderConfig, ModelConfig, TrainConfig, WarpConfig, to_dict
    from mhvae_cli.vae.model import build

    config = ModelConfig(
        image_size=32,
        z_dim=4,
        fill=0,  # its object is where it is in any crop
        warp=WarpConfig(family),  # type: ignore[arg-type]
        encoder=EncoderConfig(arch="resnet18", width=0.125, reduce=4, hidden=16),
        decoder=DecoderConfig(channels=8, max_size=32),
    )
    model = build(config, seed=0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    turn = np.array([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    ellipse = np.column_stack([np.diag([1.1, 2.2]) @ turn, [0.05, -0.1]])
    at = (
        np.eye(3)
        if model.warp.points is None
        else np.pad(model.warp.points, ((0, 0), (0, 1)), constant_values=1)
    )
    state["warp.loc"] = torch.tensor(ellipse @ at.T, dtype=torch.float32) - model.warp.identity
    for name in [name for name in state if name.startswith("encoder.theta.2.")]:
        state[name] *= 0
    described = {"format": FORMAT, "kind": KIND, "name": family, "figures": {}, "card": {}}
    described |= {"model": to_dict(config), "training": to_dict(TrainConfig())}
    save_model(folder, config=described, states={"vae": state}, card="")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tilted")
    return {family: tilted(family, folder / family) for family in ("affine", "tps")}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, Path]) -> Path:
    """a.png, 3 : 2, in the current folder, and the spline as the default model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHVAE_MODEL", str(models["tps"]))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    noise = np.random.default_rng(0).uniform(40, 200, SIZE)
    Image.fromarray(ndimage.gaussian_filter(noise, 3).astype(np.uint8)).save("a.png")
    return tmp_path


def moments(mask: np.ndarray) -> tuple[np.ndarray, float, float]:
    """A mask's centre in pixels, its area, and its long axis in degrees counter-clockwise on the screen."""
    ys, xs = np.nonzero(mask)
    (xx, xy), (_, yy) = np.cov(xs, -ys)
    return (
        np.array([xs.mean() + 0.5, ys.mean() + 0.5]),
        float(mask.sum()),
        math.degrees(0.5 * math.atan2(2 * xy, xx - yy)),
    )


def plain(mhvae: Mhvae) -> np.ndarray:
    """The mask before any edit."""
    assert mhvae("segment", "a.png", "-o", "plain.png").code == 0
    return pixels("plain.png") > 0


@pytest.mark.parametrize("family", ["affine", "tps"])
def test_turn_and_area_are_what_was_asked_on_an_image_that_is_not_square(
    mhvae: Mhvae, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    monkeypatch.setenv("MHVAE_MODEL", str(models[family]))
    at, area, axis = moments(plain(mhvae))
    for rotate, scale in ((45, 0.7), (-30, 1.2), (90, 1.0)):
        out = f"r{rotate}/"
        ended = mhvae("warp", "a.png", "--rotate", rotate, "--scale", scale, "-o", out, *FAST)
        stem = f"{out}a__rot{rotate}_scale{scale:g}"
        assert ended.code == 0 and ended.lines == [f"{stem}.png", f"{stem}_mask.png"]
        mask = pixels(f"{stem}_mask.png")
        assert pixels(f"{stem}.png").shape == mask.shape == SIZE and set(np.unique(mask)) == {0, 255}
        there, size, turned = moments(mask > 0)
        assert abs((turned - axis - rotate + 90) % 180 - 90) < 1
        assert abs(size / area - scale**2) < 0.02
        assert np.abs(there - at).max() < 0.5  # about the object's own centre


def test_what_it_turns_about_and_where_it_is_shifted(mhvae: Mhvae) -> None:
    at, _, _ = moments(plain(mhvae))
    assert mhvae("warp", "a.png", "--shift", "12,-5", *FAST).lines[0] == "a__shift12x-5.png"
    assert np.abs(moments(pixels("a__shift12x-5_mask.png") > 0)[0] - at - [12, -5]).max() < 0.3
    ended = mhvae("warp", "a.png", "--shift", "3mm,-2mm", "--spacing", "0.25,0.2", *FAST)
    assert ended.lines[0] == "a__shift3mmx-2mm.png"
    assert np.abs(moments(pixels("a__shift3mmx-2mm_mask.png") > 0)[0] - at - [12, -10]).max() < 0.3
    for about, centre in {"image": [150, 100], "120,90": [120, 90]}.items():
        assert mhvae("warp", "a.png", "--rotate", 180, "--about", about, "-o", f"{about}/", *FAST).code == 0
        there = moments(pixels(f"{about}/a__rot180_mask.png") > 0)[0]
        assert np.abs(there - (2 * np.array(centre) - at)).max() < 0.3


def test_a_turn_is_a_turn_of_the_upright_image(mhvae: Mhvae) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open("a.png") as image:
        image.rotate(90, expand=True).save("turned.png", exif=exif)
    assert mhvae("warp", "a.png", "turned.png", "--rotate", 20, *FAST).code == 0
    lying = Image.fromarray(pixels("turned__rot20_mask.png")).rotate(-90, expand=True)
    assert np.array_equal(np.array(lying), pixels("a__rot20_mask.png"))


def test_handles_are_drawn_and_moved(mhvae: Mhvae, models: dict[str, Path]) -> None:
    before = plain(mhvae)
    assert mhvae("reconstruct", "a.png", "--save-latents", "-o", "own/", *FAST).code == 0
    points = np.array(json.loads(Path("own/a__recon.json").read_text())["handles"])
    assert points.shape == (20, 2)
    ended = mhvae("warp", "a.png", "--handles")
    assert ended.code == 0 and ended.lines == ["a__handles.png"]
    drawn = pixels("a__handles.png")
    assert drawn.shape == (600, 900, 3)  # whole times the size, for the numbers
    for x, y in points * 3:
        assert tuple(drawn[int(y), int(x)]) == (255, 214, 0)

    k = int(np.argmin(points[:, 0]))
    goal = points[k] + [-9, 3]
    name = f"a__move{k}_-9x3"
    assert mhvae("warp", "a.png", "--move", f"{k}:-9,+3", *FAST).lines[0] == f"{name}.png"
    after = pixels(f"{name}_mask.png") > 0
    edge = after & ~ndimage.binary_erosion(after)
    ys, xs = np.nonzero(edge)
    assert np.hypot(xs + 0.5 - goal[0], ys + 0.5 - goal[1]).min() < 1.5
    far = points[np.hypot(*(points - points[k]).T) > 60]
    was = np.argwhere(before & ~ndimage.binary_erosion(before))[:, ::-1] + 0.5
    now = np.stack([xs + 0.5, ys + 0.5], axis=1)
    for point in far:  # the others stay
        assert np.hypot(*(now - point).T).min() < 2 and np.hypot(*(was - point).T).min() < 2
    assert (after ^ before).sum() > 50


def test_a_move_that_the_spline_cannot_follow_is_told(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "warning" not in mhvae("warp", "a.png", "--move", "3:+1,0", *FAST).stderr
    monkeypatch.setattr("mhvae_cli.commands.warp.MAX_HANDLE_DISTANCE", 1e-6)
    ended = mhvae("warp", "a.png", "--move", "3:+4,+5", *FAST)
    assert ended.code == 0 and "warning: a.png: the spline is too stiff" in ended.stderr
    assert "warning" not in mhvae("warp", "a.png", "--move", "3:+5,+5", "-q", *FAST).stderr
    ended = mhvae("warp", "a.png", "--move", "3:+90,+90", "--move", "4:-90,-90", *FAST)
    assert ended.code == 4 and ended.stderr.startswith("error: a.png: ")


def test_theta_takes_the_place_from_a_file(mhvae: Mhvae, tiny_model: Path, phantom_folder: Path) -> None:
    for name, path in zip("bc", sorted((phantom_folder / "images").iterdir()), strict=False):
        shutil.copy(path, f"{name}.png")
    own = ["--model", tiny_model, *FAST]
    assert mhvae("reconstruct", "b.png", "c.png", "--save-latents", "-o", "own", *own).code == 0
    for theta, stem in (("own/c__recon.safetensors", "b__theta-c__recon"), ("c.png", "b__theta-c")):
        ended = mhvae("warp", "b.png", "--theta", theta, "-o", "out/", *own)
        assert ended.code == 0 and ended.lines[0] == f"out/{stem}.png"
        assert np.array_equal(pixels(f"out/{stem}_mask.png"), pixels("own/c__recon_mask.png"))
        assert not np.array_equal(pixels(f"out/{stem}.png"), pixels("own/b__recon.png"))
    ended = mhvae("warp", "b.png", "--theta", "own/nope.safetensors", "-o", "out", *own)
    assert ended.code == 4 and "nope" in ended.stderr
    ended = mhvae("warp", "b.png", "--theta", "own/c__recon.json", *FAST)  # of another model
    assert ended.code == 4 and "another model" in ended.stderr


@pytest.mark.parametrize("kind", ["L", "RGB", "16"])
def test_the_scans_own_pixels_are_carried(mhvae: Mhvae, kind: str) -> None:
    grey = pixels("a.png")
    own = {
        "L": grey,
        "RGB": np.stack([grey, 255 - grey, grey // 2], axis=2),
        "16": grey.astype(np.uint16) * 99,
    }[kind]
    Image.fromarray(own).save("own.png")
    assert mhvae("warp", "own.png", "--rotate", 0, *FAST).code == 0
    assert np.array_equal(pixels("own__rot0.png"), own)
    assert mhvae("warp", "own.png", "--shift", "60,0", *FAST).code == 0
    moved = pixels("own__shift60x0.png")
    assert moved.dtype == own.dtype and moved.shape == own.shape
    assert mhvae("segment", "own.png", "-o", "old.png").code == 0
    old, new = pixels("old.png") > 0, pixels("own__shift60x0_mask.png") > 0
    away = ndimage.distance_transform_edt(~(old | new)) > max(old.shape) / 10  # the rims are blended
    within = ndimage.distance_transform_edt(new) > max(old.shape) / 15
    assert away.any() and within.any() and np.array_equal(moved[away], own[away])
    shifted = np.roll(own, 60, axis=1).astype(int)
    assert np.abs(moved.astype(int) - shifted)[within].max() <= (2 if kind == "16" else 1)
    assert mhvae("warp", "own.png", "--shift", "60,0", "--detail", "invent", "-o", "i/", *FAST).code == 0
    assert (pixels("i/own__shift60x0.png").shape != own.shape) == (kind == "RGB")  # the model is grey


def test_a_latent_file_has_no_detail(mhvae: Mhvae) -> None:
    assert mhvae("reconstruct", "a.png", "--save-latents", *FAST).code == 0
    ended = mhvae("warp", "a__recon.safetensors", "a.png", "--rotate", 10, "-o", "o", *FAST)
    said = "a__recon.safetensors: generated as a whole, as a latent file has no detail to carry"
    assert ended.code == 0 and said in ended.stderr and ended.stderr.count("generated as a whole") == 1
    rows = list(csv.DictReader(Path("o/results.csv").read_text().splitlines()))
    assert [row["detail"] for row in rows] == ["invent", "carry"]
    derived = [
        json.loads(mhvae("inspect", row["output"], "--json").lines[0])["record"]["derived_from_scan"]
        for row in rows
    ]
    assert derived == [False, True]
    ended = mhvae("warp", "a__recon.safetensors", "--handles")
    assert ended.code == 4 and "no image to draw on" in ended.stderr


def test_the_files_tell_the_edit_and_no_names(mhvae: Mhvae) -> None:
    options = ["--rotate", 45, "--about", "image", "--move", "3:+1,-1", "--theta", "a.png"]
    ended = mhvae("warp", "a.png", *options, "-o", "x.png", *FAST)
    assert ended.code == 0 and ended.lines == ["x.png", "x_mask.png"]
    record = json.loads("\n".join(mhvae("inspect", "x.png", "--json").lines))
    text = json.dumps(record)
    assert "--rotate 45 --about image --move 3:+1,-1" in text and "a.png" not in text.replace("x.png", "")


def test_an_image_without_an_object_fails_alone(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:

    shutil.copy("a.png", "b.png")
    Image.fromarray(np.zeros((50, 70), np.uint8)).save("none.png")
    mask = Networks.mask

    def blind(self: Networks, theta: Any, size: tuple[int, int], pose: Any = None) -> np.ndarray:
        return mask(self, theta, size, pose) & (size != (50, 70))

    monkeypatch.setattr(Networks, "mask", blind)
    ended = mhvae("warp", "a.png", "none.png", "b.png", "--rotate", 10, "-o", "out", *FAST)
    assert ended.code == 3 and "error: none.png: no object found" in ended.stderr
    rows = list(csv.DictReader(Path("out/results.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert mhvae("warp", "none.png", "--rotate", 10, "-o", "x.png", *FAST).code == 4
    assert not Path("x.png").exists()


@pytest.mark.parametrize(
    "edit", [["--shift", "350,0"], ["--scale", "0.001"], ["--rotate", "90", "--about", "900,-900"]]
)
def test_an_object_that_leaves_the_image_fails_alone(mhvae: Mhvae, edit: list[str]) -> None:
    Image.fromarray(np.zeros((400, 900), np.uint8)).save("large.png")
    ended = mhvae("warp", "a.png", *edit, "-o", "x.png", *FAST)
    assert ended.code == 4 and ended.stderr.startswith("error: a.png: the edit moves the object out")
    assert len(ended.stderr.splitlines()) <= 2 and not Path("x.png").exists()
    if "--shift" in edit:
        assert mhvae("warp", "a.png", "large.png", *edit, "-o", "out/", *FAST).code == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "no edit given"),
        (["--about", "image"], "no edit given"),
        (["--scale", "0"], "--scale 0"),
        (["--scale", "-1"], "--scale -1"),
        (["--scale", "nan"], "--scale nan"),
        (["--scale", "inf"], "--scale inf"),
        (["--scale", "big"], "--scale"),
        (["--rotate", "nan"], "--rotate nan"),
        (["--rotate", "inf"], "--rotate inf"),
        (["--shift", "3"], "--shift 3"),
        (["--shift", "nan,0"], "--shift nan,0"),
        (["--shift", "1,2,3"], "--shift 1,2,3"),
        (["--shift", "3mm,2"], "--shift 3mm,2"),
        (["--shift", "3mm,2mm"], "--shift in mm needs --spacing"),
        (["--shift", "3mm,2mm", "--spacing", "0"], "--spacing 0"),
        (["--shift", "3mm,2mm", "--spacing", "wide"], "--spacing wide"),
        (["--shift", "3,2", "--spacing", "0.1"], "--spacing needs a --shift"),
        (["--rotate", "5", "--about", "nose"], "--about nose"),
        (["--move", "3"], "--move 3"),
        (["--move", "x:1,2"], "--move x:1,2"),
        (["--move", "20:1,2"], "0 to 19"),
        (["--move", "-1:1,2"], "0 to 19"),
        (["--move", "3:1,nan"], "--move 3:1,nan"),
        (["--move", "3:1,2", "--move", "3:2,2"], "handle 3 is given twice"),
        (["--handles", "--rotate", "4"], "--handles"),
        (["--theta", ".", "--rotate", "4"], ""),
    ],
)
def test_bad_options_are_two_lines_and_exit_2(mhvae: Mhvae, options: list[str], said: str) -> None:
    shutil.copy("a.png", "b.png")
    ended = mhvae("warp", "a.png", *options, *FAST)
    assert ended.code == 2 and said in ended.stderr and len(ended.stderr.splitlines()) <= 2
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "b.png"]


def test_models_without_handles_or_objects(mhvae: Mhvae, models: dict[str, Path], tmp_path: Path) -> None:
    affine = ["--model", models["affine"], *FAST]
    for options in (["--move", "3:1,2"], ["--handles"]):
        ended = mhvae("warp", "a.png", *options, *affine)
        assert ended.code == 2 and "affine" in ended.stderr and "--rotate" in ended.stderr
    single = tmp_path / "single"
    shutil.copytree(models["tps"], single)
    config = json.loads((single / "config.json").read_text())
    config["model"]["single_head"] = True
    (single / "config.json").write_text(json.dumps(config))
    ended = mhvae("warp", "a.png", "--move", "3:1,2", "--model", single, *FAST)
    assert ended.code == 6 and "single-headed" in ended.stderr
    assert not Path("results.csv").exists()
