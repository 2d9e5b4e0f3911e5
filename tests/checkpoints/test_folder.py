"""Model folders: names, configurations, weights and cards, against what the format's own reader says."""

import hashlib
import json
import os
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import save

from mhvae_cli.checkpoints import checksums, model_card, registry
from mhvae_cli.checkpoints import folder as model_folder
from mhvae_cli.checkpoints import tensors as files
from mhvae_cli.checkpoints.checksums import parse_sums
from mhvae_cli.checkpoints.folder import FILES, load_state, read_config
from mhvae_cli.checkpoints.registry import bundled, load_pretrained, resolve
from mhvae_cli.errors import ModelError, OutputError, UsageError

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = {
    "format": 1,
    "kind": "mhvae",
    "name": "heads",
    "model": {"image_size": 192},
    "training": {"command": "mhvae train-vae --data heads/ --out run/", "train": {"epochs": 3}},
    "card": {
        "license": "CC BY 4.0",
        "attribution": "T. van den Heuvel et al.: HC18",
        "data": {"name": "HC18 | ultrasound", "images": 999},
        "splits": "folds 0-2 train, 3 is held out",
    },
    "figures": {"validation": {"dice": 0.97231, "hd": 4.9}, "images": 200, "hd_mm": float("nan")},
}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 5, 5, generator=generator).to(memory_format=torch.channels_last),
        "bn.running_var": torch.full((4,), 1e-7),
        "bn.num_batches_tracked": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "heads"
    text = model_card.model_card(CONFIG)
    model_folder.save_model(place, config=CONFIG, states={"vae": tensors()}, card=text)
    return place


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two bundled models."""
    for name in ("fetal-head", "skin-lesion"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "config.json").write_text("{}")
    monkeypatch.setattr(registry, "MODELS", tmp_path / "models")
    return tmp_path / "models"


def refused(match: str, call: Any, *args: Any, **options: Any) -> ModelError:
    with pytest.raises(ModelError, match=match) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value) and "\n" not in (caught.value.hint or "")
    return caught.value


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def test_names_then_folders(shelf: Path, folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert bundled() == ["fetal-head", "skin-lesion"]
    assert resolve("fetal-head") == shelf / "fetal-head"
    assert resolve(folder) == resolve(f"{folder}/") == folder
    monkeypatch.chdir(folder.parent)
    assert resolve("./heads").samefile(folder)
    (folder.parent / "fetal-head").mkdir()
    assert resolve("fetal-head") == shelf / "fetal-head"  # a bundled name wins
    refused("no config.json", resolve, "./fetal-head")


def test_unknown_names_are_helped(shelf: Path, folder: Path):
    assert "'fetal-head'" in refused("no model 'fetal-haed'", resolve, "fetal-haed").hint
    hint = refused("no model 'xyz'", resolve, "xyz").hint
    assert "fetal-head, skin-lesion" in hint and "ORG/NAME" in hint
    for ref in ("", "a/b/c", "no such place/", "lab/heads@"):
        refused("no model", resolve, ref)
    assert str(folder) in refused("not a model folder", resolve, folder / "vae.safetensors").hint


def test_names_folders_and_headers_need_neither_torch_nor_the_hub(folder: Path):
    code = f"""
import sys
from pathlib import Path
from mhvae_cli.checkpoints import checksums, folder as checkpoint, model_card, registry, tensors as files
folder = registry.resolve({str(folder)!r})
model_card.model_card(checkpoint.read_config(folder))
files.read_metadata(folder / "vae.safetensors")
try: registry.resolve("nothing")
except checkpoint.ModelError: pass
print([name for name in ("torch", "safetensors", "huggingface_hub") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_config_comes_back_and_figures_that_are_not_finite_are_null(folder: Path):
    figures = {**CONFIG["figures"], "hd_mm": None}
    assert read_config(folder) == {**CONFIG, "figures": figures}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("{" + " " * 2**20 + "}", "too large"),
        ('{"format": 1, "format": 1}', "duplicate key"),
        ('{"figures": {"hd": NaN}}', "NaN"),
        (b"\xff\xfe", "cannot be read"),
        ("[]", "not an mhvae model's configuration"),
        ('{"architectures": ["ResNet"]}', "not an mhvae model's configuration"),
        (
            json.dumps({**CONFIG, "figures": {}, "format": 2}),
            "format 2 is not supported, this version reads format 1",
        ),
        (json.dumps({**CONFIG, "figures": {}, "extra": 1}), "unknown key 'extra'"),
        (json.dumps({**CONFIG, "figures": {}, "model": []}), "'model' is missing or has the wrong type"),
        (json.dumps({key: CONFIG[key] for key in ("format", "kind", "name")}), "'model' is missing"),
    ],
)
def test_configs_that_are_refused(tmp_path: Path, text: str | bytes, match: str):
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(match, read_config, tmp_path)


def test_weights_come_back_to_the_bit(folder: Path):
    state, truth = load_state(folder), tensors()
    assert state.keys() == truth.keys()
    for name, tensor in truth.items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor), name
    with safe_open(folder / "vae.safetensors", framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "kind": "mhvae", "component": "vae"}


def test_loaded_tensors_are_private(folder: Path):
    load_state(folder)["conv.weight"].zero_()
    assert torch.equal(load_state(folder)["conv.weight"], tensors()["conv.weight"])


def test_float16_halves_the_matrices_only(tmp_path: Path):
    save_model, truth = model_folder.save_model, tensors()
    save_model(tmp_path, config=CONFIG, states={"vae": truth}, card="", dtype="float16")
    state = load_state(tmp_path)
    assert torch.equal(state["conv.weight"], truth["conv.weight"].half())
    assert torch.equal(state["bn.running_var"], truth["bn.running_var"])  # 1e-7 would be half lost
    large = {"vae": {"w": torch.full((2, 2), 1e6)}}
    refused(
        "w is not finite as float16",
        save_model,
        tmp_path,
        config=CONFIG,
        states=large,
        card="",
        dtype="float16",
    )


def test_weights_must_fit_the_model(folder: Path):
    shapes = {name: tensor.shape for name, tensor in tensors().items()}
    assert load_state(folder, expected=shapes).keys() == shapes.keys()
    wrong = {**shapes, "conv.weight": (4, 1, 5, 5)}
    more = {**shapes, "head.bias": (2,)}
    fewer = {name: shape for name, shape in shapes.items() if name != "bn.num_batches_tracked"}
    refused(r"conv.weight is \(4, 3, 5, 5\) in the file", load_state, folder, expected=wrong)
    refused("head.bias is absent in the file", load_state, folder, expected=more)
    refused("bn.num_batches_tracked is .* absent in the model", load_state, folder, expected=fewer)


def entry(shape: list[Any], start: int, end: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "truncated"),
        (b"\x01\x02", "truncated"),
        (struct.pack("<Q", 2**30) + b"{}", "header claims 1073741824"),
        (struct.pack("<Q", 2**63) + b"{}", "header claims"),
        (struct.pack("<Q", 100) + b"{}", "truncated in its header"),
        (b"PK\x03\x04" + b"\0" * 100 + b"archive/data.pkl", "pickled"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "pickled"),
        (raw(b"[1, 2]"), "its header is damaged"),
        (raw(b"{" * 50_000), "invalid safetensors file"),
        (raw(b'{"w": 1, "w": 2}'), "duplicate key"),
        (raw({"w": 3}), "its header is damaged"),
        (raw(entry([-2], 0, 8), bytes(8)), "impossible shape"),
        (raw(entry([True], 0, 4), bytes(4)), "impossible shape"),
        (raw(entry([2], 0, "8"), bytes(8)), "its header is damaged"),
        (raw(entry([2], 0, 8), bytes(7)), "truncated, [0-9]+ of [0-9]+ bytes"),
        (raw(entry([2], 0, 8), bytes(12)), "invalid safetensors file"),
        (raw(entry([2**62], 0, 8), bytes(8)), "invalid safetensors file"),
        (raw(entry([2], 4, 12), bytes(12)), "overlap or leave a gap"),
        (raw(entry([2], 0, 8) | {"v": entry([2], 4, 12)["w"]}, bytes(12)), "overlap"),
        (raw(entry([2], 0, 8) | {"v": entry([1], 12, 16)["w"]}, bytes(16)), "leave a gap"),
        (raw(entry([2], 0, 8) | {"v": entry([2], 0, 8)["w"]}, bytes(8)), "overlap"),
        (raw(entry([3], 0, 8), bytes(8)), "shape does not match its size in bytes"),
        (raw({"w": {"dtype": "F7", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)), "unknown dtype 'F7'"),
        (raw({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}}, bytes(8)), "damaged"),
        (raw(entry([2], 8, 0), bytes(0)), "invalid safetensors file"),
        (save({"w": torch.tensor([1.0, float("nan")])}), "w contains NaN"),
        (save({"w": torch.tensor([1.0, float("-inf")], dtype=torch.bfloat16)}), "w contains NaN or infinity"),
    ],
)
def test_weights_that_are_refused(tmp_path: Path, data: bytes, match: str):
    (tmp_path / "vae.safetensors").write_bytes(data)
    refused(match, load_state, tmp_path)


def test_pickled_weights_are_not_opened(tmp_path: Path, folder: Path):
    refused("no vae.safetensors", load_state, tmp_path)
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pt")
    refused("model.pt: pickled weights are not loaded", load_state, tmp_path)
    refused("pickled", load_pretrained, tmp_path / "model.pt")
    (tmp_path / "vae.safetensors").write_bytes((tmp_path / "model.pt").read_bytes())
    refused("pickled", load_state, tmp_path)
    (folder / "pytorch_model.bin").touch()
    load_state(folder)


def test_training_state_is_one_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run" / "last.safetensors"
    place = {"progress": json.dumps({"epoch": 2, "step": 17})}
    first = {"rng": torch.get_rng_state(), "w": torch.ones(3, 2, requires_grad=True).T}
    files.save_state(path, first, place)
    assert json.loads(files.read_metadata(path)["progress"]) == {"epoch": 2, "step": 17}
    state = load_state(path.parent, "last")
    assert torch.equal(state["rng"], first["rng"]) and torch.equal(state["w"], torch.ones(2, 3))

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OutputError):
        files.save_state(path, {"w": torch.zeros(2)}, {})
    assert torch.equal(load_state(path.parent, "last")["w"], torch.ones(2, 3))
    assert os.listdir(path.parent) == ["last.safetensors"]


def test_metadata_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "x.safetensors").write_bytes(raw({"__metadata__": {"a": 1}}))
    refused("metadata is damaged", files.read_metadata, tmp_path / "x.safetensors")
    refused("no such file", files.read_metadata, tmp_path / "none.safetensors")


def test_a_folder_is_a_model_only_once_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    order: list[tuple[str, bytes]] = []
    monkeypatch.setattr(model_folder, "write_atomic", lambda path, data: order.append((path.name, data)))
    model_folder.save_model(tmp_path, config=CONFIG, states={"vae": tensors()}, card="card")
    names = [name for name, _ in order]
    assert names == ["SHA256SUMS", "vae.safetensors", "README.md", "SHA256SUMS", "config.json"]
    assert order[0][1] == b""  # until all is there, nothing is said of it
    order.clear()
    bad = {**CONFIG, "format": 9}
    refused("format 9", model_folder.save_model, tmp_path, config=bad, states={"vae": tensors()}, card="")
    nan = {"vae": {"w": torch.tensor([float("nan")])}}
    refused("w is not finite", model_folder.save_model, tmp_path, config=CONFIG, states=nan, card="")
    assert order == []


def test_the_sums_are_those_that_sha256sum_finds(folder: Path):
    truth = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "SHA256SUMS"
    }
    lines = [f"{truth[name]}  {name}" for name in ("README.md", "config.json", "vae.safetensors")]
    assert (folder / "SHA256SUMS").read_text().splitlines() == lines
    assert checksums.check(folder, FILES) == truth


def test_weights_that_are_not_those_of_the_sums_are_not_loaded(folder: Path):
    path = folder / "vae.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # still a safetensors file of finite numbers
    path.write_bytes(data)
    refused("vae.safetensors: checksum mismatch", load_state, folder)
    (folder / "SHA256SUMS").unlink()
    load_state(folder)
    (folder / "SHA256SUMS").write_text("all is well\n")
    refused("not a list of SHA-256 checksums", load_state, folder)


@pytest.mark.parametrize("name", ["README.md", "config.json", "vae.safetensors"])
def test_check_finds_what_was_altered_lost_or_added(folder: Path, name: str):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data + b" ")
    refused(f"{name}: checksum mismatch", checksums.check, folder, FILES)
    (folder / name).unlink()
    refused(f"{name}: no such file", checksums.check, folder, FILES)
    (folder / name).write_bytes(data)
    (folder / "log.csv").write_text("epoch\n")  # a run's other files are no part of the model
    checksums.check(folder, FILES)
    (folder / "cddpm.safetensors").write_bytes(data)
    refused("cddpm.safetensors: not listed in SHA256SUMS", checksums.check, folder, FILES)
    (folder / "SHA256SUMS").unlink()
    assert "sha256sum config.json" in refused("no SHA256SUMS", checksums.check, folder, FILES).hint


@pytest.mark.parametrize(
    "text",
    [
        "x\n",
        f"{'0' * 63}  a\n",
        f"{'0' * 64}  ../a\n",
        f"{'0' * 64}  a\n{'1' * 64}  a\n",
        f"{'0' * 64}  .a\n",
        "0" * 70_000,
    ],
)
def test_sums_that_are_refused(text: str):
    refused("not a list of SHA-256 checksums", parse_sums, text.encode(), "SHA256SUMS")


def test_pretrained_weights_from_a_file(tmp_path: Path):
    path = tmp_path / "resnet50.safetensors"
    path.write_bytes(save({"conv1.weight": torch.ones(1, 3, 7, 7, dtype=torch.float16)}))
    state = load_pretrained(path)
    assert state["conv1.weight"].dtype == torch.float16 and state["conv1.weight"].sum() == 147
    for ref in (tmp_path, tmp_path / "none.safetensors", "weights/none.safetensors"):
        refused("no weights", load_pretrained, ref)


def front_and_body(card: str) -> tuple[dict[str, Any], str]:
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_card_says_what_the_config_knows(folder: Path):
    front, body = front_and_body((folder / "README.md").read_text())
    assert front["license"] == "cc-by-4.0" and front["library_name"] == "mhvae"
    assert "medical" in front["tags"] and front["pipeline_tag"] == "image-segmentation"
    for text in (
        "# heads\n",
        "Research; not a medical device.",
        "- name: HC18 \\| ultrasound\n- images: 999",
        "folds 0-2 train, 3 is held out",
        "Measured on 200 images.\n\n| Metric | Value |\n| --- | --- |\n| hd_mm | - |",
        "### Validation\n\n| Metric | Value |\n| --- | --- |\n| Dice | 0.9723 |",
        "\n| Dice | 0.9723 |\n| Hausdorff distance | 4.9 |",
        "```\nmhvae train-vae --data heads/ --out run/\n```",
        "T. van den Heuvel et al.: HC18",
        "CC BY 4.0",
    ):
        assert text in body, text


@pytest.mark.parametrize(
    ("licence", "front"),
    [
        ("CC BY-NC 4.0", {"license": "cc-by-nc-4.0"}),
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("Our Hospital's: ask\nus", {"license": "other", "license_name": "our-hospital-s-ask-us"}),
    ],
)
def test_licences_are_named_as_the_hub_names_them(licence: str, front: dict[str, str]):
    licensed = {**CONFIG["card"], "license": licence}
    found, _ = front_and_body(model_card.model_card({**CONFIG, "card": licensed}))
    assert {key: found[key] for key in found if key.startswith("license")} == front


def test_a_card_needs_a_licence_and_little_else():
    least = {**CONFIG, "training": {}, "card": {"license": "MIT"}, "figures": {}}
    _, body = front_and_body(model_card.model_card(least))
    assert "## Licence and attribution\n\nLicence of the weights: MIT" in body
    assert "## Evaluation" not in body and "## Training" not in body
    for licence in ({}, {"license": " "}, {"license": None}):
        with pytest.raises(UsageError, match="licence"):
            model_card.model_card({**CONFIG, "card": licence})


def test_a_card_has_a_model_index_of_finite_figures():
    front, _ = front_and_body(model_card.model_card(CONFIG))
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert entry["name"] == "heads" and result["task"]["type"] == "image-segmentation"
    assert result["dataset"]["name"] == "HC18 | ultrasound" and result["dataset"]["split"] == "validation"
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [
        ("dice", 0.9723),
        ("hausdorff_distance", 4.9),
    ]
    nothing = {**CONFIG, "figures": {"validation": {"dice": float("nan"), "loss": 0.5}}}
    front, body = front_and_body(model_card.model_card(nothing))
    assert "model-index" not in front and "| Dice | - |" in body
    undescribed = {**CONFIG, "card": {"license": "MIT"}}
    assert "model-index" not in front_and_body(model_card.model_card(undescribed))[0]


@pytest.mark.parametrize("name", registry.bundled())
def test_the_bundled_cards_are_those_of_their_configs(name: str):
    config = model_folder.read_config(registry.MODELS / name)
    text = (registry.MODELS / name / "README.md").read_text()
    assert text == model_card.model_card(config)
    front, body = front_and_body(text)
    squashed, native = front["model-index"][0]["results"]
    held_out = config["figures"]["held-out fold"]
    for result, figures in ((squashed, held_out["paper256"]), (native, held_out["native"])):
        assert result["dataset"]["split"] == "held-out fold 3"
        found = {metric["type"]: metric["value"] for metric in result["metrics"]}
        assert (found["dice"], found["hausdorff_distance"]) == (figures["dice"], figures["hausdorff px"])
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert len(rows) == 14 and not [row for row in rows if "fold" in row or "paper256" in row]
    assert "fold fold" not in text
    headings = [line[3:] for line in body.splitlines() if line.startswith("## ")]
    assert headings == [
        "Model description",
        "Intended use and limits",
        "Bias",
        "Training data",
        "Training procedure",
        "Evaluation",
        "Licence and attribution",
        "How to use",
    ]


def test_a_card_promises_only_what_the_model_does():
    spline = {**CONFIG, "model": {"image_size": 192, "channels": 3, "warp": {"family": "tps"}}}
    assert "192 x 192 pixels in colour" in model_card.model_card(spline)
    assert "smooth shape" in model_card.model_card(spline)
    affine = {**CONFIG, "model": {"warp": {"family": "affine"}}, "trust": {}}
    assert "always an ellipse" in model_card.model_card(affine) and "`qc`" in model_card.model_card(affine)
    reference = {**CONFIG, "model": {"warp": {"family": "affine"}, "reference": 64}}
    assert "a reference mask" in model_card.model_card(reference)
    assert "an ellipse" not in model_card.model_card(reference)
    single = model_card.model_card({**CONFIG, "model": {"single_head": True}})
    assert "mhvae segment" not in single and "reconstruct scan.png --no-refine" in single
    assert "refine=False" in single and ".segment(" not in single


def test_saved_files_can_be_read_by_others(folder: Path):
    mask = os.umask(0)
    os.umask(mask)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {0o666 & ~mask}
