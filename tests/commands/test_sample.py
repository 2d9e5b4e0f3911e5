"""`mhvae sample`: sets that train-vae reads, nnU-Net's layout, sets that grow and sets that are cut."""

import csv
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.ended import pixels

from mhvae_cli.inference.networks import Networks

Mhvae = Callable[..., Any]
FAST = ("--no-refine", "-j", 0)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_refined: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MHVAE_MODEL", str(tiny_refined))
    monkeypatch.setenv("MHVAE_DTYPE", "float32")
    return tmp_path


def tree(folder: str) -> list[str]:
    files = [
        path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("mhvae-")
    ]
    return sorted(str(path.relative_to(folder)) for path in files)


def rows(path: str) -> list[dict[str, str]]:
    return list(csv.DictReader(Path(path).read_text().splitlines()))


def test_a_set_is_what_train_vae_reads(mhvae: Mhvae) -> None:
    from mhvae_cli.training.datasets import MaskedImages, discover

    ended = mhvae("sample", "-n", 3, "--steps", 2, "--out", "set/", "--json")
    assert ended.code == 0
    names = [f"sample_s0_{number:06d}" for number in range(3)]
    expected = [f"{folder}/{name}.png" for name in names for folder in ("images", "masks")]
    expected += [f"latents/{name}{suffix}" for name in names for suffix in (".json", ".safetensors")]
    assert tree("set") == sorted([*expected, "index.csv", "results.csv"])
    assert rows("set/index.csv") == [{"id": name, "subject": name} for name in names]
    told = [json.loads(line) for line in ended.lines]
    assert [row["mask"] for row in told] == [f"set/masks/{name}.png" for name in names]
    assert all(0 <= row["dice"] <= 1 and row["status"] == "ok" for row in told)

    samples = discover(Path("set"))
    assert [(sample.id, sample.subject) for sample in samples] == [(name, name) for name in names]
    images = MaskedImages(samples, image_size=32, channels=1)
    assert images.sizes.tolist() == [[40, 60]] * 3  # the training images' median
    for name in names:
        picture, mask = pixels(f"set/images/{name}.png"), pixels(f"set/masks/{name}.png")
        assert picture.shape == mask.shape == (40, 60) and set(np.unique(mask)) == {0, 255}
        assert mhvae("inspect", f"set/images/{name}.png").code == 0
    assert not np.array_equal(pixels(f"set/images/{names[0]}.png"), pixels(f"set/images/{names[1]}.png"))


def test_codes_are_the_densitys_own_and_come_back(mhvae: Mhvae, tiny_refined: Path) -> None:
    from mhvae_cli.inference.pipeline import Pipeline

    pipeline = Pipeline.load(tiny_refined, device="cpu", dtype="float32")
    made = list(pipeline.sample(2, size=(40, 60), steps=2, seed=5))
    assert mhvae("sample", "-n", 2, "--seed", 5, "--steps", 2, "--out", "set/").code == 0
    for number, picture in enumerate(made):
        stem = f"sample_s5_{number:06d}"
        assert np.array_equal(pixels(f"set/images/{stem}.png"), picture.pixels)
        assert np.array_equal(pixels(f"set/masks/{stem}.png") > 0, picture.mask)
        again = mhvae("reconstruct", f"set/latents/{stem}.json", "--seed", 5, "--steps", 2, "-o", "again/")
        assert again.code == 0
        assert np.array_equal(pixels(f"again/{stem}__recon.png"), picture.pixels)
    shown = json.loads(Path("set/latents/sample_s5_000001.json").read_text())
    assert np.allclose(shown["theta"], made[1].code.theta) and shown["size"] == [40, 60]


def test_picture_i_depends_on_the_seed_and_i_alone(mhvae: Mhvae) -> None:
    assert mhvae("sample", "-n", 4, "--steps", 2, "--out", "whole").code == 0
    assert mhvae("sample", "-n", 2, "--steps", 2, "--out", "set", "-b", 1, "-j", 2).code == 0
    ended = mhvae("sample", "-n", 2, "--start", 2, "--steps", 2, "--out", "set", "-b", 2)
    assert ended.code == 0 and ended.lines[0] == "set/images/sample_s0_000002.png"
    assert tree("set") == tree("whole") and rows("set/index.csv") == rows("whole/index.csv")
    for name in tree("whole"):
        if "sample" in name:  # the text inside, and the latent files, too
            assert Path("whole", name).read_bytes() == Path("set", name).read_bytes(), name
    assert mhvae("sample", "-n", 1, "--seed", 1, "--steps", 2, "--out", "other").code == 0
    first = pixels("other/images/sample_s1_000000.png")
    assert not np.array_equal(first, pixels("set/images/sample_s0_000000.png"))


def test_flat_and_one_alone(mhvae: Mhvae) -> None:
    ended = mhvae("sample", "-n", 1, "--layout", "flat", "--size", "50x30", *FAST)
    stem = "sample_s0_000000"
    assert ended.lines == [f"{stem}.png", f"{stem}_mask.png", f"{stem}.safetensors", f"{stem}.json"]
    assert pixels(f"{stem}.png").shape == pixels(f"{stem}_mask.png").shape == (30, 50)
    assert not Path("index.csv").exists()
    ended = mhvae("sample", "-n", 1, "--layout", "flat", "--size", "50x30", "-o", "-", *FAST)
    assert ended.code == 0 and ended.stdout.startswith(b"\x89PNG")
    assert mhvae("sample", "-n", 1, "--layout", "flat", "-o", "one.tif", *FAST).code == 0
    assert pixels("one.tif").shape == pixels("one_mask.tif").shape == (40, 60)
    for options in (["--layout", "flat", "-n", 2], ["-n", 1]):
        assert mhvae("sample", *options, "-o", "-", *FAST).code == 2


def test_the_layout_of_nnunet(mhvae: Mhvae) -> None:
    out = "Dataset900_Heads"
    assert mhvae("sample", "-n", 2, "--layout", "nnunet", "--out", out, *FAST).code == 0
    names = [f"sample_s0_{number:06d}" for number in range(2)]
    for name in names:
        assert pixels(f"{out}/imagesTr/{name}_0000.png").shape == (40, 60)
        assert set(np.unique(pixels(f"{out}/labelsTr/{name}.png"))) == {0, 1}
        assert Path(out, "latents", f"{name}.safetensors").exists()
    described = {
        "channel_names": {"0": "grey"},
        "labels": {"background": 0, "object": 1},
        "numTraining": 2,
        "file_ending": ".png",
    }
    assert json.loads(Path(out, "dataset.json").read_text()) == described
    assert mhvae("sample", "-n", 1, "--start", 2, "--layout", "nnunet", "--out", out, *FAST).code == 0
    assert json.loads(Path(out, "dataset.json").read_text())["numTraining"] == 3
    assert len(list(Path(out, "imagesTr").iterdir())) == len(list(Path(out, "labelsTr").iterdir())) == 3
    ended = mhvae("sample", "-n", 1, "--layout", "nnunet", "--format", "tiff", "--out", out, *FAST)
    assert ended.code == 2 and "nnunet" in ended.stderr


def test_codes_without_an_object_are_drawn_again(mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch) -> None:

    mask, seen = Networks.mask, []

    def often_empty(self: Networks, theta: Any, size: tuple[int, int], pose: Any = None) -> np.ndarray:
        seen.append(theta)
        found = mask(self, theta, size, pose)
        return found & (len(seen) > 2)  # of the first two codes

    monkeypatch.setattr(Networks, "mask", often_empty)
    assert mhvae("sample", "-n", 1, "--out", "set", *FAST).code == 0
    assert len(seen) >= 3 and not np.array_equal(seen[0], seen[1])
    saved = json.loads(Path("set/latents/sample_s0_000000.json").read_text())
    assert np.allclose(saved["theta"], seen[2]) and pixels("set/masks/sample_s0_000000.png").any()
    monkeypatch.setattr(Networks, "mask", lambda self, theta, size, pose=None: np.zeros(size, bool))
    ended = mhvae("sample", "-n", 2, "--out", "none", *FAST)
    assert (
        ended.code == 4 and "latent codes has an object" in ended.stderr and tree("none") == ["results.csv"]
    )


@pytest.mark.parametrize("part", ["images", "masks", "latents"])
def test_a_full_disk_is_7_and_leaves_whole_pairs(
    mhvae: Mhvae, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    from mhvae_cli.training.datasets import discover

    move = os.replace

    def full(source: Path, target: Path) -> None:
        if part in str(target) and "000002" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        move(source, target)

    monkeypatch.setattr(os, "replace", full)
    ended = mhvae("sample", "-n", 4, "--out", "set", *FAST)
    assert ended.code == 7 and f"error: set/{part}/sample_s0_000002" in ended.stderr
    assert "no space left on device" in ended.stderr and "Traceback" not in ended.stderr
    names = ["sample_s0_000000", "sample_s0_000001"]
    assert [row["id"] for row in rows("set/index.csv")] == names
    assert [sample.id for sample in discover(Path("set"))] == names
    assert not [name for name in tree("set") if "000002" in name or name.endswith(".part")]
    assert [row["status"] for row in rows("set/results.csv")] == ["ok", "ok"]

    monkeypatch.setattr(os, "replace", move)
    before = {name: Path("set", name).stat().st_mtime_ns for name in tree("set") if "0000" in name}
    assert mhvae("sample", "-n", 4, "--out", "set", *FAST).code == 7  # exist already
    ended = mhvae("sample", "-n", 4, "--out", "set", "--existing", "skip", *FAST)
    assert ended.code == 0 and ended.lines[0] == "set/images/sample_s0_000002.png"
    assert [row["id"] for row in rows("set/index.csv")] == [f"sample_s0_{i:06d}" for i in range(4)]
    assert all(Path("set", name).stat().st_mtime_ns == when for name, when in before.items())


def test_a_pair_that_no_table_knows_is_taken_up(mhvae: Mhvae) -> None:
    assert mhvae("sample", "-n", 2, "--out", "set", *FAST).code == 0
    whole = Path("set/index.csv").read_bytes()
    Path("set/index.csv").write_bytes(whole[:-10])  # as a crash would leave it
    Path("set/masks/sample_s0_000001.png").unlink()
    assert mhvae("sample", "-n", 2, "--out", "set", "--existing", "skip", *FAST).code == 0
    assert Path("set/index.csv").read_bytes() == whole and Path("set/masks/sample_s0_000001.png").exists()


def test_an_index_of_another_kind_is_not_touched(mhvae: Mhvae) -> None:
    Path("set").mkdir()
    Path("set/index.csv").write_text("id,fold\na,1\n")
    ended = mhvae("sample", "-n", 1, "--out", "set", *FAST)
    assert ended.code == 7 and "index.csv" in ended.stderr and tree("set") == ["index.csv"]
    assert Path("set/index.csv").read_text() == "id,fold\na,1\n"


def test_a_model_without_a_cddpm(mhvae: Mhvae, tiny_model: Path) -> None:
    bare = ["--model", tiny_model, "--out", "set"]
    for options in ([], ["--no-refine"], ["--codes", "prior"]):
        ended = mhvae("sample", "-n", 1, *options, *bare)
        assert ended.code == 6 and "hint: use --no-refine --codes prior" in ended.stderr
        assert not Path("set").exists()
    assert mhvae("sample", "-n", 1, "--codes", "prior", *FAST, *bare).code == 0
    assert pixels("set/images/sample_s0_000000.png").shape == (32, 32)  # the model's square


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "-n"),
        (["-n", 0], "-n"),
        (["-n", 1, "--size", "12"], "--size 12"),
        (["-n", 1, "--size", "0x9"], "--size 0x9"),
        (["-n", 1, "--size", "99999x99999"], "million"),
        (["-n", 1, "--start", -1], "--start"),
        (["-n", 1, "--codes", "posterior"], "--codes"),
        (["-n", 1, "--from-file", "x"], "--from-file"),
        (["-n", 1, "a.png"], "a.png"),
    ],
)
def test_bad_options_are_two_lines_and_exit_2(mhvae: Mhvae, options: list[Any], said: str) -> None:
    ended = mhvae("sample", *options)
    assert ended.code == 2 and said in ended.stderr and len(ended.stderr.splitlines()) <= 2
    assert not list(Path().iterdir())


def test_dry_run_and_shards(mhvae: Mhvae) -> None:
    ended = mhvae("sample", "-n", 2, "--out", "set", "--dry-run", "--model", "nowhere")
    assert ended.code == 0 and len(ended.lines) == 8 and not Path("set").exists()
    for shard in ("1/2", "2/2"):
        assert mhvae("sample", "-n", 3, "--out", "set", "--shard", shard, *FAST).code == 0
    assert sorted(row["id"][-1] for row in rows("set/index.csv")) == ["0", "1", "2"]


@pytest.fixture
def scans(here: Path) -> list[str]:
    """Two images of two sizes, and a latent file."""
    from PIL import Image

    from mhvae_cli.training.phantoms import phantom

    Path("scans").mkdir()
    for number, size in enumerate([(48, 60), (50, 44)]):
        Image.fromarray(phantom("fetal-head", number, size)[0]).save(f"scans/s{number}.png")
    return ["scans/s0.png", "scans/s1.png"]


def test_samples_from_images_are_their_pixels_elsewhere(mhvae: Mhvae, scans: list[str]) -> None:
    ended = mhvae("sample", "-n", 6, "--from", "scans/", "--steps", 2, "--out", "set/")
    assert ended.code == 0, ended.stderr
    told = rows("set/results.csv")
    assert {row["source"] for row in told} == set(scans) and {row["detail"] for row in told} == {"carry"}
    assert [row["subject"] for row in rows("set/index.csv")] == [Path(row["source"]).stem for row in told]
    for row in told:
        source, made, mask = (pixels(row[name]) for name in ("source", "output", "mask"))
        assert made.shape == mask.shape == source.shape and mask.any()
        assert not np.array_equal(made, source) and (made == source).mean() > 0.1  # ground that stayed
    record = json.loads(mhvae("inspect", told[0]["output"], "--json").lines[0])["record"]
    assert record["derived_from_scan"] and len(record["sources"]) == 1
    assert len({pixels(row["mask"]).tobytes() for row in told}) == 6
    more = mhvae("sample", "-n", 2, "--start", 3, "--from", "scans/", "--steps", 2, "--out", "more/")
    assert more.code == 0
    for row in rows("more/results.csv"):
        assert np.array_equal(pixels(row["output"]), pixels(row["output"].replace("more/", "set/")))


def test_bad_sources_of_samples(mhvae: Mhvae, scans: list[str]) -> None:
    for arguments, code, message in (
        (["--from", "scans/", "--size", "40x40"], 2, "--size and --from exclude each other"),
        (["--from", "gone.png"], 4, "gone.png: no such file or folder"),
    ):
        ended = mhvae("sample", "-n", 1, *arguments, "--out", "set/")
        assert ended.code == code and message in ended.stderr and not Path("set").exists()
    assert mhvae("reconstruct", scans[0], "--save-latents", "--no-refine", "--out", "codes/").code == 0
    ended = mhvae("sample", "-n", 1, "--from", "codes/s0__recon.safetensors", "--out", "set/")
    assert ended.code == 4 and "a latent file has no detail to carry" in ended.stderr
