"""The command's frame: help, usage errors, names of inputs and outputs, streams. Nothing here needs torch."""

import inspect
import json
import os
import pty
import shlex
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mhvae_cli.errors import InputError
from mhvae_cli.runs.console import Progress
from mhvae_cli.runs.streaming import stream

Mhvae = Callable[..., Any]
ROOT = Path(__file__).parents[1]


def picture(path: Path, pages: int = 1) -> Path:
    """A small grey image of the type the suffix says; a TIFF may have pages."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray(np.full((6, 8), 40 * (page + 1) % 256, np.uint8)) for page in range(pages)]
    images[0].save(path, **({"save_all": True, "append_images": images[1:]} if pages > 1 else {}))
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def best(command: Sequence[str], runs: int = 6) -> float:
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
        times.append(time.perf_counter() - begun)
    return min(times)


def test_help_and_version(mhvae: Mhvae) -> None:
    assert "segment" in "\n".join(mhvae("--help").lines)
    assert mhvae("-h").code == mhvae("segment", "--help").code == 0
    ended = mhvae("--version")
    assert ended.code == 0 and ended.lines[0].startswith("mhvae ") and ended.lines == mhvae("-V").lines


def test_the_helps_lines_are_the_verbs_own(mhvae: Mhvae) -> None:
    from mhvae_cli.cli import VERBS

    for verb, line in VERBS.items():
        name = verb.replace("-", "_")
        function = getattr(import_module(f"mhvae_cli.commands.{name}"), name)
        assert " ".join(inspect.getdoc(function).split("\n\n")[0].split()) == line
        assert mhvae(verb, "--help").code == 0
    first = [[*line.split(), "", ""][1] for line in mhvae("--help").lines]
    assert [word for word in first if word in VERBS] == list(VERBS)


def test_light_commands_import_no_torch(tmp_path: Path) -> None:
    image = picture(tmp_path / "a.png")
    runs = [[], ["--help"], ["-V"], ["segment", "--help"], ["segment"], ["segment", "--nope"], ["nope"]]
    runs += [["segment", str(image), "--shard", "0/2"], ["segment", str(image), "-o", "m/", "--dry-run"]]
    code = (
        "import sys\nfrom mhvae_cli.cli import app\n"
        f"for argv in {runs!r}:\n"
        "    try: app(argv)\n"
        "    except SystemExit as end: print(end.code, 'torch' in sys.modules, file=sys.stderr)\n"
        "import mhvae_cli; mhvae_cli.__version__; print('torch' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    ends = [line for line in done.stderr.splitlines() if line.endswith(("True", "False"))]
    expected = ["2", "0", "0", "0", "2", "2", "2", "2", "0"]
    assert ends == [f"{code} False" for code in expected] + ["False"], done.stderr


def test_every_help_ends_in_two_examples_that_run(mhvae: Mhvae, here: Path) -> None:
    """Each is parsed as the verb parses it; those with --dry-run are run with it."""

    from mhvae_cli.cli import VERBS, _load

    for name in ("a.png", "b.png", "scans/c.png"):
        picture(here / name)
    for verb in VERBS:
        examples = import_module(f"mhvae_cli.commands.{verb.replace('-', '_')}").EXAMPLES
        assert len(examples) == 2 and all(len(line) <= 76 for line in examples)
        shown = [line.strip() for line in mhvae(verb, "--help").lines]
        assert [line for line in shown[shown.index("Examples:") + 1 :] if line] == list(examples)
        for line in examples:
            words = shlex.split(line)
            assert words[:2] == ["mhvae", verb]
            context = _load(verb).make_context(verb, words[2:])  # raises at an option that is none
            if "dry_run" in context.params:
                ended = mhvae(*words[1:], "--dry-run")
                assert ended.code == 0 and ended.lines, (line, ended.stderr)


def completed(line: str, **environment: str) -> list[str]:
    """What bash would offer at the end of `line`, by the command's own protocol."""
    words = line.split()
    given = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - (not line.endswith(" ")))}
    given |= {"_MHVAE_COMPLETE": "complete_bash"} | environment
    command = [sys.executable, "-X", "importtime", "-m", "mhvae_cli"]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "mhvae_cli.cli" in done.stderr
    assert not [line for line in done.stderr.splitlines() if line.rsplit("|", 1)[-1].strip() == "torch"]
    return done.stdout.split()


def test_completion_of_verbs_options_choices_and_models() -> None:
    from mhvae_cli.cli import VERBS

    assert completed("mhvae ") == list(VERBS)
    assert completed("mhvae train-") == ["train-vae", "train-cddpm"]
    assert {"--device", "--threads", "--model"} <= set(completed("mhvae segment --"))
    assert completed("mhvae sample --solver dpm") == ["dpm++2m", "dpm++2m-sde"]
    assert completed("mhvae segment a.png --model ") == ["fetal-head", "skin-lesion"]
    assert completed("mhvae warp -m sk") == ["skin-lesion"]
    assert completed("mhvae train-cddpm --model f") == ["fetal-head"]
    assert completed("mhvae segment scans/a") == []  # files are the shell's own to complete


def test_completion_is_installed_and_works_in_bash(tmp_path: Path) -> None:
    """Typer's script in a real bash, which asks the command."""
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin/mhvae"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m mhvae_cli "$@"\n')
    shim.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    environment = os.environ | {"HOME": str(tmp_path), "PATH": path, "PYTHONPATH": str(ROOT)}
    environment["_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION"] = "1"  # the shell is named instead
    install = ["mhvae", "--install-completion", "bash"]
    done = subprocess.run(install, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "bash completion installed" in done.stdout, done.stderr
    assert ".bash_completions/mhvae.sh" in (tmp_path / ".bashrc").read_text()
    script = (
        'source "$HOME/.bash_completions/mhvae.sh"; COMP_WORDS=(mhvae segment --existing ""); COMP_CWORD=3;'
        ' _mhvae_completion mhvae; echo "${COMPREPLY[@]}"'
    )
    asked = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert asked.stdout.split() == ["error", "skip", "overwrite"], asked.stderr


def test_help_is_quick() -> None:
    base = best([sys.executable, "-c", "import typer, rich"])
    assert best([sys.executable, "-m", "mhvae_cli", "--help"]) <= 3 * base


def test_package_names() -> None:
    import mhvae_cli

    assert {"Pipeline", "Latents", "__version__"} <= set(dir(mhvae_cli))
    with pytest.raises(AttributeError):
        _ = mhvae_cli.nothing


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--nope"], "No such option"),
        ([], "no inputs"),
        (["a.png", "-b", "0"], "--batch-size"),
        (["a.png", "--existing", "maybe"], "--existing"),
        (["a.png", "--dtype", "int8"], "--dtype"),
        (["a.png", "--shard", "3/2"], "--shard 3/2"),
        (["a.png", "--shard", "half"], "--shard half"),
        (["a.png", "-o", "mask.jpg"], ".jpg"),
        (["a.png", "-o", "mask.svg", "--format", "png"], ".svg"),
        (["a.png", "b.png", "-o", "-"], "one image"),
        (["a.png", "-o", "-", "--json"], "--json"),
        (["a.png", "-o", "-", "--overlay"], "--overlay"),
        (["-", "-"], "stdin"),
        (["-", "--from-file", "-"], "stdin"),
    ],
)
def test_usage_errors_are_two_lines_and_exit_2(mhvae: Mhvae, here: Path, args: list[str], said: str) -> None:
    picture(here / "a.png")
    picture(here / "b.png")
    ended = mhvae("segment", *args)
    assert ended.code == 2 and not ended.lines and sorted(os.listdir(here)) == ["a.png", "b.png"]
    first, *rest = ended.stderr.splitlines()
    assert first.startswith("error: ") and said in first
    assert len(rest) <= 1 and all(line.startswith("hint: ") for line in rest)


def test_names_in_a_folder(mhvae: Mhvae, here: Path) -> None:
    for name in ("scan10.png", "scan2.JPG", "Scan1.tif", ".hidden.png", "notes.txt", "sub/x.png"):
        (here / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        if name == "notes.txt":
            (here / "scans" / name).write_text("no image")
        else:
            picture(here / "scans" / name)
    ended = mhvae("segment", "scans", "-o", "masks", "--dry-run")
    assert ended.code == 0 and ended.lines == ["masks/Scan1.png", "masks/scan2.png", "masks/scan10.png"]
    assert not (here / "masks").exists()
    deep = mhvae("segment", "scans", "-r", "-o", "masks/", "--dry-run")
    assert deep.lines == [*ended.lines, "masks/sub/x.png"]
    assert mhvae("segment", "scans/sub/x.png", "--dry-run").lines == ["x.png"]  # the current folder
    again = mhvae("segment", "scans", "scans/scan2.JPG", "./scans/../scans/scan10.png", "--dry-run")
    assert again.lines == ["Scan1.png", "scan2.png", "scan10.png"]  # each file once


def test_results_inside_the_inputs_are_no_inputs(mhvae: Mhvae, here: Path) -> None:
    picture(here / "scans/x/a.png")
    picture(here / "scans/masks/x/a.png")
    args = ("segment", "scans", "-r", "-o", "scans/masks/", "--existing", "overwrite", "--dry-run")
    assert mhvae(*args).lines == ["scans/masks/x/a.png"]


def test_globs_and_literals(mhvae: Mhvae, here: Path) -> None:
    for name in ("scan[1].png", "scan1.png", "scan2.png", "d/deep.png"):
        picture(here / name)
    dry = ("-o", "m/", "--dry-run")
    assert mhvae("segment", "scan[1].png", *dry).lines == ["m/scan[1].png"]
    assert mhvae("segment", "scan[12].png", *dry).lines == ["m/scan1.png", "m/scan2.png"]
    assert mhvae("segment", "**/d*.png", *dry).lines == ["m/deep.png"]
    ended = mhvae("segment", "nothing*.png", "scan1.png", *dry)
    assert ended.code == 3 and "nothing*.png: no matching files" in ended.stderr


def test_lists(mhvae: Mhvae, here: Path) -> None:
    picture(here / "a b.png")
    picture(here / "c.png")
    (here / "list.txt").write_text("a b.png\n\nc.png\r\n")
    lines = ["m/a b.png", "m/c.png"]
    assert mhvae("segment", "--from-file", "list.txt", "-o", "m", "--dry-run").lines == lines
    assert (
        mhvae("segment", "--from-file", "-", "-o", "m", "--dry-run", stdin=b"a b.png\nc.png").lines == lines
    )
    missing = mhvae("segment", "--from-file", "no.txt")
    assert missing.code == 4 and missing.stderr.startswith("error: no.txt: no such file")


def test_file_or_folder(mhvae: Mhvae, here: Path) -> None:
    picture(here / "s/a.png")
    picture(here / "s/b.png")
    (here / "there").mkdir()
    (here / "file").write_text("")

    def planned(*args: str) -> list[str]:
        return list(mhvae("segment", *args, "--dry-run").lines)

    assert planned("s/a.png", "-o", "new") == ["new"]
    assert planned("s/a.png", "-o", "new.tif") == ["new.tif"]
    assert planned("s/a.png", "-o", "new/") == ["new/a.png"]
    assert planned("s/a.png", "-o", "there") == ["there/a.png"]
    assert planned("s/a.png", "s/b.png", "-o", "new") == ["new/a.png", "new/b.png"]
    assert planned("s/a.png", "-o", "-") == ["-"]
    assert planned("s/a.png", "-o", "x.out", "--format", "svg") == ["x.out"]
    assert planned("s/a.png", "-o", "m/", "--format", "geojson", "--overlay") == [
        "m/a.geojson",
        "m/a__overlay.png",
    ]
    assert planned("s/a.png", "-o", "x.png", "--overlay") == ["x.png", "x__overlay.png"]
    ended = mhvae("segment", "s", "-o", "file")
    assert ended.code == 7 and "file: is a file, but" in ended.stderr


def test_pages(mhvae: Mhvae, here: Path) -> None:
    picture(here / "three.tif", 3)
    picture(here / "many.tiff", 11)
    assert mhvae("segment", "three.tif", "--dry-run").lines == [f"three_p{i}.png" for i in range(3)]
    assert mhvae("segment", "many.tiff", "--dry-run").lines == [f"many_p{i:02}.png" for i in range(11)]
    assert mhvae("segment", "three.tif", "-o", "-").code == 2


def test_collisions_stop_before_any_work(mhvae: Mhvae, here: Path) -> None:
    picture(here / "x/Scan.png")
    picture(here / "y/scan.jpg")
    ended = mhvae("segment", "x", "y/scan.jpg", "-o", "m/")
    assert ended.code == 7 and "x/Scan.png" in ended.stderr and "y/scan.jpg" in ended.stderr
    assert not (here / "m").exists()
    assert mhvae("segment", "-r", ".", "-o", "m/", "--dry-run").code == 0


def test_an_input_is_never_overwritten(mhvae: Mhvae, here: Path) -> None:
    before = picture(here / "a.png").read_bytes()
    for args in (["a.png"], ["a.png", "-o", "a.png", "--existing", "overwrite"], ["a.png", "-o", "."]):
        ended = mhvae("segment", *args)
        assert ended.code == 7 and "overwrite an input" in ended.stderr
    assert (here / "a.png").read_bytes() == before and os.listdir(here) == ["a.png"]


def test_shards_share_the_work(mhvae: Mhvae, here: Path) -> None:
    for number in range(7):
        picture(here / f"s/{number}.png")
    shards = [mhvae("segment", "s", "-o", "m", "--dry-run", "--shard", f"{i}/3").lines for i in (1, 2, 3)]
    assert [len(lines) for lines in shards] == [3, 2, 2]
    assert sorted(line for lines in shards for line in lines) == [f"m/{number}.png" for number in range(7)]


def test_dry_run_as_json_and_with_existing(mhvae: Mhvae, here: Path) -> None:
    picture(here / "s/a.png")
    picture(here / "s/b.png")
    picture(here / "m/a.png")
    assert mhvae("segment", "s", "-o", "m", "--dry-run").code == 7
    ended = mhvae("segment", "s", "-o", "m", "--dry-run", "--existing", "skip", "--json")
    told = [(line["output"], line["status"]) for line in map(json.loads, ended.lines)]
    assert ended.code == 7 and told == [("m/a.png", "stale"), ("m/b.png", "planned")]
    nothing = mhvae("segment", "nope.png", "--dry-run")
    assert nothing.code == 4 and not nothing.lines and "nope.png: no such file" in nothing.stderr


def on_terminal(*args: str) -> tuple[int, str]:
    """Exit code and all output of the command with stdin, stdout and stderr on a terminal."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "mhvae_cli", *args]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
    code = process.wait(timeout=60)
    text = os.read(master, 100_000).decode()
    os.close(slave)
    os.close(master)
    return code, text


def test_terminals_are_refused(here: Path) -> None:
    picture(here / "a.png")
    code, text = on_terminal("segment", "a.png", "-o", "-")
    assert code == 2 and "stdout is a terminal" in text
    code, text = on_terminal("segment", "-")
    assert code == 2 and "stdin" in text and "terminal" in text


def test_a_closed_pipe_ends_help_quietly() -> None:
    command = f"{sys.executable} -m mhvae_cli segment --help | true; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr in ("141\n", "0\n")


class Screen:
    """A terminal's stderr."""

    def __init__(self, *, terminal: bool) -> None:
        self.terminal, self.text = terminal, ""

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


@pytest.mark.parametrize(
    ("terminal", "environment", "mode", "bar"),
    [
        (True, {}, "auto", True),
        (True, {"TERM": "dumb"}, "auto", False),
        (True, {"CI": "1"}, "auto", False),
        (False, {}, "auto", False),
        (False, {}, "on", True),
        (True, {}, "off", False),
    ],
)
def test_the_bar(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], mode: str, bar: bool
) -> None:
    screen = Screen(terminal=terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    for name in ("TERM", "CI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mhvae_cli.runs.console.LINE_INTERVAL", 0.0)
    progress = Progress("segment", 3, mode)
    for _ in range(3):
        progress.step()
    assert ("\r" in screen.text) == bar
    assert ("segment: 1 of 3" in screen.text) == (mode != "off")


@pytest.mark.parametrize("columns", [24, 40, 60, 100])
def test_the_bar_never_wraps(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """On a real terminal of that width; a line that wraps would leave its beginning behind."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    with os.fdopen(slave, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        progress = Progress("reconstruct", 12345, "auto")
        progress.begun -= 3600
        progress.step()
        progress.clear()
        progress.done = 6000
        progress.step()
        text = ""
        while "6001" not in text:
            text += os.read(master, 4096).decode()
    os.close(master)
    drawn = [part for part in text.split("\r\x1b[K") if part]
    assert len(drawn) == 2 and all(len(line) < columns for line in drawn)
    assert ("1:03:" in drawn[1]) == (columns >= 60) and ("[##" in drawn[1]) == (columns >= 60)


def test_stream_keeps_order_and_bounds_what_it_holds() -> None:
    held, most = set[int](), 0

    def load(job: int) -> tuple[np.ndarray, int]:
        nonlocal most
        held.add(job)
        most = max(most, len(held))
        if job % 10 == 7:
            raise InputError(f"{job}")
        return np.full((1, 2, 2), job, np.float32), job * job

    def run(batch: list[np.ndarray]) -> list[Any]:
        assert len(batch) <= 4
        return [InputError("11") if array[0, 0, 0] == 11 else array[0, :1, 0] for array in batch]

    def finish(job: int, kept: int, row: np.ndarray) -> tuple[int, int, float]:
        return job, kept, float(row[0])

    for workers in (0, 3):
        held.clear()
        results = []
        for result in stream(range(100), load=load, run=run, finish=finish, batch_size=4, workers=workers):
            held.discard(len(results))
            results.append(result)
        faults = [index for index, result in enumerate(results) if isinstance(result, InputError)]
        assert faults == sorted([11, *range(7, 100, 10)])
        assert all(r == (i, i * i, float(i)) for i, r in enumerate(results) if i not in faults)
    assert most <= 4 * 4


def test_stream_stops_early_and_passes_bugs_on() -> None:
    loaded: list[int] = []

    def load(job: int) -> tuple[np.ndarray, None]:
        loaded.append(job)
        return np.zeros((1, 1, 1), np.float32), None

    def run(batch: list[np.ndarray]) -> np.ndarray:
        return np.stack(batch)[:, 0, 0]

    def finish(job: int, kept: None, row: np.ndarray) -> int:
        if job == 5:
            raise ZeroDivisionError
        return job

    results = stream(range(1000), load=load, run=run, finish=finish, batch_size=2, workers=2)
    assert next(results) == 0
    results.close()
    assert len(loaded) < 20
    with pytest.raises(ZeroDivisionError):
        list(stream(range(1000), load=load, run=run, finish=finish, batch_size=2, workers=2))
