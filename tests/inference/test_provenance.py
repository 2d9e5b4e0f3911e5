"""Every generated file says what it is, in each format, and nothing of its source goes with it."""

import hashlib
import io
import json
import struct
import subprocess
import sys
import tracemalloc
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mhvae_cli import __version__
from mhvae_cli.errors import InputError
from mhvae_cli.hashing import sha256_of
from mhvae_cli.images.encode import encode_gif, encode_png, encode_tiff
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.scan import stored
from mhvae_cli.images.transforms import to_native, to_square
from mhvae_cli.inference import provenance

ORIGIN = provenance.Origin("fetal-head", "ab" * 32, 7, "mhvae warp 'ünï.png' --rotate 45")
RECORD = provenance.make_record(ORIGIN, ["cd" * 32], edit={"rotate": 45.0, "scale": 0.7})
TEXT = provenance.embed(RECORD)
GREY = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)


def gif(array: np.ndarray, *, text: dict[str, str]) -> bytes:
    return encode_gif([array, array.T.reshape(array.shape)], ms_per_frame=100, text=text)


ENCODERS = {"png": encode_png, "tiff": encode_tiff, "gif": gif}


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_with(*chunks: bytes) -> bytes:
    """A grey PNG with more chunks right behind its header."""
    plain = encode_png(GREY)
    return plain[:33] + b"".join(chunks) + plain[33:]


def test_the_record_holds_what_is_promised() -> None:
    promised = {
        "mhvae": __version__,
        "synthetic": True,
        "derived_from_scan": False,
        "notice": "Synthetic image made by a model; not for diagnosis.",
        "model": "fetal-head",
        "model_sha256": "ab" * 32,
        "seed": 7,
        "sources": [{"sha256": "cd" * 32}],
        "command": "mhvae warp 'ünï.png' --rotate 45",
        "edit": {"rotate": 45.0, "scale": 0.7},
    }
    assert promised == RECORD == json.loads(TEXT["mhvae"])
    assert TEXT["Description"] == RECORD["notice"] and TEXT["Software"] == f"mhvae {__version__}"
    with pytest.raises(ValueError):
        provenance.embed(RECORD | {"score": float("nan")})


@pytest.mark.parametrize("form", ENCODERS)
def test_a_record_comes_back_from_each_format(form: str, tmp_path: Path) -> None:
    data = ENCODERS[form](GREY, text=TEXT)
    file = tmp_path / f"made.{form}"
    file.write_bytes(data)
    assert provenance.read(data) == provenance.read(file) == RECORD
    assert b"not for diagnosis" in data  # plain enough for strings(1) and any viewer's properties
    assert provenance.read(ENCODERS[form](GREY, text={})) is None


def test_other_programs_find_the_words(tmp_path: Path) -> None:
    with Image.open(io.BytesIO(encode_png(GREY, text=TEXT))) as png:
        assert png.text["Description"] == RECORD["notice"]
    with Image.open(io.BytesIO(encode_tiff(GREY, text=TEXT))) as tiff:
        assert tiff.tag_v2[270] == TEXT["mhvae"] and tiff.tag_v2[305] == TEXT["Software"]
    with Image.open(io.BytesIO(gif(GREY, text=TEXT))) as animation:
        assert animation.info["comment"].decode() == TEXT["mhvae"]


def test_bytes_of_a_name_that_are_no_utf_8_survive() -> None:
    record = RECORD | {"command": b"mhvae warp caf\xe9.png".decode(errors="surrogateescape")}
    for encode in ENCODERS.values():
        assert provenance.read(encode(GREY, text=provenance.embed(record))) == record


@pytest.mark.parametrize("form", ENCODERS)
def test_nothing_of_a_source_is_copied(form: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x0112] = "DOE^JANE 1970-01-01", "Dr DOE^JANE", 6
    exif.get_ifd(0x8825)[1] = "N"
    source = tmp_path / "scan.jpg"
    Image.fromarray(GREY).save(source, exif=exif, comment=b"patient DOE^JANE")
    assert source.read_bytes().count(b"DOE^JANE") == 3
    scan = read_scan(source)
    made = to_native(to_square(scan.pixels, 16, 1), scan)
    record = provenance.make_record(ORIGIN, [sha256_of(source)])
    laid = stored(made, scan.orientation)
    turn = {} if form == "gif" else {"orientation": scan.orientation}
    data = ENCODERS[form](laid, text=provenance.embed(record), **turn)
    assert b"DOE" not in data and b"scan.jpg" not in data
    with Image.open(io.BytesIO(data)) as picture:
        tags = dict(picture.getexif())
    if form != "tiff":
        assert tags == ({} if form == "gif" else {0x0112: 6})
    read = read_scan(data)
    if form != "gif":
        assert read.orientation == 6 and read.pixels.shape == scan.pixels.shape == (30, 20)


def test_a_source_is_told_by_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000
    (tmp_path / "a").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert sha256_of(tmp_path / "a") == sha256_of(data) == expected
    with pytest.raises(InputError, match=r"gone: no such file or directory$"):
        sha256_of(tmp_path / "gone")


def latents(path: Path, metadata: dict[str, str]) -> Path:
    header = json.dumps({"__metadata__": metadata}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    return path


def test_latents_carry_it_too(tmp_path: Path) -> None:
    assert provenance.read(latents(tmp_path / "a.safetensors", TEXT)) == RECORD
    assert provenance.read(latents(tmp_path / "b.safetensors", {"kind": "other"})) is None
    file = tmp_path / "a.json"
    for values, found in [
        ({"theta": [1.0], "mhvae": RECORD}, RECORD),
        ({"mhvae": TEXT["mhvae"]}, RECORD),
        ({"theta": [1.0]}, None),
        ([1, 2], None),
    ]:
        file.write_text(json.dumps(values))
        assert provenance.read(file) == found


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '"mhvae"', '{"mhvae": 3, "synthetic": true}', DEEP, TEXT["mhvae"][:-9]]
)
def test_a_damaged_record_is_told_where_the_key_names_it_and_no_record_elsewhere(text: str) -> None:
    with pytest.raises(InputError, match=r"^stdin: its mhvae record is damaged$"):
        provenance.read(encode_png(GREY, text={"mhvae": text}))
    for form in ("tiff", "gif"):  # their one text may be anyone's
        assert provenance.read(ENCODERS[form](GREY, text={"mhvae": text})) is None


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_a_record_can_be_written_again(number: str) -> None:
    text = json.dumps(RECORD)[:-1] + f', "score": {number}}}'
    with pytest.raises(InputError, match="damaged"):
        provenance.read(encode_png(GREY, text={"mhvae": text}))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", b"\xff\xfe\x00", "not JSON"),
        ("a.json", DEEP.encode(), "not JSON"),
        ("a.json", b" " * 2**21, "too large for a latent code"),
        ("a.json", b'{"mhvae": {"seed": NaN}}', "its mhvae record is damaged"),
        ("a.json", b'{"mhvae": 7}', "its mhvae record is damaged"),
        ("a.safetensors", b"\x08", "invalid safetensors file"),
        ("a.safetensors", b"\x80\x04" + b"x" * 99, "pickled weights are not loaded"),
        ("a.png", b"text", "not an image of a supported type"),
        ("a.png", encode_png(GREY, text=TEXT)[:-40], "truncated PNG"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        provenance.read(tmp_path / name)
    assert said in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    for name in ("a.png", "a.json", "a.safetensors"):
        with pytest.raises(InputError, match=rf"(?i){name}: no such file or directory"):
            provenance.read(tmp_path / name)


@cache
def bombs() -> dict[str, bytes]:
    packed = zlib.compress(bytes(100_000_000), 9)
    long = b"Comment\0" + b"a" * (2**20 + 1)
    return {
        "zTXt": chunk(b"zTXt", b"mhvae\0\0" + packed),
        "iTXt": chunk(b"iTXt", b"mhvae\0\1\0\0\0" + packed),
        "tEXt": chunk(b"tEXt", long),
        "many": chunk(b"tEXt", long[:-2]) * 70,
    }


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "tEXt", "many"])
def test_a_bomb_of_text_is_one_line_and_no_memory(kind: str) -> None:
    data = png_with(bombs()[kind])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"^stdin: contains a text larger than a megabyte$"):
            provenance.read(data)
        assert tracemalloc.get_traced_memory()[1] < 80e6
    finally:
        tracemalloc.stop()


def test_the_reading_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(GREY, text=TEXT))
    latents(tmp_path / "a.safetensors", TEXT)
    code = (
        "import sys, pathlib\nfrom mhvae_cli.inference import provenance\n"
        f"for path in pathlib.Path({str(tmp_path)!r}).iterdir(): print(provenance.read(path)['seed'])\n"
        "print([name for name in ('torch', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["7", "7", "[]"], done.stderr
