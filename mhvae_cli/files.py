"""Arrays to the bytes of image files, and bytes to disk: whole or not at all."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

from .errors import OutputError


def encode_png(array: np.ndarray) -> bytes:
    """PNG of a bool (H, W) mask (8-bit, 0 and 255), of uint8 (H, W) or (H, W, 3), or of uint16 (H, W)."""
    return _encoded(array, format="PNG", compress_level=3)


def encode_tiff(array: np.ndarray) -> bytes:
    """Deflated TIFF of the same arrays as `encode_png`."""
    return _encoded(array, format="TIFF", compression="tiff_adobe_deflate")


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: beside its place, then moved there; parents are made.

    Raises OutputError if that fails, or if something other than a file lies there.
    """
    beside = path.parent / f".{os.urandom(8).hex()}.part"
    try:
        if path.exists() and not path.is_file():  # os.replace would put a file in the place of /dev/null
            raise OutputError(f"{path}: is there already and is no file", hint="name another output")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(data)
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        fault = (error.strerror or str(error)).lower()
        raise OutputError(f"{path}: {fault}", hint="is there room, and may you write there?") from error


def _encoded(array: np.ndarray, **options: object) -> bytes:
    if array.dtype == np.uint16:  # not fromarray, which widens to 32 bits
        little = array.astype("<u2")
        picture = Image.frombytes("I;16", little.shape[::-1], little.tobytes())
    else:
        picture = Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array)
    data = io.BytesIO()
    picture.save(data, **options)
    return data.getvalue()
