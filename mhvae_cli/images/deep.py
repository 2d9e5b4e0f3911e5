"""PNG and PPM files whose colours have 16 bits, of which Pillow keeps the high bytes only."""

from io import BytesIO
from zlib import crc32

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from ..errors import InputError

_DEPTH, _HEADER, _CHECKSUM = slice(24, 26), slice(12, 29), slice(29, 33)
_RGBA = 6


def deep_samples(image: Image.Image, name: str) -> np.ndarray | None:
    """The values of an opened image that is not yet loaded, uint16 (h, w, c) with alpha, if any, last; None
    if Pillow keeps all of them."""
    if not isinstance(image, ImageFile) or not image.tile or image.fp is None:
        return None
    codec, _, offset, arguments = image.tile[0]
    top = arguments[1] if image.format == "PPM" and isinstance(arguments, tuple) else 0
    ppm = image.mode == "RGB" and top > 255
    if arguments not in ("RGB;16B", "RGBA;16B", "LA;16B") and not ppm:
        return None
    if ppm and codec != "ppm":
        raise InputError(f"{name}: PPM as text with 16-bit colours is not supported")
    place = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(place)
    if ppm:
        return _ppm(image, data[offset:], top)
    if arguments == "LA;16B":
        return _grey_with_alpha(data)
    return _both_bytes(data, image.info.get("transparency"))


def _both_bytes(data: bytes, transparent: tuple[int, ...] | None) -> np.ndarray:
    """The colours of a PNG decoded twice: as if they were little-endian, their low bytes come out."""
    halves = []
    for order in "BL":
        with Image.open(BytesIO(data), formats=("PNG",)) as twin:
            assert isinstance(twin, ImageFile)
            twin.tile = [tile._replace(args=f"{str(tile.args)[:-1]}{order}") for tile in twin.tile]
            halves.append(np.asarray(twin).astype(np.uint16))
    values: np.ndarray = halves[0] << 8 | halves[1]
    if transparent is None:
        return values
    opaque = (values != np.array(transparent, np.uint16)).any(axis=2, keepdims=True)
    return np.concatenate([values, opaque * np.uint16(65535)], axis=2)


def _grey_with_alpha(data: bytes) -> np.ndarray:
    """A PNG's grey and alpha of 16 bits, which lie in it as the four bytes of an RGBA pixel would."""
    edited = bytearray(data)
    edited[_DEPTH] = bytes([8, _RGBA])
    edited[_CHECKSUM] = crc32(edited[_HEADER]).to_bytes(4, "big")
    with Image.open(BytesIO(edited), formats=("PNG",)) as twin:
        return np.ascontiguousarray(twin).view(">u2").astype(np.uint16)


def _ppm(image: ImageFile, data: bytes, top: int) -> np.ndarray:
    """The colours of a binary PPM, from 0 to its own maximum, which becomes 65535."""
    count = image.width * image.height * 3
    if len(data) < 2 * count:
        raise EOFError
    levels = np.frombuffer(data, ">u2", count).reshape(image.height, image.width, 3)
    filled: np.ndarray = np.rint(np.minimum(levels / top, 1) * 65535).astype(np.uint16)
    return filled
