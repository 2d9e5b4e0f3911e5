"""Encode arrays as the bytes of image files."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

RECORD = "mhvae"
"""The key of the text in a TIFF's ImageDescription and a GIF's comment; a PNG stores all texts."""

_DESCRIPTION, _ORIENTATION, _SOFTWARE = 0x010E, 0x0112, 0x0131


def encode_png(array: np.ndarray, *, text: Mapping[str, str] = {}, orientation: int = 1) -> bytes:
    """PNG of a bool (H, W) mask (8-bit, 0 and 255), of uint8 (H, W) or (H, W, 3), or of uint16 (H, W).

    `text` goes into iTXt chunks in UTF-8; keys are Latin-1, 1 to 79 characters. `array` is in the stored
    orientation for this EXIF `orientation`, which is the only tag of the eXIf chunk; 1 writes no chunk.
    """
    options: dict[str, Any] = {}
    if text:
        options["pnginfo"] = PngInfo()
        for key, value in text.items():
            options["pnginfo"].add_itxt(key, value)
    if orientation != 1:
        options["exif"] = Image.Exif()
        options["exif"][_ORIENTATION] = orientation
    return _encoded(array, format="PNG", compress_level=3, **options)


def encode_tiff(array: np.ndarray, *, text: Mapping[str, str] = {}, orientation: int = 1) -> bytes:
    """Deflate-compressed TIFF of the same arrays as `encode_png`.

    Only "mhvae" (as ImageDescription) and "Software" of `text` are written, in ASCII.
    """
    tags: dict[int, str | int] = {}
    for tag, key in ((_DESCRIPTION, RECORD), (_SOFTWARE, "Software")):
        if key in text:
            tags[tag] = text[key]
    if orientation != 1:
        tags[_ORIENTATION] = orientation
    options = {"tiffinfo": tags} if tags else {}
    return _encoded(array, format="TIFF", compression="tiff_adobe_deflate", **options)


def encode_gif(frames: Sequence[np.ndarray], *, ms_per_frame: int, text: Mapping[str, str] = {}) -> bytes:
    """GIF of uint8 frames of one size, (H, W) or (H, W, 3), each shown for `ms_per_frame`, in a loop.

    The format counts in hundredths of a second and quantises colours to 256 per frame; grey is exact. Equal
    consecutive frames become one that is shown longer. Only "mhvae" of `text` is written, as the comment.
    """
    first, *others = map(Image.fromarray, frames)
    comment = {"comment": text[RECORD]} if RECORD in text else {}
    data = io.BytesIO()
    # optimize=False: otherwise pixels equal to the previous frame's become transparent, which costs a colour
    options = {"duration": ms_per_frame, "loop": 0, "optimize": False, **comment}
    first.save(data, format="GIF", save_all=True, append_images=others, **options)
    return data.getvalue()


def encode_jpeg(array: np.ndarray, *, quality: int = 70) -> bytes:
    """JPEG of uint8 (H, W) or (H, W, 3): lossy, for thumbnails, not for measurements."""
    return _encoded(array, format="JPEG", quality=quality)


def _encoded(array: np.ndarray, **options: Any) -> bytes:
    if array.dtype == np.uint16:  # fromarray would widen it to 32 bits
        little = array.astype("<u2")
        image = Image.frombytes("I;16", little.shape[::-1], little.tobytes())
    else:
        image = Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array)
    data = io.BytesIO()
    image.save(data, **options)
    return data.getvalue()
