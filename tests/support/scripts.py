"""The scripts in examples/benchmarks/, imported as they import each other."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

BENCHMARKS = Path(__file__).resolve().parents[2] / "examples" / "benchmarks"


@contextmanager
def benchmark(name: str) -> Iterator[ModuleType]:
    """The script NAME.py as a module; its neighbours can be imported until the end of the block."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))
