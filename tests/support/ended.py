"""How a command that makes pictures ended, and the pictures that it made."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZES = {"a": (64, 80), "b": (50, 40), "c": (70, 60)}
QUICK = ("--steps", 3)
INVENT = (*QUICK, "--detail", "invent")


def done(ended: Any) -> list[str]:
    """What it wrote on stdout; it ended well."""
    assert ended.code == 0, ended.stderr
    return list(ended.lines)


def pixels(path: str | Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)
