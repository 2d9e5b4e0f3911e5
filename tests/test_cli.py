"""The command's frame: help, completion, usage errors and closed pipes. Nothing here needs torch."""

import inspect
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support.pictures import picture

Mhvae = Callable[..., Any]
ROOT = Path(__file__).parents[1]


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


def test_a_closed_pipe_ends_help_quietly() -> None:
    command = f"{sys.executable} -m mhvae_cli segment --help | true; echo ${{PIPESTATUS[0]}} >&2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr in ("141\n", "0\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("warp a.png --rotate 1e300", "--rotate 1e+300: must be -360 to 360"),
        ("warp a.png --rotate nan", "--rotate nan: must be"),
        ("warp a.png --scale 1e9", "--scale 1000000000.0: must be"),
        ("warp a.png --scale 0", "--scale 0.0: must be"),
        ("warp a.png --shift 1e300,0", "--shift 1e300,0: not sensible numbers"),
        ("warp a.png --shift 1mm,1mm --spacing 0.1,1e300", "--spacing 0.1,1e300: not sensible numbers"),
        ("reconstruct a.png --min-dice nan", "--min-dice"),
        ("reconstruct a.png --draws 1000000000000", "--draws 1000000000000: must be"),
        ("sample -n 1000000000000", "-n 1000000000000: must be"),
        ("sample -n 1 --seed -1", "--seed -1: must be 0 to"),
        ("segment a.png --spacing 1e300", "--spacing 1e300: not a pixel size"),
        ("segment a.png --batch-size 100000000000000000000", "must be 1 to 65536"),
        ("segment a.png --window=-1e308,1e308", "--window -1e308,1e308: not auto"),
        ("segment a.png --posterior 1000000000", "--posterior 1000000000: must be"),
        ("train-vae --data d --out r --lr nan", "--lr nan: must be"),
        ("cross-validate --data d --out r --folds 1000000000000", "--folds 1000000000000: must be"),
        ("interpolate a.png b.png --frames 1000000000", "--frames 1000000000: must be"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(mhvae: Mhvae, here: Path, command: str, said: str) -> None:
    for name in ("a.png", "b.png"):
        Image.new("L", (40, 40), 90).save(name)
    ended = mhvae(*command.split())
    assert ended.code == 2 and ended.stderr.startswith("error: ") and said in ended.stderr, ended.stderr
    assert sorted(path.name for path in here.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("name", ["-dash.png", "-overlay.png", "-r.png"])
def test_a_file_that_looks_like_an_option_gets_a_hint(mhvae: Mhvae, here: Path, name: str) -> None:
    Image.new("L", (40, 40), 90).save(here / name)
    ended = mhvae("segment", name)
    assert ended.code == 2 and f"hint: if {name} is a file: ./{name}, or after --" in ended.stderr
    assert mhvae("segment", "--dry-run", "-o", "m/", "--", name).code == 0
    assert "is a file" not in mhvae("segment", "--wrong", "--", name).stderr
