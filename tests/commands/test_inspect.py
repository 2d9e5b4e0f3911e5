"""`mhvae inspect`: made files, ordinary images, latents and models, in readable lines and as JSON."""

import hashlib
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mhvae_cli.checkpoints.folder import load_state
from mhvae_cli.checkpoints.registry import bundled
from mhvae_cli.images.encode import encode_gif, encode_png, encode_tiff
from mhvae_cli.inference import provenance

Mhvae = Callable[..., Any]
GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
ORIGIN = provenance.Origin("fetal-head", "ab" * 32, 7, "mhvae warp a.png --rotate 45")
RECORD = provenance.make_record(ORIGIN, ["cd" * 32], edit={"rotate": 45.0, "shift": [1, -2]})
TEXT = provenance.embed(RECORD)


def lines_of(mhvae: Mhvae, *args: object) -> list[str]:
    ended = mhvae("inspect", *args)
    assert ended.code == 0 and ended.stderr == "", ended.stderr
    return ended.lines


def facts_of(mhvae: Mhvae, *args: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(mhvae, *args, "--json")]


@pytest.mark.parametrize("form", ["png", "tif"])
def test_a_made_file_prints_its_record(mhvae: Mhvae, tmp_path: Path, form: str) -> None:
    encode = encode_png if form == "png" else encode_tiff
    file = tmp_path / f"a.{form}"
    file.write_bytes(encode(GREY, text=TEXT, orientation=6))
    lines = lines_of(mhvae, file)
    assert lines[0] == str(file)
    for line in (
        "width: 30",
        "height: 20",
        "orientation: 6",
        f"mhvae: {RECORD['mhvae']}",
        "synthetic: true",
        "notice: Synthetic image made by a model; not for diagnosis.",
        f"model_sha256: {'ab' * 32}",
        "seed: 7",
        f"sources 1 sha256: {'cd' * 32}",
        "command: mhvae warp a.png --rotate 45",
        "edit rotate: 45.0",
        "edit shift: 1, -2",
    ):
        assert "  " + line in lines
    (facts,) = facts_of(mhvae, file)
    assert (facts["input"], facts["status"], facts["record"]) == (str(file), "ok", RECORD)


def test_a_made_gif_and_latents(mhvae: Mhvae, tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(encode_gif([GREY, 255 - GREY], ms_per_frame=50, text=TEXT))
    header = json.dumps({"__metadata__": TEXT}).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (tmp_path / "a.json").write_text(json.dumps({"mhvae": RECORD}))
    (tmp_path / "b.json").write_text("{}")
    found = facts_of(mhvae, *(tmp_path / name for name in ("a.gif", "a.safetensors", "a.json", "b.json")))
    assert [facts["record"] for facts in found] == [RECORD, RECORD, RECORD, None]
    assert [facts["kind"] for facts in found] == ["image", "safetensors", "json", "json"]


def test_an_ordinary_image_is_described(mhvae: Mhvae, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.dstack([GREY] * 3)).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.png").write_bytes(encode_png(GREY.astype(np.uint16) * 200))
    pages = [Image.fromarray(GREY), Image.fromarray(GREY.T.copy()), Image.fromarray(GREY)]
    pages[0].save(tmp_path / "c.tif", save_all=True, append_images=pages[1:])
    keys = ("width", "height", "bits", "channels", "pages", "orientation", "record")
    found = {
        Path(facts["input"]).name: facts for facts in facts_of(mhvae, tmp_path)
    }  # a file once, not a page
    assert [found["a.jpg"][key] for key in keys] == [30, 20, 8, 3, 1, 8, None]
    assert [found["b.png"][key] for key in keys] == [30, 20, 16, 1, 1, 1, None]
    assert [found["c.tif"][key] for key in keys] == [30, 20, 8, 1, 3, 1, None]
    lines = lines_of(mhvae, tmp_path / "b.png")
    assert lines[-1] == "  record: no mhvae record: not made by mhvae, or the metadata was stripped"


def test_an_image_on_stdin(mhvae: Mhvae) -> None:
    ended = mhvae("inspect", "-", "--json", stdin=encode_png(GREY, text=TEXT))
    assert ended.code == 0 and json.loads(ended.lines[0])["record"] == RECORD


def test_a_model_is_described(mhvae: Mhvae, tiny_model: Path, tmp_path: Path) -> None:
    (facts,) = facts_of(mhvae, tiny_model)
    files = [tiny_model / name for name in ("config.json", "vae.safetensors")]
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    count = sum(tensor.numel() for tensor in load_state(tiny_model).values())
    assert facts == {
        "input": str(tiny_model),
        "status": "ok",
        "kind": "model",
        "name": "tiny",
        "folder": str(tiny_model),
        "sha256": hashlib.sha256("".join(sums).encode()).hexdigest(),
        "components": ["vae"],
        "parameters": {"vae": count},
        "image_size": 32,
        "channels": 1,
        "warp": "tps",
        "licence": "apache-2.0",
        "attribution": "none",
        "data": "none",
        "intended_use": "Research; not a medical device.",
        "figures": {},
        "files": {
            name: {
                "bytes": (tiny_model / name).stat().st_size,
                "sha256": hashlib.sha256((tiny_model / name).read_bytes()).hexdigest(),
            }
            for name in ("config.json", "vae.safetensors", "README.md", "SHA256SUMS")
        },
    }
    both = shutil.copytree(tiny_model, tmp_path / "both")
    shutil.copy(both / "vae.safetensors", both / "cddpm.safetensors")
    lines = lines_of(mhvae, both)
    assert "  components: vae, cddpm" in lines and f"  parameters cddpm: {count}" in lines


def test_bundled_models_by_name_and_files_beside_them(
    mhvae: Mhvae, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(encode_png(GREY))
    found = facts_of(mhvae, "a.png", *bundled())
    assert [facts["input"] for facts in found] == [*bundled(), "a.png"]
    assert found[0]["licence"] and found[0]["parameters"]["vae"] > 1e6
    assert any(
        line.startswith("  figures held-out fold native dice: 0.") for line in lines_of(mhvae, "fetal-head")
    )
    Path("fetal-head").mkdir()  # what is there is meant, as everywhere
    Path("fetal-head", "b.png").write_bytes(encode_png(GREY))
    assert facts_of(mhvae, "fetal-head")[0]["kind"] == "image"


def test_faults_cost_their_own_line_and_set_the_exit_code(
    mhvae: Mhvae, tmp_path: Path, tiny_model: Path
) -> None:
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encode_png(GREY))
    bad.write_bytes(good.read_bytes()[:100])
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    (broken / "config.json").write_text("{}")
    gone = tmp_path / "gone.png"
    ended = mhvae("inspect", bad, good, broken, gone, "--json")
    assert ended.code == 3
    found = {facts["input"]: facts for facts in map(json.loads, ended.lines)}
    assert {name: facts["status"] for name, facts in found.items()} == {
        str(broken): "failed",
        str(bad): "failed",
        str(good): "ok",
        str(gone): "failed",
    }
    assert found[str(bad)]["error"] == "truncated PNG"
    errors = [line for line in ended.stderr.splitlines() if not line.startswith("hint: ")]
    assert len(errors) == 3 and all(line.startswith(f"error: {tmp_path}") for line in errors)
    ended = mhvae("inspect", bad, gone)
    assert ended.code == 4 and ended.lines == []
    assert mhvae("inspect").code == 2 and "no inputs" in mhvae("inspect").stderr


def test_a_hostile_record_cannot_drive_the_terminal(mhvae: Mhvae, tmp_path: Path) -> None:
    nested: Any = "leaf"
    for _ in range(300):
        nested = {"k": [nested]}
    hostile = RECORD | {"model": "x\x1b[2J\nseed: 8", "\x1b]0;title\x07": 1, "deep": nested}
    (tmp_path / "a.png").write_bytes(encode_png(GREY, text=provenance.embed(hostile)))
    lines = lines_of(mhvae, tmp_path / "a.png")
    assert "\x1b" not in "".join(lines) and "\x07" not in "".join(lines)
    assert [line for line in lines if line.startswith("  seed")] == ["  seed: 7"]
    assert r'  model: "x\u001b[2J\nseed: 8"' in lines


def test_no_torch_is_loaded(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(GREY, text=TEXT))
    code = (
        "import sys\nfrom mhvae_cli.cli import app\n"
        f"try: app(['inspect', {str(tmp_path / 'a.png')!r}, {str(tiny_model)!r}, 'fetal-head'])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr.split() == ["0", "False"] and "  warp: tps" in done.stdout.splitlines()
