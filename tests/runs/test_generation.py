"""Results of several sources and of none, in a folder that commands share."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.run_folders import rows, runs

from mhvae_cli.diffusion.density import Density
from mhvae_cli.errors import InputError
from mhvae_cli.inference import synthesis as generation
from mhvae_cli.inference.networks import Networks
from mhvae_cli.inference.sampling import sample_code
from mhvae_cli.runs.generation import generate
from mhvae_cli.runs.generation_jobs import GenerationRequest, output_stem
from mhvae_cli.runs.inputs import Item
from mhvae_cli.runs.settings import GenerationSettings

Mhvae = Callable[..., Any]


def test_edits_of_two_sources_and_of_none(
    tiny_refined: Path, images: list[np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = []
    for name, image in zip("abc", images, strict=True):
        path = tmp_path / f"{name}.png"
        Image.fromarray(image).save(path)
        items.append(Item(str(path), path, output_stem(Item("", path, Path(name)), "")))
    used: list[list[int]] = []

    def mixed(networks: Networks, sources: Any) -> Any:
        used.append([source.code.size[1] for source in sources])
        if sources[0].sha256 == sources[1].sha256:
            raise InputError("twice the same")
        return generation.Draft(
            replace(sources[0].code, z=sources[1].code.z), sources[0].key, sources[0].scan
        )

    def nothing(networks: Networks, sources: Any) -> Any:
        assert not sources
        return sample_code(networks, Density.prior(4, 40), 0, seed=0, size=(20, 30))

    pairs = [(0, 1), (1, 1), (2, 0)]
    requests = [
        GenerationRequest(
            (items[i], items[j]), output_stem(items[i], f"__{j}"), edit=mixed, row={"style": items[j].name}
        )
        for i, j in pairs
    ]
    stem = Path("images/s0")
    requests.append(GenerationRequest((), stem, edit=nothing, mask=Path("labels/s0"), label=1))
    settings = GenerationSettings(out=str(tmp_path / "out"), model=str(tiny_refined), device="cpu", steps=2)
    pictures: list[tuple[GenerationRequest, Any]] = []
    code = generate(
        "mix", requests, settings, many=True, columns=["style"], collect=lambda w, p: pictures.append((w, p))
    )
    assert code == 3 and used == [[90, 90]] * 3
    assert [wish.stem.name for wish, _ in pictures] == ["a__1", "c__0", "s0"]
    lines = (tmp_path / "out/results.csv").read_text().splitlines()
    assert lines[0] == "input,page,output,status,style,mask,dice,qc,qc_why,tries,seed,detail,error,made_by"
    assert [row.split(",")[3] for row in lines[1:]] == ["ok", "failed", "ok", "ok"]
    assert lines[2].endswith("twice the same,") and lines[4].startswith("s0,0,")
    assert f"error: {items[1].name}: twice the same" in capsys.readouterr().err
    with Image.open(tmp_path / "out/labels/s0.png") as mask:
        assert mask.size == (30, 20) and set(np.unique(np.array(mask))) <= {0, 1}


def test_commands_share_a_folder_and_its_table(
    mhvae: Callable[..., Any], tiny_model: Path, phantom_folder: Path, tmp_path: Path
) -> None:
    images = sorted((phantom_folder / "images").iterdir())[:2]
    common = ["-m", tiny_model, "-o", f"{tmp_path}/"]
    assert mhvae("segment", images[0], *common).code == 0
    assert mhvae("swap-style", *images, "--no-refine", *common).code == 0
    assert mhvae("segment", images[1], *common).code == 0
    with (tmp_path / "results.csv").open(newline="") as file:
        told = list(csv.DictReader(file))
    stem = images[0].stem
    assert [Path(row["output"]).name for row in told] == [
        f"{stem}.png",
        f"{stem}__style-{images[1].stem}.png",
        f"{images[1].stem}__style-{stem}.png",
        f"{images[1].stem}.png",
    ]
    assert [bool(row["area_px"]) for row in told] == [True, False, False, True]
    assert [bool(row["dice"]) for row in told] == [False, True, True, False]
    assert all(None not in row and None not in row.values() for row in told)


@pytest.mark.usefixtures("three_scans")
@pytest.mark.parametrize(
    "verb", [("reconstruct",), ("warp", "--rotate", 30), ("swap-style",)], ids=lambda verb: verb[0]
)
def test_a_result_is_the_same_file_whatever_else_is_made(
    mhvae: Mhvae, tiny_refined: Path, verb: tuple[object, ...]
) -> None:
    """The bytes, the text inside included: with other numbers of inputs, batches and threads."""
    options = ("-m", tiny_refined, "--steps", 2, "--save-latents", "--deterministic")
    assert mhvae(*verb, "scans/a.png", "scans/b.png", *options, "-o", "few/", "-b", 1, "-j", 0).code == 0
    assert mhvae(*verb, "scans", *options, "-o", "all/", "-b", 3, "-j", 2).code == 0
    files = [path.name for path in Path("few").iterdir() if path.suffix in (".png", ".safetensors", ".json")]
    files.remove("mhvae-run.json")
    assert len(files) == 8
    for name in files:
        assert Path("few", name).read_bytes() == Path("all", name).read_bytes(), name


@pytest.mark.usefixtures("three_scans")
@pytest.mark.parametrize(
    "verb",
    [("reconstruct", "scans/a.png"), ("warp", "scans/a.png", "--rotate", 9), ("sample", "-n", 1)],
    ids=lambda verb: verb[0],
)
def test_an_image_without_the_object_of_its_mask_is_flagged(
    mhvae: Mhvae, tiny_refined: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[object, ...]
) -> None:
    """The words are those of segment's quality control."""
    agreed = [0.2, 0.6999, 0.7, 0.2]
    monkeypatch.setattr(generation, "dice", lambda found, wanted: agreed.pop(0))
    common = (*verb, "-m", tiny_refined, "--no-refine", "--existing", "overwrite", "-o", "m/")
    for dice, columns in (("0.2", ("warn", "dice")), ("0.6999", ("warn", "dice")), ("0.7", ("ok", ""))):
        ended = mhvae(*common)
        assert ended.code == 0
        (row,) = rows()
        assert (row["dice"], row["status"], row["qc"], row["qc_why"]) == (dice, "ok", *columns)
        said = f"warning: {row['output']}: dice {dice}, below 0.7: "
        assert (said in ended.stderr) == (columns[0] == "warn")
        assert runs()[-1]["counts"]["warned"] == (columns[0] == "warn")
    missed = mhvae(*common, "--min-dice", 0.5)
    assert missed.code == 8 and "below 0.5" in missed.stderr and "warning" not in missed.stderr
    assert (rows()[0]["status"], rows()[0]["qc"]) == ("missed", "warn")
