"""Image files to numbers, and numbers to the model's range (section 5.1): the only place that does either.

A picture is read as `Scan.pixels`, upright and unscaled; the network sees `to_square` of it.
"""

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import InputError, MhvaeError
from .files import encode_gif as encode_gif
from .files import encode_png as encode_png
from .files import encode_tiff as encode_tiff
from .files import write_atomic as write_atomic

MAX_PIXELS = 100_000_000
MAX_TEXT = 2**20
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pbm", ".pgm", ".ppm", ".jp2")
)

# A closed list: Pillow's own would run Ghostscript on an EPS that calls itself x.png.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
for _plugin in ("Png", "Jpeg", "Tiff", "Bmp", "Gif", "WebP", "Ppm", "Jpeg2K"):  # else Pillow imports all 40
    import_module(f"PIL.{_plugin}ImagePlugin")
_ORIENTATION = 0x0112
_PHOTOMETRIC = 0x0106
_TEXT_TAGS = {"ImageDescription": 0x010E, "Software": 0x0131}
_TOO_MUCH_TEXT = "a text in it is larger than a megabyte"
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# A file's fault is said once, in one line, as an InputError: Pillow's own remarks only litter the terminal.
warnings.filterwarnings("ignore", module=r"PIL\.")


@dataclass(frozen=True)
class Scan:
    """One picture: `pixels` (H, W) or (H, W, 3), uint8 or uint16, upright (the EXIF turn is applied).

    `orientation` is the file's EXIF orientation, 1-8: `stored(pixels, orientation)` lies as the file does.
    `page` counts from 0. `name` is what messages call the picture.
    """

    pixels: np.ndarray
    orientation: int = 1
    page: int = 0
    name: str = "array"

    @property
    def bits(self) -> int:
        """Bits a channel, 8 or 16."""
        return 8 * self.pixels.dtype.itemsize


def count_pages(source: Path | bytes, *, name: str | None = None) -> int:
    """How many pictures a file (or its bytes) holds, from its headers alone: the pages of a TIFF, else 1.

    Of an animation only the first frame counts. Raises InputError as `read_scan` does.
    """
    with _opened(source, _called(source, name)) as image:
        return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1


def read_scan(source: Path | bytes, *, page: int = 0, name: str | None = None) -> Scan:
    """Read one page of an image file, or of the bytes of one.

    1-bit becomes 0 and 255; 8- and 16-bit grey keep their numbers; palettes, CMYK and the like become RGB;
    transparent pixels are composited on black. Wider numbers (32-bit integers, floats) stay as they are if
    they are whole and fit in 16 bits; else they are stretched from their own finite minimum and maximum to
    0..65535; NaN is taken for the minimum. Raises InputError, in one line, for what is missing, empty, no
    image, damaged, cut off, or of more than MAX_PIXELS pixels (told by the header: it is not decoded).
    """
    name = _called(source, name)
    with _opened(source, name) as image:
        orientation, turned = _decode(image, page, name)
        numbers = _numbers(image)
    pixels = scan_of(numbers, name=name).pixels
    return Scan(pixels if turned else upright(pixels, orientation), orientation, page, name)


def read_mask(source: Path | bytes, *, name: str | None = None) -> np.ndarray:
    """Read a mask as bool (H, W), in the STORED orientation: True is any non-zero number or palette index.

    In JPEGs, whose zeros are not quite zero, it is a channel of 128 or more. Transparent pixels are False.
    Raises InputError as `read_scan` does.
    """
    name = _called(source, name)
    with _opened(source, name) as image:
        orientation, turned = _decode(image, 0, name)
        values = np.asarray(image) if image.mode == "P" else _numbers(image)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., :-1] * (values[..., -1:] > 0)
    inside = values > 127 if image.format in ("JPEG", "MPO") else np.nan_to_num(values) != 0
    if inside.ndim == 3:
        inside = inside.any(axis=2)
    return stored(inside, orientation) if turned else np.ascontiguousarray(inside)


def read_text(source: Path | bytes, *, name: str | None = None) -> dict[str, str]:
    """The texts in a file: a PNG's by their keys, a TIFF's ImageDescription and Software, a GIF's Comment.

    Other types have none. Raises InputError as `read_scan` does, and for a text of more than MAX_TEXT
    characters.
    """
    name = _called(source, name)
    with _opened(source, name) as image:
        image.load()  # a PNG may have texts behind its pixels
        texts = {key: str(value) for key, value in getattr(image, "text", {}).items()}
        if image.format == "TIFF":
            tags = getattr(image, "tag_v2", {})
            texts = {key: str(tags[tag]) for key, tag in _TEXT_TAGS.items() if tag in tags}
        if image.format == "GIF" and "comment" in image.info:
            texts = {"Comment": image.info["comment"].decode(errors="replace")}
    if any(len(text) > MAX_TEXT for text in texts.values()):
        raise InputError(f"{name}: {_TOO_MUCH_TEXT}")
    return texts


def scan_of(array: np.ndarray, *, name: str = "array") -> Scan:
    """A Scan of an upright array, bool or real: (H, W) or (H, W, C), C = 1, 3, or with alpha last 2, 4.

    Numbers and alpha are treated as in `read_scan`. Raises InputError for any other shape or dtype.
    """
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2, 3, 4))
    if not shaped or array.size == 0 or array.dtype.kind not in "buif":
        raise InputError(f"{name}: an array of {array.dtype} {array.shape} is not an image")
    pixels = _to_integers(array)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        colour, alpha = pixels[..., :-1], pixels[..., -1:]
        top = np.iinfo(pixels.dtype).max
        opaque = alpha.min() == top
        pixels = colour if opaque else np.rint(colour * (alpha / np.float64(top))).astype(pixels.dtype)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return Scan(np.ascontiguousarray(pixels), name=name)


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an array (H, W, ...) that lies as a file of this EXIF orientation stores it the right way up."""
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def stored(array: np.ndarray, orientation: int) -> np.ndarray:
    """Lay an upright array (H, W, ...) back as a file of this EXIF orientation stores it."""
    return upright(array, {6: 8, 8: 6}.get(orientation, orientation))


def stored_points(points: np.ndarray, size: tuple[int, int], orientation: int) -> np.ndarray:
    """Points (n, 2) xy in pixels of an upright image of `size` (h, w), in the frame its file stores: as
    `stored` does with pixels."""
    (height, width), turn = size, {6: 8, 8: 6}.get(orientation, orientation)
    moved = points.copy()
    if turn >= 5:
        moved, height, width = points[:, ::-1].copy(), width, height
    if turn in (2, 3, 6, 7):
        moved[:, 0] = width - moved[:, 0]
    if turn in (3, 4, 7, 8):
        moved[:, 1] = height - moved[:, 1]
    return moved


def to_square(pixels: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Squash upright pixels (H, W) or (H, W, 3) to the model's float32 (channels, size, size) in [-1, 1].

    Antialiased where it shrinks. 8-bit numbers map 0..255 to -1..1, bool as 0 and 255; 16-bit ones map
    their own 0.1 to 99.9 percentiles, as few files fill 16 bits. `channels` is 1 (luma) or 3.
    """
    if pixels.dtype == np.uint16:
        planes = np.moveaxis(np.atleast_3d(_stretched(pixels)), 2, 0)
        square = np.stack([_resized(plane, size) for plane in planes]) * np.float32(2) - np.float32(1)
    else:
        levels = _resized(pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels, size)
        square = np.moveaxis(np.atleast_3d(levels), 2, 0).astype(np.float32, order="C")
        square *= np.float32(2 / 255)
        square -= np.float32(1)
    if channels == 1 and len(square) == 3:
        square = np.tensordot(_LUMA, square, 1)[None]
    return np.ascontiguousarray(np.broadcast_to(square, (channels, size, size)))


def from_square(square: np.ndarray) -> np.ndarray:
    """The range back: float (C, H, W) in [-1, 1], C = 1 or 3, to uint8 (H, W) or (H, W, 3), clipped."""
    levels = np.rint((np.clip(square, -1, 1) + 1) * 127.5).astype(np.uint8)
    return levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, 2))


def to_native(square: np.ndarray, like: Scan | tuple[int, int]) -> np.ndarray:
    """The way back from `to_square`: a made picture, float (C, S, S) in [-1, 1], as upright pixels.

    (h, w) if C is 1, (h, w, 3) if C is 3: at the size and bit depth of the Scan `like`, 16 bits through the
    window of its percentiles, or uint8 at a size (h, w). Bicubic, and clipped to the range.
    """
    height, width = like.pixels.shape[:2] if isinstance(like, Scan) else like
    planes = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in square]
    bicubic = Image.Resampling.BICUBIC
    fitted = np.stack([np.asarray(plane.resize((width, height), bicubic)) for plane in planes])
    if not isinstance(like, Scan) or like.bits == 8:
        return from_square(fitted)
    low, high = _window(like.pixels)
    levels = np.rint((np.clip(fitted, -1, 1) + 1) / 2 * (high - low) + low).astype(np.uint16)
    return levels[0] if len(levels) == 1 else np.ascontiguousarray(np.moveaxis(levels, 0, 2))


def composite(made: np.ndarray, kept: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """`made` pixels where `inside` (h, w) is 1, `kept` ones, to the bit, where it is 0, and a blend between.

    Both (h, w) or (h, w, 3), of one dtype, uint8 or uint16; the result is shaped as `kept`: grey is repeated
    into colour, and of colour the luma goes into grey.
    """
    made, cover = made.astype(np.float32), inside.astype(np.float32)
    if kept.ndim == 3:
        made, cover = np.atleast_3d(made), cover[..., None]
    elif made.ndim == 3:
        made = made @ _LUMA
    below = kept.astype(np.float32)
    return np.rint(below + cover * (made - below)).astype(kept.dtype)


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Pixels for a screen: uint8 as it is; uint16 from its own 0.1 to 99.9 percentiles to 0..255."""
    return pixels if pixels.dtype == np.uint8 else np.rint(_stretched(pixels) * 255).astype(np.uint8)


def _called(source: Path | bytes, name: str | None) -> str:
    return name or ("stdin" if isinstance(source, bytes) else str(source))


def _readable(source: Path | bytes, name: str) -> BinaryIO:
    """The bytes as a stream, or the plain faults that need no Pillow to see.

    Never the path itself: Pillow would memory-map a raw TIFF, and get the shape of one that is turned wrong.
    """
    if isinstance(source, bytes):
        size = len(source)
    else:
        facts = source.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise InputError(f"{name}: is a directory, not an image")
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{name}: not a regular file", hint="pipe it in, and give - as the input")
        size = facts.st_size
    if size == 0:
        raise InputError(f"{name}: empty file")
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[Image.Image]:
    """Open a picture's header; any fault of the file, while the body decodes too, becomes an InputError."""
    kind = "image"
    try:
        with _readable(source, name) as stream, Image.open(stream, formats=_FORMATS) as image:
            kind = image.format or kind
            _check_size(image)
            yield image
    except MhvaeError:
        raise
    except UnidentifiedImageError as error:
        known = f"known: {', '.join(_FORMATS)}"
        raise InputError(f"{name}: not an image of a known type", hint=known) from error
    except Image.DecompressionBombError as error:
        limit = f"more than {MAX_PIXELS // 1_000_000} million pixels"
        raise InputError(f"{name}: {limit}", hint="crop it or scale it down first") from error
    except MemoryError as error:
        raise InputError(f"{name}: not enough memory to read it") from error
    except Exception as error:  # damaged bytes make Pillow's parsers raise nearly anything
        raise InputError(f"{name}: {_fault(error, kind)}") from error


def _fault(error: Exception, kind: str) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return (error.strerror or str(error)).lower()
    said = " ".join(str(error).split()) or type(error).__name__
    if "MAX_TEXT" in said:  # Pillow's own limits, which it names so
        return _TOO_MUCH_TEXT
    cut = isinstance(error, EOFError) or "truncated" in said.lower()
    return f"truncated {kind}" if cut else f"damaged {kind} ({said})"


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _decode(image: Image.Image, page: int, name: str) -> tuple[int, bool]:
    """Decode a page; its EXIF orientation, and whether Pillow has turned it upright (it does TIFFs)."""
    if page:
        try:
            if image.format != "TIFF":
                raise EOFError
            image.seek(page)
        except EOFError:
            raise InputError(f"{name}: has no page {page + 1}") from None
        _check_size(image)
    orientation = _orientation(image)
    image.load()
    return orientation, _orientation(image) != orientation


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _numbers(image: Image.Image) -> np.ndarray:
    """The numbers of a decoded picture, never clipped: (H, W) or (H, W, C), alpha last where there is one."""
    if image.mode in ("1", "I", "F") or image.mode.startswith("I;16"):
        array = np.asarray(image)
        white_is_zero = getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0
        # Pillow minds WhiteIsZero at 8 bits only.
        return np.uint16(65535) - array if white_is_zero and array.dtype.kind == "u" else array
    mode = "L" if image.mode in ("L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _to_integers(array: np.ndarray) -> np.ndarray:
    """Any real numbers as uint8 or uint16, by the rule that `read_scan` documents."""
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    finite = array[np.isfinite(array)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    numbers = np.nan_to_num(array.astype(np.float64), nan=low, posinf=high, neginf=low)
    if low < 0 or high > 65535 or (finite != np.rint(finite)).any():
        numbers = np.rint((numbers - low) / max(high - low, np.finfo(np.float64).tiny) * 65535)
    return numbers.astype(np.uint16)


def _stretched(pixels: np.ndarray) -> np.ndarray:
    """16-bit pixels as float32 in [0, 1] between their 0.1 and 99.9 percentiles; a constant picture is 0."""
    low, high = _window(pixels)
    return np.clip((pixels.astype(np.float32) - low) / max(high - low, np.float32(1)), 0, 1)


def _window(pixels: np.ndarray) -> tuple[np.float32, np.float32]:
    """The 0.1 and 99.9 percentiles; the minimum and maximum where these are one."""
    rows, columns = (max(1, n // 512) for n in pixels.shape[:2])  # a sample of some 512 x 512 tells them
    low, high = np.percentile(pixels[::rows, ::columns], (0.1, 99.9)).astype(np.float32)
    return (low, high) if low < high else (np.float32(pixels.min()), np.float32(pixels.max()))


def _resized(levels: np.ndarray, size: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(levels))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=3.0))
