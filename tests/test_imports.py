"""The layers: imports point downward only, heavy ones happen late, and each fact has one owner."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mhvae_cli

PACKAGE = Path(mhvae_cli.__file__).parent


def name_of(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    return name.removesuffix("__init__").rstrip(".")


LAYERS = [
    "errors",
    "version hashing filesystem",
    "config training.textures devices evaluation.metrics evaluation.biometry training.distributed machine markup inference.qc",
    "inference.posterior checkpoints.model_card checkpoints.checksums checkpoints.hub_errors",
    "training.augmentation checkpoints.hub checkpoints.tensors checkpoints.archive images.encode",
    "images.scan",
    "images.transforms images.dicom_values",
    "images.dicom",
    "images.read",
    "training.phantoms images.render images.spacing thumbs",
    "vae.latents vae.warp vae.contour diffusion.sde diffusion.noise",
    "vae.fitting vae.tta vae.density vae.raster vae.encoder vae.decoder vae.losses",
    "diffusion.unet diffusion.solvers vae.editing",
    "vae.model vae.pretrained diffusion.score",
    "checkpoints.folder training.datasets vae.handles review",
    "checkpoints.registry checkpoints.describe",
    "training.state inference.provenance run_record diffusion.refiner",
    "inference.loading",
    "inference.latent_files inference.networks",
    "inference.synthesis training.calibration",
    "inference.pipeline training.loop",
    "evaluation.scoring training.vae_task training.cddpm_task inference.selftest",
    "training.train",
    "commands.examples commands.inputs commands.options commands.asked commands.table",
    "commands.account",
    "commands.outputs",
    "commands.batching commands.judging commands.placing commands.progress",
    "commands.training",
    "commands.making commands.report commands.shared",
    "commands.generation",
    "commands.handles",
    "commands.interpolate commands.sample commands.swap_style commands.warp",
    "commands.doctor commands.evaluate commands.inspect commands.reconstruct commands.segment"
    " commands.train_cddpm commands.train_vae",
    "commands.cross_validate commands.models",
    "cli",
    "__main__",
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
PACKAGES = {name_of(path) for path in PACKAGE.rglob("__init__.py")}
"""Their `__init__` imports nothing, or only when asked."""
OWNERS = {  # what is written (a name, or the end of a dotted one): the modules that may
    "grid_sample": {"vae.decoder", "training.augmentation"},
    "affine_grid": {"training.augmentation"},
    "Image.open": {"images.read", "images.dicom"},
    "safe_open": {"checkpoints.tensors"},
    "print": {"commands", "cli"},
}
LIGHT = [
    "",
    "cli",
    "errors",
    "config",
    "images.encode",
    "filesystem",
    "hashing",
    "version",
    "images.scan",
    "images.transforms",
    "images.dicom",
    "images.dicom_values",
    "images.read",
    "evaluation.biometry",
    "evaluation.metrics",
    "training.phantoms",
    "images.render",
    "images.spacing",
    "checkpoints.folder",
    "checkpoints.registry",
    "checkpoints.describe",
    "inference.provenance",
    "vae.editing",
    "inference.latent_files",
    "devices",
    "machine",
    "checkpoints.hub",
    "checkpoints.hub_errors",
    "checkpoints.checksums",
    "checkpoints.tensors",
    "checkpoints.archive",
    "checkpoints.model_card",
    "markup",
    "thumbs",
    "inference.qc",
    "review",
]


MODULES = {name_of(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """What `module` imports anywhere, as full dotted names, and whether it does so when it is imported."""
    tree = MODULES[module]
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


def own(module: str) -> list[str]:
    """The package's own modules that `module` imports, at any time."""
    found = {name for name, _ in imports(module) if name.split(".")[0] == "mhvae_cli"}
    return sorted(name.removeprefix("mhvae_cli").lstrip(".") for name in found)


def test_the_walk_sees_every_kind_of_import() -> None:
    assert "images.encode" in own("training.phantoms")
    assert {"errors", "vae.contour", "checkpoints.folder"} <= set(own("inference.networks"))  # relative
    assert "config" in own("vae.warp")  # from the package above
    assert "inference.pipeline" in own("commands.segment")  # in a function
    assert "commands.options" in own("commands.segment")  # a module by name
    assert ("mhvae_cli.inference.pipeline", False) in set(imports("commands.segment"))
    assert ("torch", True) in set(imports("inference.pipeline")) and ("torch", False) in set(
        imports("checkpoints.folder")
    )


@pytest.mark.parametrize("module", sorted(MODULES.keys() - PACKAGES))
def test_imports_point_downward(module: str) -> None:
    assert module in RANK, f"give {module} a place in LAYERS"
    upward = [name for name in own(module) if name and RANK.get(name, len(LAYERS)) >= RANK[module]]
    assert not upward, f"{module} imports {upward}"


def test_packages_import_nothing_of_their_own_by_themselves() -> None:
    for package in PACKAGES & MODULES.keys():
        assert not [name for name, early in imports(package) if early and name.startswith("mhvae_cli")], (
            package
        )


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m in LIGHT or m.startswith("commands")))
def test_torch_is_not_imported_up_front(module: str) -> None:
    heavy = {"torch", "safetensors", "huggingface_hub"}
    assert not [name for name, early in imports(module) if early and name.split(".")[0] in heavy]


def test_importing_the_light_modules_loads_no_torch() -> None:
    """As Python does it, so that what is imported through others counts too."""
    light = [m for m in MODULES if m in LIGHT or m.startswith("commands")]
    names = ", ".join(f"mhvae_cli.{m}".rstrip(".") for m in sorted(light))
    heavy = "('torch', 'safetensors', 'huggingface_hub')"
    code = f"import sys, {names}\nprint([m for m in {heavy} if m in sys.modules])"
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
    strangers = [u for u in users if u not in OWNERS[fact] and u.split(".")[0] not in OWNERS[fact]]
    assert users and not strangers


def test_a_library_has_one_user() -> None:
    for library, owners in (
        ("safetensors", {"checkpoints.tensors"}),
        ("huggingface_hub", {"checkpoints.hub", "checkpoints.hub_errors"}),
    ):
        users = {m for m in MODULES if any(name.split(".")[0] == library for name, _ in imports(m))}
        assert users == owners


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
        assert not {name.split(".")[0] for name, _ in imports(module)} & {"pickle", "random", "shelve"}, (
            module
        )
        calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        assert not calls & banned, module
