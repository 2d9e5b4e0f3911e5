"""The layers: imports point downward only, heavy ones happen late, and each fact has one owner."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import mhvae_cli

PACKAGE = Path(mhvae_cli.__file__).parent

ROWS = [  # each row imports only rows below it; the boxes of one row stand side by side
    "__main__",
    "cli",
    "commands",
    "training runs",
    "inference",
    "evaluation",
    "vae diffusion checkpoints images",
    "limits",
    "config devices hashing polygons",
    "filesystem",
    "errors resources version",
]
RANK = {box: rank for rank, row in enumerate(reversed(ROWS)) for box in row.split()}
OWNERS = {  # what is called (a name, or the end of a dotted one): the modules that may
    "grid_sample": {"vae.boundary", "vae.decoder", "vae.tones", "training.augmentation"},
    "affine_grid": {"vae.tones", "training.augmentation"},
    "Image.open": {"images.read", "images.deep", "images.tiff", "images.dicom_frames"},
    "safe_open": {"checkpoints.tensors"},
    "print": {"runs.console"},
    "hashlib.sha256": {"hashing"},
}
LIBRARIES = {
    "safetensors": {"checkpoints.tensors"},
    "huggingface_hub": {"checkpoints.hub", "checkpoints.hub_errors"},
    "hashlib": {"hashing"},
}
HEAVY = {"torch", "safetensors", "huggingface_hub"}
WITH_TORCH = {  # they import torch at once; all others only when something is computed
    "devices",
    "diffusion",
    "inference.audit",
    "inference.carrying",
    "inference.loading",
    "inference.networks",
    "inference.pipeline",
    "inference.sampling",
    "inference.selftest",
    "inference.synthesis",
    "inference.texturing",
    "training",
    "vae",
}
LIGHT_ANYWAY = {
    "devices",
    "diffusion.density",
    "training.phantoms",
    "training.textures",
    "vae.editing",
    "vae.contour",
}


def name_of(path: Path) -> str:
    """`images.read` of mhvae_cli/images/read.py, `images` of its __init__.py, "" of the package's own."""
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix("__init__").rstrip(".")


PACKAGES = {name_of(path) for path in PACKAGE.rglob("__init__.py")}
MODULES = {name_of(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def imports(module: str, tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """What `module` imports anywhere, as full dotted names, and whether it does so when it is imported."""
    base = ["mhvae_cli", *(module.split(".") if module else [])]
    package = base if module in PACKAGES else base[:-1]
    late = set()
    for node in ast.walk(tree):
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or typing_only:
            late |= {id(inner) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) not in late) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            lead = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*lead, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                known = whole.removeprefix("mhvae_cli.") in MODULES
                yield (whole if known else source), id(node) not in late


def own(module: str) -> set[str]:
    """The package's own modules that `module` imports, at any time."""
    found = {name for name, _ in imports(module, MODULES[module]) if name.split(".")[0] == "mhvae_cli"}
    return {name.removeprefix("mhvae_cli").lstrip(".") for name in found} - {""}


def box_of(module: str) -> str:
    return module.split(".")[0]


def is_light(module: str) -> bool:
    return module in LIGHT_ANYWAY or not {module, box_of(module)} & WITH_TORCH


def test_the_walk_sees_every_kind_of_import() -> None:
    code = """
import numpy
from mhvae_cli.errors import InputError
from ..images.read import read_scan
from . import options
if TYPE_CHECKING:
    import torch
def verb():
    from ..inference import pipeline
"""
    assert dict(imports("commands.segment", ast.parse(code))) == {
        "numpy": True,
        "mhvae_cli.errors": True,
        "mhvae_cli.images.read": True,
        "mhvae_cli.commands.options": True,
        "torch": False,
        "mhvae_cli.inference.pipeline": False,
    }


@pytest.mark.parametrize("module", sorted(MODULES.keys() - {""}))
def test_imports_point_downward(module: str) -> None:
    box = box_of(module)
    assert box in RANK, f"give {box} a place in ROWS"
    wrong = [name for name in own(module) if box_of(name) != box and RANK[box_of(name)] >= RANK[box]]
    assert not wrong, f"{module} imports {wrong}"


def test_no_cycle_even_of_late_imports() -> None:
    try:
        list(TopologicalSorter({module: own(module) - {module} for module in MODULES}).static_order())
    except CycleError as error:
        pytest.fail(f"cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_packages_import_nothing_by_themselves(package: str) -> None:
    early = [name for name, at_once in imports(package, MODULES[package]) if at_once]
    assert not [name for name in early if name != "typing"]


@pytest.mark.parametrize("package", sorted(PACKAGES - {""}))
def test_a_package_lists_its_modules(package: str) -> None:
    text = ast.get_docstring(MODULES[package]) or ""
    listed = {line.split()[0] for line in text.splitlines()[2:] if line and not line.startswith(" ")}
    there = {path.stem for path in PACKAGE.joinpath(*package.split(".")).iterdir()}
    there = {name for name in there if f"{package}.{name}" in MODULES}
    assert there <= listed, f"{package}/__init__.py does not tell of {there - listed}"


@pytest.mark.parametrize("module", sorted(filter(is_light, MODULES)))
def test_torch_is_not_imported_up_front(module: str) -> None:
    early = {name.split(".")[0] for name, at_once in imports(module, MODULES[module]) if at_once}
    assert not early & HEAVY


def test_importing_the_light_modules_loads_no_torch() -> None:
    """As Python does it, so that what is imported through others counts too."""
    names = ", ".join(
        f"mhvae_cli.{m}".rstrip(".") for m in sorted(filter(is_light, MODULES)) if m != "__main__"
    )
    code = f"import sys, {names}\nprint([m for m in {sorted(HEAVY)} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_command_line_alone_loads_no_arrays() -> None:
    """--help and usage errors need neither numpy nor Pillow."""
    heavy = "('torch', 'numpy', 'PIL', 'scipy')"
    code = f"import sys, mhvae_cli.cli\nprint([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("fact", OWNERS)
def test_a_fact_has_one_owner(fact: str) -> None:
    """Calls, by the end of their dotted name; and something is called so, or the rule is idle."""
    users = set()
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and f".{ast.unparse(node.func)}".endswith(f".{fact}"):
                users.add(module)
    assert users and users <= OWNERS[fact]


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_has_one_user(library: str) -> None:
    users = {m for m, tree in MODULES.items() if any(n.split(".")[0] == library for n, _ in imports(m, tree))}
    assert users == LIBRARIES[library]


def test_nothing_is_pickled_and_no_global_generator_is_read() -> None:
    banned = {
        "torch.save",
        "torch.load",
        "np.load",
        "np.random.seed",
        "torch.randn",
        "torch.rand",
        "torch.randint",
    }
    banned |= {
        f"np.random.{name}" for name in ("rand", "randn", "normal", "uniform", "randint", "permutation")
    }
    for module, tree in MODULES.items():
        foreign = {name.split(".")[0] for name, _ in imports(module, tree)}
        assert not foreign & {"pickle", "random", "shelve"}, module
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & banned, module
