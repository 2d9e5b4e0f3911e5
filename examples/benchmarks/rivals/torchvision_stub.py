"""For packages that import torchvision but need nothing of it here.

segmentation_models_pytorch and timm name torchvision when they are imported. Where there is none, empty
stand-ins take the place of its names; no network that these benchmarks build uses one.
"""

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from torch import nn


def stub_torchvision() -> None:
    """Make `import torchvision` succeed, if it is not installed."""
    if importlib.util.find_spec("torchvision") is None:
        sys.meta_path.append(_NoTorchvision())


class _Name(type):
    def __getattr__(cls, name: str) -> str:
        return name


class _Module(ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name, (nn.Module,), {})


class _NoTorchvision(MetaPathFinder, Loader):
    """Imports any torchvision module as one whose every attribute is an empty class."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] == "torchvision" else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing in it."""
