"""What README and the gates promise of each other, and the limits that the layout keeps."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mhvae_cli"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES = 320


def _name(module: Path) -> str:
    return str(module.relative_to(PACKAGE))


def _has_logic(module: Path) -> bool:
    """Whether it defines a function, or a class with methods."""
    return any(isinstance(node, ast.FunctionDef) for node in ast.walk(ast.parse(module.read_text())))


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


@pytest.mark.parametrize("module", MODULES, ids=_name)
def test_a_module_is_read_in_one_sitting(module: Path) -> None:
    assert len(module.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    "module",
    [path for path in MODULES if path.stem not in ("__init__", "__main__") and _has_logic(path)],
    ids=_name,
)
def test_a_module_with_logic_has_tests_of_its_own(module: Path) -> None:
    """mhvae_cli/images/scan.py has tests/images/test_scan.py; declarations alone need none."""
    tests = ROOT / "tests" / module.relative_to(PACKAGE).with_name(f"test_{module.name}")
    found = ast.parse(tests.read_text()).body if tests.exists() else []
    assert any(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in found)


def test_the_top_of_the_package_is_short() -> None:
    boxes = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    assert len([path for path in boxes if path.stem not in ("__init__", "__main__")]) <= 19
