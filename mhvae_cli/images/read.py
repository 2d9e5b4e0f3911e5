"""Image files to numbers (section 5.1): the only place that opens them.

An image is read as `Scan.pixels`, upright and unscaled; the network sees `transforms.to_square` of it.
"""

import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import InputError, MhvaeError, os_error_text
from .dicom import SUFFIXES as DICOM_SUFFIXES
from .dicom import Dicom, has_preamble
from .scan import MAX_PIXELS, Scan, Spacing, Window, scan_of, stored, upright

MAX_TEXT = 2**20
SUFFIXES = DICOM_SUFFIXES | {
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pbm", ".pgm", ".ppm", ".jp2")
}

# A closed list: Pillow's own would run Ghostscript on an EPS that calls itself x.png.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
for _plugin in ("Png", "Jpeg", "Tiff", "Bmp", "Gif", "WebP", "Ppm", "Jpeg2K"):  # else Pillow imports all 40
    import_module(f"PIL.{_plugin}ImagePlugin")
_ORIENTATION = 0x0112
_PHOTOMETRIC = 0x0106
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_RESOLUTION = (0x011A, 0x011B)
_RESOLUTION_UNIT = 0x0128
_TEXT_TAGS = {"ImageDescription": 0x010E, "Software": 0x0131}
_TOO_MUCH_TEXT = "a text in it is larger than a megabyte"

# A file's fault is said once, in one line, as an InputError: Pillow's own remarks only litter the terminal.
warnings.filterwarnings("ignore", module=r"PIL\.")


def count_pages(source: Path | bytes, *, name: str | None = None) -> int:
    """How many pictures a file (or its bytes) holds, by its headers: a TIFF's pages, a DICOM's frames.

    Else 1: of an animation only the first frame counts. Raises InputError as `read_scan` does.
    """
    with _opened(source, _called(source, name)) as image:
        if isinstance(image, Dicom):
            return image.frames
        return getattr(image, "n_frames", 1) if image.format == "TIFF" else 1


def read_scan(
    source: Path | bytes, *, page: int = 0, name: str | None = None, window: Window = "auto"
) -> Scan:
    """Read one page of an image file, or of the bytes of one.

    1-bit becomes 0 and 255; 8- and 16-bit grey keep their numbers; palettes, CMYK and the like become RGB;
    transparent pixels are composited on black. Wider numbers (32-bit integers, floats) stay as they are if
    they are whole and fit in 16 bits; else they are stretched from their own finite minimum and maximum, or
    from LO and HI, to 0..65535; NaN is taken for the minimum. For DICOM see `dicom`.

    `window` says which numbers of the file are black and white; 8 bits, and colours in DICOM, need none but
    grey DICOM. "auto" is DICOM's own window, else percentiles (`Scan.window`); "full" is 0 and 65535, in
    DICOM the range of the bits stored, and of wider numbers and floats the minimum and maximum of the file;
    or the two numbers themselves. Raises InputError, in one line, for what is missing, empty, no image,
    damaged, cut off, or of more than MAX_PIXELS pixels (told by the header: it is not decoded).
    """
    name = _called(source, name)
    with _opened(source, name) as image:
        if isinstance(image, Dicom):
            return image.scan(page, window)
        orientation, turned = _decode(image, page, name)
        numbers = _numbers(image)
    scan = scan_of(numbers, name=name, window=window)
    pixels = scan.pixels if turned else upright(scan.pixels, orientation)
    return replace(scan, pixels=pixels, orientation=orientation, page=page)


def read_mask(source: Path | bytes, *, name: str | None = None) -> np.ndarray:
    """Read a mask as bool (H, W), in the STORED orientation: True is any non-zero number or palette index.

    In JPEGs, whose zeros are not quite zero, it is a channel of 128 or more. Transparent pixels are False.
    Raises InputError as `read_scan` does.
    """
    name = _called(source, name)
    with _opened(source, name) as image:
        if isinstance(image, Dicom):
            inside = image.stored() != 0
            flat: np.ndarray = inside if inside.ndim == 2 else inside.any(axis=2)
            return flat
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
        if isinstance(image, Dicom):
            return {}
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


def read_resolution(source: Path | bytes, *, page: int = 0, name: str | None = None) -> Spacing | None:
    """The width and height in mm of a TIFF page's STORED pixels, as its resolution tags have them.

    Programs write such tags, 72 or 96 dots an inch, without any knowledge too. None where they are missing,
    zero or without a unit, and for other types. Raises InputError as `read_scan` does.
    """
    name = _called(source, name)
    with _readable(source, name) as stream:
        if stream.read(4) not in _TIFF:
            return None
    with _opened(source, name) as image:
        if isinstance(image, Dicom):  # one that is a TIFF too
            return None
        image.seek(page)
        tags = getattr(image, "tag_v2", {})
        unit = {2: 25.4, 3: 10.0}.get(tags.get(_RESOLUTION_UNIT, 2))
        x, y = (float(tags.get(tag, 0)) for tag in _RESOLUTION)
    if unit is None or not (0 < x < np.inf and 0 < y < np.inf):
        return None
    return Spacing(unit / x, unit / y)


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
def _opened(source: Path | bytes, name: str) -> Iterator[Image.Image | Dicom]:
    """Open a picture's header; any fault of the file, while the body decodes too, becomes an InputError."""
    kind = "image"
    try:
        with _readable(source, name) as stream:
            if _is_dicom(stream, source):
                kind = "DICOM"
                yield Dicom(stream, name)
                return
            with Image.open(stream, formats=_FORMATS) as image:
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


def _is_dicom(stream: BinaryIO, source: Path | bytes) -> bool:
    """By its content; by its name only what is no other picture: old files have no preamble."""
    if has_preamble(stream) or isinstance(source, bytes) or source.suffix.lower() not in DICOM_SUFFIXES:
        return has_preamble(stream)
    try:
        Image.open(stream, formats=_FORMATS)
    except UnidentifiedImageError:
        return True
    finally:
        stream.seek(0)
    return False


def _fault(error: Exception, kind: str) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os_error_text(error)
    if kind == "DICOM":  # pydicom's words may quote a patient's data
        return "truncated DICOM" if isinstance(error, EOFError) else "damaged DICOM"
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
