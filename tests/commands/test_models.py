"""`mhvae models`: list, show, pull, verify, export, import and push, against a Hub on this machine."""

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.hub_server import TOKEN, Fault, HubServer
from support.model_folders import files_of, sums_of
from typer.testing import CliRunner

from mhvae_cli.checkpoints.checksums import SUMS, format_sums
from mhvae_cli.checkpoints.folder import PARTS, load_state, read_config, save_model
from mhvae_cli.checkpoints.registry import MODELS, bundled
from mhvae_cli.cli import app
from mhvae_cli.images.encode import encode_png

Mhvae = Callable[..., Any]
ROOT = Path(__file__).parents[2]

# A process of its own: the client reads its environment when it is imported.
RUN = """
import json, sys
from typer.testing import CliRunner
from mhvae_cli.cli import app
for words in json.load(sys.stdin):
    ended = CliRunner().invoke(app, words)
    print(json.dumps([ended.exit_code, ended.stdout.splitlines(), ended.stderr]))
"""
NO_SOCKETS = """
import socket
class Refused(socket.socket):
    def __init__(self, *args, **options):
        raise AssertionError("a socket was opened")
socket.socket = Refused
"""


class Lab:
    """Runs commands on one home, in this process or in new ones."""

    def __init__(self, url: str, home: Path) -> None:
        keep = {key: os.environ[key] for key in ("PATH", "SYSTEMROOT") if key in os.environ}
        self.home = home
        self.env = {
            **keep,
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": url,
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "*",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, code: str, **env: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-c", code],
            env={**self.env, **env},
            cwd=self.home,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def run(self, *commands: str, token: str = "") -> list[tuple[int, list[str], str]]:
        """Exit code, lines of stdout, and stderr of each command."""
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.home)
            patch.setenv("HF_TOKEN", token)
            patch.setenv("NO_PROXY", "*")
            url = self.env["HF_ENDPOINT"]
            for name, value in (
                ("ENDPOINT", url),
                ("HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"),
                ("HF_HUB_CACHE", str(self.home / "hf" / "hub")),
                ("HF_TOKEN_PATH", str(self.home / "hf" / "token")),
                ("HF_HUB_DISABLE_XET", True),
            ):
                patch.setattr(f"huggingface_hub.constants.{name}", value)
            patch.setenv("MHVAE_HOME", str(self.home / "mhvae"))
            ends = [CliRunner().invoke(app, line.split()) for line in commands]
        return [(ended.exit_code, ended.stdout.splitlines(), ended.stderr) for ended in ends]

    def run_apart(self, *commands: str, **env: str) -> list[tuple[int, list[str], str]]:
        """The same in a process of its own, which reads its environment itself."""
        process = self.start(RUN, **env)
        out, faults = process.communicate(json.dumps([line.split() for line in commands]), timeout=100)
        assert process.returncode == 0, faults
        return [tuple(json.loads(line)) for line in out.splitlines()]

    @property
    def blobs(self) -> Path:
        return self.home / "hf" / "hub" / "models--lab--tiny" / "blobs"


@pytest.fixture
def lab(hub: HubServer, tmp_path: Path) -> Lab:
    return Lab(hub.url, tmp_path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where imported models go; no Hub, and an empty cache of it."""
    monkeypatch.setenv("MHVAE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


def picture(path: Path) -> None:
    path.write_bytes(encode_png(np.zeros((20, 20), np.uint8)))


def sealed(folder: Path) -> Path:
    """The folder, with sums of its files as they are now."""
    (folder / SUMS).write_text(format_sums(sums_of(folder)))
    return folder


def failed(ended: Any, code: int, *said: str) -> None:
    got, lines, stderr = (ended.code, ended.lines, ended.stderr) if hasattr(ended, "code") else ended
    first, *rest = stderr.splitlines()
    assert got == code and lines == [], (got, stderr)
    assert first.startswith("error: ") and len(rest) <= 1 and all(line.startswith("hint: ") for line in rest)
    for text in said:
        assert text in stderr, stderr


# --- on this machine ---


def test_the_bundled_models_are_what_they_were(mhvae: Mhvae) -> None:
    ended = mhvae("models", "verify", *bundled(), "--json")
    assert ended.code == 0, ended.stderr
    for line in map(json.loads, ended.lines):
        for name, sha256 in line["files"].items():
            data = (MODELS / line["input"] / name).read_bytes()
            assert hashlib.sha256(data).hexdigest() == sha256
        parts = {*PARTS} - ({"frames"} if line["input"] == "skin-lesion" else set())
        assert {"config.json", *(f"{part}.safetensors" for part in parts), "README.md"} == set(line["files"])


def test_show_tells_what_inspect_tells_without_torch(mhvae: Mhvae, tiny_model: Path, home: Path) -> None:
    shown, seen = (mhvae(*verb, tiny_model, "--json").lines for verb in (("models", "show"), ("inspect",)))
    assert shown == seen
    lines = mhvae("models", "show", "skin-lesion").lines
    for text in ("licence: CC BY-NC-SA 4.0", "intended_use: Research; not a medical device.", "data: "):
        assert any(line.startswith(f"  {text}") for line in lines), text
    code = (
        "import sys\nfrom mhvae_cli.cli import app\n"
        "for words in (['list'], ['show', 'fetal-head'], ['--help'], ['verify']):\n"
        "    try: app(['models', *words])\n"
        "    except SystemExit as end: print(end.code, 'torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    ends = [line for line in done.stderr.splitlines() if line.endswith(("True", "False"))]
    assert ends == ["0 False", "0 False", "0 False", "2 False"], done.stderr


def test_verify_tells_of_each_and_exits_6(mhvae: Mhvae, tiny_model: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(tiny_model, tmp_path / "bad")
    (bad / "README.md").write_text("trained on ten million heads")
    ended = mhvae("models", "verify", bad, tiny_model)
    assert ended.code == 6 and ended.stderr.startswith(f"error: {bad / 'README.md'}: checksum mismatch")
    assert [line.split()[1] for line in ended.lines] == [str(tiny_model)]
    (bad / SUMS).unlink()
    failed(mhvae("models", "verify", bad), 6, "no SHA256SUMS", "sha256sum config.json vae.safetensors")


def test_altered_weights_are_not_used(mhvae: Mhvae, tiny_model: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(tiny_model, tmp_path / "bad")
    data = bytearray((bad / "vae.safetensors").read_bytes())
    data[-1] ^= 1
    (bad / "vae.safetensors").write_bytes(data)
    picture(tmp_path / "a.png")
    failed(
        mhvae("segment", tmp_path / "a.png", "--model", bad, "-o", tmp_path / "o.png"), 6, "checksum mismatch"
    )
    assert not (tmp_path / "o.png").exists()


def test_weights_that_fit_their_sums_and_nothing_else(mhvae: Mhvae, tiny_model: Path, tmp_path: Path) -> None:
    """Sealed by who made them, and still refused."""
    config = json.loads((tiny_model / "config.json").read_text())
    config["model"]["z_dim"] = 9
    other = shutil.copytree(tiny_model, tmp_path / "other")
    (other / "config.json").write_text(json.dumps(config))
    nan = shutil.copytree(tiny_model, tmp_path / "nan")
    weights = bytearray((nan / "vae.safetensors").read_bytes())
    weights[-4:] = struct.pack("<f", float("nan"))
    (nan / "vae.safetensors").write_bytes(weights)
    pickled = shutil.copytree(tiny_model, tmp_path / "pickled")
    (pickled / "vae.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    bomb = shutil.copytree(tiny_model, tmp_path / "bomb")
    (bomb / "vae.safetensors").write_bytes(struct.pack("<Q", 2**30) + bytes(100))
    for folder, said in ((other, "does not match"), (nan, "NaN"), (pickled, "pickled"), (bomb, "1073741824")):
        failed(mhvae("models", "verify", sealed(folder)), 6, said)
        failed(mhvae("models", "export", folder, tmp_path / "x.mhvae"), 6, said)
        failed(mhvae("models", "push", folder, "lab/x"), 6, said)
    assert not (tmp_path / "x.mhvae").exists()


# --- one file, to carry ---


def test_export_and_import(mhvae: Mhvae, tiny_refined: Path, home: Path, tmp_path: Path) -> None:
    stick = tmp_path / "tiny.mhvae"
    ended = mhvae("models", "export", tiny_refined, stick)
    assert (ended.code, ended.lines) == (0, [str(stick)]), ended.stderr
    failed(mhvae("models", "export", tiny_refined, stick), 7, "already exists")
    mhvae("models", "export", tiny_refined, tmp_path / "again.mhvae")
    assert (tmp_path / "again.mhvae").read_bytes() == stick.read_bytes()
    with tarfile.open(stick, "r:") as archive:  # plain tar: other programs read it too
        read = {member.name: archive.extractfile(member).read() for member in archive}
    assert read == {f"tiny-refined/{name}": data for name, data in files_of(tiny_refined).items()}

    ended = mhvae("models", "import", stick)
    place = home / "models" / "tiny-refined"
    assert (ended.code, ended.lines) == (0, [str(place)]), ended.stderr
    assert files_of(place) == files_of(tiny_refined) and len(list(place.iterdir())) == 5
    assert mhvae("models", "import", stick).lines == [str(place)]  # there already
    assert mhvae("models", "import", stick, "--name", "second").code == 0
    rows = [line.split("\t")[:2] for line in mhvae("models", "list").lines]
    names = ["tiny-refined", "second"]
    assert rows == [[name, "bundled"] for name in bundled()] + [[n, "imported"] for n in sorted(names)]
    picture(tmp_path / "a.png")
    found = mhvae(
        "segment", tmp_path / "a.png", "--model", "tiny-refined", "-o", tmp_path / "o.png", "--offline"
    )
    assert found.code == 0, found.stderr


def test_a_name_is_not_taken_twice(mhvae: Mhvae, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    mhvae("models", "export", tiny_model, tmp_path / "tiny.mhvae")
    failed(mhvae("models", "import", tmp_path / "tiny.mhvae", "--name", "fetal-head"), 7, "bundled")
    for name in ("../tiny", ".tiny", "a/b", "x" * 33):
        assert mhvae("models", "import", tmp_path / "tiny.mhvae", "--name", name).code == 2
    config = {**read_config(tiny_model), "card": {"license": "MIT"}}
    save_model(home / "models" / "tiny", config=config, states={"vae": load_state(tiny_model)}, card="")
    failed(
        mhvae("models", "import", tmp_path / "tiny.mhvae"), 7, "a different model already exists", "--name"
    )
    assert read_config(home / "models" / "tiny")["card"] == {"license": "MIT"}
    assert os.listdir(home / "models") == ["tiny"]


def tar(*entries: tuple[Any, bytes], form: int = tarfile.USTAR_FORMAT, mode: str = "w") -> bytes:
    """An archive by another program: names, or TarInfo, and contents."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode, format=form) as archive:
        for info, content in entries:
            info = tarfile.TarInfo(info) if isinstance(info, str) else info
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def hostile(good: bytes, files: dict[str, bytes]) -> dict[str, bytes]:
    """Archives that are refused, and nothing is put in place, by what is wrong with them."""
    text = files[SUMS]
    head, readme = (f"tiny/{SUMS}", text), ("tiny/README.md", files["README.md"])
    extra = text + f"{hashlib.sha256(b'x').hexdigest()}  x.bin\n".encode()
    at = good.index(files["vae.safetensors"])
    pickle = b"\x80\x02cos\nsystem\n"
    swapped = text.replace(hashlib.sha256(files["vae.safetensors"]).hexdigest().encode(), b"0" * 64)
    size = good.index(b"tiny/README.md") + 124
    return {
        "empty": b"",
        "no archive": b"PK\x03\x04" + bytes(600),
        "cut in a header": good[:300],
        "cut in a file": good[: at + 100],
        "cut at the end": good[:-512],
        "garbage behind it": good + bytes(512),
        "gzip": tar(head, readme, mode="w:gz"),
        "a bit of a weight": good[: at + 900] + bytes([good[at + 900] ^ 1]) + good[at + 901 :],
        "another sum": good.replace(text, swapped),
        "a claim of 8 GB": good[:size] + b"77777777777" + good[size + 11 :],
        "no sums": tar(readme),
        "sums alone": tar(head),
        "a path out": tar((f"../{SUMS}", text)),
        "an absolute path": tar((f"/tmp/{SUMS}", text)),
        "two models": tar(head, ("other/README.md", files["README.md"])),
        "a file too many": tar((f"tiny/{SUMS}", extra), readme),
        "a symbolic link": tar(head, (link("tiny/README.md", tarfile.SYMTYPE, "/etc/passwd"), b"")),
        "a hard link": tar(head, (link("tiny/README.md", tarfile.LNKTYPE, "/etc/passwd"), b"")),
        "a folder": tar(head, (link("tiny/README.md", tarfile.DIRTYPE, ""), b"")),
        "a device": tar(head, (link("tiny/README.md", tarfile.CHRTYPE, ""), b"")),
        "pax headers": tar((link(f"tiny/{SUMS}", tarfile.REGTYPE, "ü" * 120), text), form=tarfile.PAX_FORMAT),
        "a pickle": tar(
            (f"tiny/{SUMS}", f"{hashlib.sha256(pickle).hexdigest()}  vae.bin\n".encode()),
            ("tiny/vae.bin", pickle),
        ),
    }


def test_archives_that_are_refused(mhvae: Mhvae, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    stick = tmp_path / "tiny.mhvae"
    mhvae("models", "export", tiny_model, stick)
    good = stick.read_bytes()
    for what, data in hostile(good, files_of(tiny_model)).items():
        assert data != good, what
        stick.write_bytes(data)
        ended = mhvae("models", "import", stick)
        assert ended.code == 6 and ended.stderr.startswith("error: "), (what, ended.stderr)
        assert not (home / "models").exists() or os.listdir(home / "models") == [], what
    failed(mhvae("models", "import", tmp_path / "none.mhvae"), 6, "no such file")
    stick.write_bytes(good)
    assert mhvae("models", "import", stick).code == 0


def test_imports_without_room_or_right(mhvae: Mhvae, tiny_model: Path, home: Path, tmp_path: Path) -> None:
    mhvae("models", "export", tiny_model, tmp_path / "tiny.mhvae")
    home.write_text("a file, where a folder should be")
    failed(mhvae("models", "import", tmp_path / "tiny.mhvae"), 7, "hint: ")
    failed(mhvae("models", "export", tiny_model, home / "x.mhvae"), 7, "hint: ")


# --- from the Hub ---


def test_pull_then_everything_without_a_network(hub: HubServer, lab: Lab, tiny_model: Path) -> None:
    commit = hub.push("lab/tiny", {**files_of(tiny_model), "state.safetensors": b"large"}, tags=["v1"])
    ((code, lines, stderr),) = lab.run("models pull lab/tiny@v1")
    assert code == 0 and lines[0].endswith(f"snapshots/{commit}"), stderr
    assert files_of(Path(lines[0])) == files_of(tiny_model)
    assert not [path for _, path, _ in hub.requests if "state" in path]
    strange = [path for _, path, _ in hub.requests if "lab/tiny" not in path and not path.startswith("/cdn/")]
    assert not strange
    (lab.home / "sitecustomize.py").write_text(NO_SOCKETS)
    picture(lab.home / "a.png")
    deaf = {"PYTHONPATH": f"{lab.home}{os.pathsep}{ROOT}"}
    listed, verified, shown, exported, found, lost, other, again = lab.run_apart(
        "models list",
        "models verify lab/tiny@v1",
        "models show lab/tiny@v1",
        "models export lab/tiny@v1 tiny.mhvae",
        "segment a.png -o o.png --model lab/tiny@v1 --offline",
        "segment a.png -o p.png --model lab/tiny@v2 --offline",
        "models show lab/other",
        "segment a.png -o q.png --model lab/tiny",
        **deaf,
    )
    assert [line.split("\t")[:2] for line in listed[1]][-1] == ["lab/tiny@v1", "hub"]
    assert [ended[0] for ended in (verified, shown, exported, found)] == [0, 0, 0, 0], verified
    failed(lost, 6, "and offline: config.json is not in the Hub's cache", "mhvae models pull lab/tiny@v2")
    failed(other, 6, "hint: download it while online: mhvae models pull lab/other")
    assert again[0] != 0 and "a socket was opened" in again[2]  # the trap works
    offline, pull = lab.run_apart(
        "segment a.png -o p.png --model lab/new", "models pull lab/new", **deaf, HF_HUB_OFFLINE="1"
    )
    failed(offline, 6, "offline", "mhvae models pull lab/new")
    failed(pull, 6, "cannot be checked offline", "HF_HUB_OFFLINE")


@pytest.mark.parametrize(("where", "at"), [("/cdn/", 9000), ("/resolve/", 40)])
def test_what_is_altered_on_the_way_is_found(
    hub: HubServer, lab: Lab, tiny_model: Path, where: str, at: int
) -> None:
    """One bit, of a large file or of small ones; sizes are right."""
    hub.push("lab/tiny", files_of(tiny_model))
    hub.faults = [Fault("alter", where, at)]
    picture(lab.home / "a.png")
    commands = ("models pull lab/tiny", "segment a.png -o o.png --model lab/tiny", "models verify lab/tiny")
    pulled, used, verified = lab.run(*commands)
    for ended in (pulled, used):
        failed(
            ended, 6, "checksum mismatch with the Hub, removed from the cache", "mhvae models pull lab/tiny"
        )
    assert verified[0] == 6
    hub.faults = []
    pulled, verified = lab.run("models pull lab/tiny", "models verify lab/tiny")
    assert (pulled[0], verified[0]) == (0, 0) and files_of(Path(pulled[1][0])) == files_of(tiny_model)


def test_what_is_altered_in_the_cache_is_found(hub: HubServer, lab: Lab, tiny_model: Path) -> None:
    hub.push("lab/tiny", files_of(tiny_model))
    ((_, (folder,), _),) = lab.run("models pull lab/tiny")
    weights = Path(folder, "vae.safetensors").resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    picture(lab.home / "a.png")
    verified, used, pulled, healed, again = lab.run(
        "models verify lab/tiny",
        "segment a.png -o o.png --model lab/tiny",
        "models pull lab/tiny",
        "models pull lab/tiny",
        "models verify lab/tiny",
    )
    failed(verified, 6, "vae.safetensors: checksum mismatch")
    failed(used, 6, "vae.safetensors: checksum mismatch")
    failed(pulled, 6, "checksum mismatch with the Hub, removed from the cache: vae.safetensors")
    assert healed[0] == again[0] == 0 and files_of(Path(folder)) == files_of(tiny_model)


def test_a_pull_that_is_killed_goes_on_where_it_was(hub: HubServer, lab: Lab, tiny_model: Path) -> None:
    files = files_of(tiny_model)
    hub.push("lab/tiny", files)
    size = len(files["vae.safetensors"])
    hub.faults = [Fault("slow", "/cdn/", size // 60)]
    process = lab.start("from mhvae_cli.cli import app; app(['models', 'pull', 'lab/tiny'])")
    deadline = time.monotonic() + 30
    while sum(part.stat().st_size for part in lab.blobs.glob("*.part")) < size // 4:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (part,) = lab.blobs.glob("*.part")
    kept = part.stat().st_size
    assert size // 4 <= kept < size
    failed(lab.run("models verify lab/tiny")[0], 6, "is not in the Hub's cache")
    hub.faults, hub.sent = [], 0
    pulled, verified = lab.run("models pull lab/tiny", "models verify lab/tiny")
    assert (pulled[0], verified[0]) == (0, 0) and files_of(Path(pulled[1][0])) == files
    assert hub.sent < size - kept + 40_000  # the rest, and the small files
    assert not list(lab.blobs.glob("*.part"))


def test_two_pulls_at_once(hub: HubServer, lab: Lab, tiny_model: Path) -> None:
    hub.push("lab/tiny", files_of(tiny_model))
    hub.faults = [Fault("slow", "/cdn/", 30_000)]
    code = "from mhvae_cli.cli import app; app(['models', 'pull', 'lab/tiny'])"
    both = [lab.start(code) for _ in range(2)]
    ends = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert files_of(Path(ends[0][0].strip())) == files_of(tiny_model)
    assert len([path for _, path, _ in hub.requests if path.startswith("/cdn/")]) == 1


def test_wrong_models_on_the_hub(hub: HubServer, lab: Lab, tiny_model: Path) -> None:
    good = files_of(tiny_model)
    config = json.loads(good["config.json"])
    config["model"]["z_dim"] = 9
    hub.push("lab/other", {**good, "config.json": json.dumps(config).encode()})
    hub.push("lab/pickled", {"config.json": good["config.json"], "pytorch_model.bin": b"\x80\x02"})
    hub.push("lab/renamed", {**good, "vae.safetensors": b"PK\x03\x04" + bytes(99)})
    hub.push("lab/bert", {"config.json": b'{"architectures": ["Bert"]}', "vae.safetensors": b""})
    names = ("other", "pickled", "renamed", "bert")
    ends = lab.run(*(f"models pull lab/{name}" for name in names))
    said = ("does not match its config.json", "no vae.safetensors", "pickled", "not an mhvae model")
    for ended, text in zip(ends, said, strict=True):
        failed(ended, 6, text)
    assert not [path for _, path, _ in hub.requests if path.endswith(".bin")]


def test_a_proxy_that_refuses(lab: Lab) -> None:
    door = socket.create_server(("127.0.0.1", 0))
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    def refuse() -> None:
        while True:
            try:
                talk, _ = door.accept()
            except OSError:
                return
            with talk:
                talk.recv(4096)
                talk.sendall(answer)

    threading.Thread(target=refuse, daemon=True).start()
    proxy = f"http://127.0.0.1:{door.getsockname()[1]}"
    for scheme in ("http", "https"):
        asked = {"HF_ENDPOINT": f"{scheme}://hub.invalid", f"{scheme.upper()}_PROXY": proxy, "NO_PROXY": ""}
        (ended,) = lab.run_apart("models pull lab/tiny", **asked)
        failed(ended, 6, "the proxy refuses: ", "407", "HTTPS_PROXY")
    door.close()


# --- to the Hub ---


def test_push_and_pull_again(hub: HubServer, lab: Lab, tiny_refined: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_refined, lab.home / "refined")
    (lab.home / "refined" / "state.safetensors").write_bytes(b"not of the model")
    shutil.copytree(tiny_model, lab.home / "plain")
    first, second = lab.run(
        "models push refined lab/tiny --private", "models push plain lab/tiny", token=TOKEN
    )
    assert first[0] == 0, first
    repo = hub.repos["lab/tiny"]
    assert repo.access == "private" and first[1] == [f"lab/tiny@{list(repo.commits)[1]}"]
    assert repo.commits[first[1][0].partition("@")[2]] == files_of(tiny_refined)
    assert second[0] == 0 and repo.commits[repo.refs["main"]] == files_of(tiny_model)  # no old cddpm is left
    pulled, verified = lab.run(f"models pull {first[1][0]}", f"models verify {first[1][0]}", token=TOKEN)
    assert (pulled[0], verified[0]) == (0, 0) and files_of(Path(pulled[1][0])) == files_of(tiny_refined)


def test_pushes_that_are_refused(hub: HubServer, lab: Lab, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, lab.home / "tiny")
    hub.push("lab/open", {})
    bad = shutil.copytree(tiny_model, lab.home / "bad")
    (bad / "config.json").write_text((bad / "config.json").read_text().replace("0.02", "0.03"))
    theirs, public, altered, none, name = lab.run(
        "models push tiny theirs/tiny",
        "models push tiny lab/open --private",
        "models push bad lab/bad",
        "models push nowhere lab/x",
        "models push tiny lab--x/a..b",
        token=TOKEN,
    )
    failed(theirs, 7, "rejects your access token (403)", "write")
    failed(public, 7, "public")
    failed(altered, 6, "config.json: checksum mismatch")
    failed(none, 6, "no such folder")
    failed(name, 7, "not a valid name on the Hub")
    (stranger,) = lab.run("models push tiny lab/tiny", token="hf_wrong")
    failed(stranger, 7, "rejects your access token (401)", "HF_TOKEN")
    assert "hf_wrong" not in stranger[2] and list(hub.repos) == ["lab/open"]
    assert len(hub.repos["lab/open"].commits) == 1
    lab.env["HF_ENDPOINT"] = "http://127.0.0.1:1"
    (gone,) = lab.run("models push tiny lab/tiny", token=TOKEN)
    failed(gone, 7, "cannot be reached")
