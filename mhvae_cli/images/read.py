"""Read image files (section 5.1): the only module that opens them.

An image is read as `Scan.pixels`, upright and unscaled; the network's input is `transforms.to_square` of it.
"""

import io
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
from ..filesystem import check_regular
from .deep import deep_samples
from .dicom import SUFFIXES as DICOM_SUFFIXES
from .dicom import Dicom, has_preamble
from .scan import MAX_PIXELS, Scan, Spacing, Window, orientation_of, scan_of, stored, upright
from .tiff import Tiff, check_size, is_tiff, libtiff_errors

MAX_TEXT = 2**20
SUFFIXES = DICOM_SUFFIXES | {
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".avif", ".pbm", ".pgm", ".ppm"),
    ".jp2",
}

# An explicit list: by default Pillow would run Ghostscript on an EPS file that is named x.png.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "AVIF", "PPM", "JPEG2000")
_PLUGINS = ("Png", "Jpeg", "Tiff", "Bmp", "Gif", "WebP", "Avif", "Ppm", "Jpeg2K")
for _plugin in _PLUGINS:  # or Pillow imports all 40
    import_module(f"PIL.{_plugin}ImagePlugin")
_ORIENTATION = 0x0112
_RESOLUTION = (0x011A, 0x011B)
_RESOLUTION_UNIT = 0x0128
_TEXT_TAGS = {"ImageDescription": 0x010E, "Software": 0x0131}
_TOO_MUCH_TEXT = "contains a text larger than a megabyte"

# An error in a file is reported once, in one line, as an InputError: Pillow's warnings would only add noise.
warnings.filterwarnings("ignore", module=r"PIL\.")


def count_pages(source: Path | bytes, *, name: str | None = None) -> int:
    """The number of images in a file (or its bytes), by its headers: a TIFF's pages, a DICOM file's frames.

    Otherwise 1: only the first frame of an animation counts. Raises InputError as `read_scan` does.
    """
    with _opened(source, _display_name(source, name)) as image:
        return image.frames if isinstance(image, Dicom | Tiff) else 1


def read_scan(
    source: Path | bytes, *, page: int = 0, name: str | None = None, window: Window = "auto"
) -> Scan:
    """Read one page of an image file, or of its bytes.

    1-bit values become 0 and 255; 8- and 16-bit grey values are kept; palettes, CMYK and the like become RGB;
    transparent pixels are composited on black. Wider types (32-bit integers, floats) are kept if all values
    are whole and fit in 16 bits; otherwise they are rescaled from their finite minimum and maximum, far
    outliers aside, or from LO and HI, to 0..65535; NaN becomes the minimum. For DICOM see `dicom`.

    `window` says which values of the file are black and white; 8-bit images ignore it, except greyscale
    DICOM. "auto" is DICOM's own window, else percentiles (`Scan.window`); "full" is 0 and 65535, for DICOM
    the range of the stored bits, for wider types and floats the file's minimum and maximum; or the two values
    LO and HI. Raises InputError, in one line, if the file is missing, empty, not an image, damaged,
    truncated, or has more than MAX_PIXELS pixels by its header (it is not decoded then).
    """
    name = _display_name(source, name)
    with _opened(source, name) as image:
        if isinstance(image, Dicom):
            return image.scan(page, window)
        numbers, orientation, is_upright = _decode(image, page, name)
    scan = scan_of(numbers, name=name, window=window)
    pixels = scan.pixels if is_upright else upright(scan.pixels, orientation)
    return replace(scan, pixels=pixels, orientation=orientation, page=page)


def scan_of_image(image: Image.Image) -> Scan:
    """A Pillow image as if read from its file, its EXIF orientation applied. InputError if it is damaged."""
    name = str(getattr(image, "filename", "")) or "image"
    try:
        orientation, size = _orientation(image), image.size
        image.load()
        if image.size != size:  # Pillow maps an uncompressed TIFF into memory, and a rotated one wrongly
            raise InputError(f"{name}: Pillow cannot decode this rotated TIFF", hint="give its path")
        scan = scan_of(_numbers(image), name=name)
        is_upright = _orientation(image) != orientation
    except MhvaeError:
        raise
    except Exception as error:
        raise InputError(f"{name}: {_describe(error, image.format or 'image')}") from error
    pixels = scan.pixels if is_upright else upright(scan.pixels, orientation)
    return replace(scan, pixels=pixels, orientation=orientation)


def read_mask(source: Path | bytes, *, name: str | None = None) -> np.ndarray:
    """Read a mask as bool (H, W), in the STORED orientation: True is any non-zero value or palette index.

    In JPEGs, whose zeros are not exact, it is a channel of 128 or more. Transparent pixels are False. Raises
    InputError as `read_scan` does.
    """
    name = _display_name(source, name)
    with _opened(source, name) as image:
        if isinstance(image, Dicom):
            inside = image.stored() != 0
            flat: np.ndarray = inside if inside.ndim == 2 else inside.any(axis=2)
            return flat
        values, orientation, is_upright = _decode(image, 0, name, indices=True)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., :-1] * (values[..., -1:] > 0)
    inside = values > 127 if image.format in ("JPEG", "MPO") else np.nan_to_num(values) != 0
    if inside.ndim == 3:
        inside = inside.any(axis=2)
    return stored(inside, orientation) if is_upright else np.ascontiguousarray(inside)


def read_text(source: Path | bytes, *, name: str | None = None) -> dict[str, str]:
    """The texts in a file: a PNG's by key, a TIFF's ImageDescription and Software, a GIF's Comment.

    Other types have none. Raises InputError as `read_scan` does, and for a text of more than MAX_TEXT
    characters.
    """
    name = _display_name(source, name)
    with _opened(source, name) as image:
        if isinstance(image, Dicom):
            return {}
        texts = {}
        if isinstance(image, Tiff):
            tags = image.tags(0)
            texts = {key: str(tags[tag]) for key, tag in _TEXT_TAGS.items() if tag in tags}
        else:
            image.load()  # a PNG may have texts after its pixels
            texts = {key: str(value) for key, value in getattr(image, "text", {}).items()}
        if not isinstance(image, Tiff) and image.format == "GIF" and "comment" in image.info:
            texts = {"Comment": image.info["comment"].decode(errors="replace")}
    if any(len(text) > MAX_TEXT for text in texts.values()):
        raise InputError(f"{name}: {_TOO_MUCH_TEXT}")
    return texts


def read_resolution(source: Path | bytes, *, page: int = 0, name: str | None = None) -> Spacing | None:
    """The width and height in mm of a TIFF page's STORED pixels, from its resolution tags.

    Many programs write 72 or 96 dots per inch without knowing the true resolution. None if the tags are
    missing, zero or without a unit, and for other types. Raises InputError as `read_scan` does.
    """
    name = _display_name(source, name)
    with _readable(source, name) as stream:
        if not is_tiff(stream):
            return None
    with _opened(source, name) as image:
        if not isinstance(image, Tiff):  # a DICOM file whose preamble is that of a TIFF
            return None
        tags = image.tags(page)
        unit = {2: 25.4, 3: 10.0}.get(tags.get(_RESOLUTION_UNIT, 2))
        x, y = (float(tags.get(tag, 0)) for tag in _RESOLUTION)
    if unit is None or not (0 < x < np.inf and 0 < y < np.inf):
        return None
    return Spacing(unit / x, unit / y)


def _display_name(source: Path | bytes, name: str | None) -> str:
    return name or ("stdin" if isinstance(source, bytes) else str(source))


def _readable(source: Path | bytes, name: str) -> BinaryIO:
    """The file as a stream; InputError if it is not a regular file, or empty.

    Never the path itself: Pillow would memory-map an uncompressed TIFF, and get the shape of a rotated one
    wrong.
    """
    size = len(source) if isinstance(source, bytes) else check_regular(source).st_size
    if size == 0:
        raise InputError(f"{name}: empty file")
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


@contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[Image.Image | Dicom | Tiff]:
    """Open an image and read its header; any error, also in the body of the `with`, becomes an InputError."""
    kind = "image"
    try:
        with _readable(source, name) as stream:
            if _is_dicom(stream, source):
                kind = "DICOM"
                yield Dicom(stream, name)
                return
            if is_tiff(stream):
                kind = "TIFF"
                yield Tiff(stream, name)
                return
            with Image.open(stream, formats=_FORMATS) as image:
                kind = image.format or kind
                check_size(*image.size)
                yield image
    except MhvaeError:
        raise
    except UnidentifiedImageError as error:
        known = f"supported: {', '.join(_FORMATS)}, DICOM"
        raise InputError(f"{name}: not an image of a supported type", hint=known) from error
    except Image.DecompressionBombError as error:
        limit = f"more than {MAX_PIXELS // 1_000_000} million pixels"
        raise InputError(f"{name}: {limit}", hint="crop it or scale it down first") from error
    except MemoryError as error:
        raise InputError(f"{name}: not enough memory to read it") from error
    except Exception as error:  # for damaged bytes Pillow's parsers raise almost any exception
        raise InputError(f"{name}: {_describe(error, kind)}") from error


def _is_dicom(stream: BinaryIO, source: Path | bytes) -> bool:
    """By content; by name only if no other type of image: old files have no preamble."""
    if has_preamble(stream) or isinstance(source, bytes) or source.suffix.lower() not in DICOM_SUFFIXES:
        return has_preamble(stream)
    try:
        Image.open(stream, formats=_FORMATS)
    except UnidentifiedImageError:
        return True
    finally:
        stream.seek(0)
    return False


def _describe(error: Exception, kind: str) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return os_error_text(error)
    if kind == "DICOM":  # pydicom's messages may quote a patient's data
        return "truncated DICOM" if isinstance(error, EOFError) else "damaged DICOM"
    message = " ".join(str(error).split()) or type(error).__name__
    if "MAX_TEXT" in message:  # Pillow's messages name its limits MAX_TEXT_CHUNK and MAX_TEXT_MEMORY
        return _TOO_MUCH_TEXT
    cut = isinstance(error, EOFError) or "truncated" in message.lower()
    return f"truncated {kind}" if cut else f"damaged {kind} ({message})"


def _decode(
    image: Image.Image | Tiff, page: int, name: str, *, indices: bool = False
) -> tuple[np.ndarray, int, bool]:
    """The values of a page, or for `indices` those into its palette, if it has one; its EXIF orientation, and
    whether Pillow has already applied it (it does for TIFFs)."""
    if isinstance(image, Tiff):
        if (samples := image.samples(page)) is not None:
            return samples, image.orientation(page), False
        image = image.image(page)
    elif page:
        raise InputError(f"{name}: has no page {page + 1}")
    check_size(*image.size)
    samples = deep_samples(image, name)
    orientation = _orientation(image)
    if samples is not None:
        return samples, orientation, False
    with libtiff_errors():
        image.load()
    values = np.asarray(image) if indices and image.mode == "P" else _numbers(image)
    return values, orientation, _orientation(image) != orientation


def _orientation(image: Image.Image) -> int:
    return orientation_of(image.getexif().get(_ORIENTATION))


def _numbers(image: Image.Image) -> np.ndarray:
    """The values of a decoded image, never clipped: (H, W) or (H, W, C), with alpha, if any, last."""
    if image.mode in ("1", "I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    mode = "L" if image.mode in ("L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    return np.asarray(image if image.mode == mode else image.convert(mode))
