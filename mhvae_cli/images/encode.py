"""Arrays to the bytes of image files."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

RECORD = "mhvae"
"""The key of the one text that a TIFF's description or a GIF's comment takes; a PNG takes them all."""

_DESCRIPTION, _ORIENTATION, _SOFTWARE = 0x010E, 0x0112, 0x0131


def encode_png(array: np.ndarray, *, text: Mapping[str, str] = {}, orientation: int = 1) -> bytes:
    """PNG of a bool (H, W) mask (8-bit, 0 and 255), of uint8 (H, W) or (H, W, 3), or of uint16 (H, W).

    `text` goes into iTXt chunks in UTF-8, its keys Latin-1 of 1 to 79 characters. `array` lies as a file of
    this EXIF `orientation` stores it; unless 1, that is the one tag of the file's eXIf chunk.
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
    """Deflated TIFF of the same arrays as `encode_png`.

    Of `text`, ASCII, it has tags for "mhvae" (ImageDescription) and "Software" only.
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
    """GIF of uint8 frames of one size, (H, W) or (H, W, 3), shown for `ms_per_frame` each and without end.

    The format counts hundredths of a second, and colours are the best 256 a frame; grey is exact. Equal
    neighbours become one frame that is shown longer. Of `text`, "mhvae" is written, as the comment.
    """
    first, *others = map(Image.fromarray, frames)
    comment = {"comment": text[RECORD]} if RECORD in text else {}
    data = io.BytesIO()
    # optimize=False: else what a frame shares with the one before is made transparent, which costs a colour
    options = {"duration": ms_per_frame, "loop": 0, "optimize": False, **comment}
    first.save(data, format="GIF", save_all=True, append_images=others, **options)
    return data.getvalue()


def encode_jpeg(array: np.ndarray, *, quality: int = 70) -> bytes:
    """JPEG of uint8 (H, W) or (H, W, 3): for small pictures to look at, nothing to measure in."""
    return _encoded(array, format="JPEG", quality=quality)


def _encoded(array: np.ndarray, **options: Any) -> bytes:
    if array.dtype == np.uint16:  # not fromarray, which widens to 32 bits
        little = array.astype("<u2")
        picture = Image.frombytes("I;16", little.shape[::-1], little.tobytes())
    else:
        picture = Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array)
    data = io.BytesIO()
    picture.save(data, **options)
    return data.getvalue()
