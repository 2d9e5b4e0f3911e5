"""What README and the gates promise of each other, and the limits that the layout keeps."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mhvae_cli"
MOST_LINES = 320


def test_ci_runs_the_readmes_test_command() -> None:
    readme = (ROOT / "README.md").read_text().partition("\n## Test\n")[2]
    command = re.search(r"```\w*\n(.+?)\n```", readme, re.S)
    assert command and "pytest" in command[1]
    assert f"\n{command[1]}\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("gate", ["ruff check .", "ruff format --check .", "mypy"])
def test_ci_runs_each_gate(gate: str) -> None:
    assert gate in (ROOT / ".ci" / "run").read_text().splitlines()


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@pytest.mark.parametrize(
    "module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_a_module_is_read_in_one_sitting(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MOST_LINES


def test_the_top_of_the_package_is_short() -> None:
    boxes = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    assert len([path for path in boxes if path.stem not in ("__init__", "__main__")]) <= 19
