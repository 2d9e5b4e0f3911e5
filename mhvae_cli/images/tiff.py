"""TIFF files: their pages by their tags, and the samples that Pillow would narrow or misread.

Pillow decodes pages of up to 8 unsigned bits per sample. It reads only the high byte of 16-bit colours, takes
int8 for uint8, and does not know 64 bits, half floats or colours of floats. For any of these the page's own
strips or tiles are presented to it as a page of bytes, so that its decompressors serve all sample types.
"""

import ctypes
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError, _imaging
from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2, TiffImageFile

from ..errors import InputError
from .scan import MAX_PIXELS, orientation_of

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_SIZES = 273, 274, 277, 278, 279
_PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_SIZES = 284, 317, 322, 323, 324, 325
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _IMAGE_DEPTH = 338, 339, 32997

_BYTEWISE = {
    1: "none",
    5: "LZW",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
    34925: "LZMA",
    50000: "Zstd",
}
"""The values of Compression that do not depend on what the bytes mean."""
_WEBP = 50001
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_CHANNELS = {0: 1, 1: 1, 2: 3, 5: 4}
"""The values of SampleFormat and of PhotometricInterpretation that are supported here."""
_CMYK, _ALPHA = 5, 2
_BIG, _BIG_BIG_ENDIAN = 43, b"MM\0+"

_errors = threading.local()


def _note_error(function: bytes | None, _text: bytes | None, _values: int | None) -> None:
    _errors.function = (function or b"libtiff").decode(errors="replace")


_on_error = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)(_note_error)

# By default libtiff writes its errors to stderr, without the file's name.
with suppress(AttributeError, OSError):  # where Pillow is linked statically
    ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(_on_error)


@contextmanager
def libtiff_errors() -> Iterator[None]:
    """OSError for an error of libtiff that Pillow passes over, as it does for the bad code words of a fax."""
    _errors.function = ""
    yield
    if _errors.function:
        raise OSError(_errors.function)


def is_tiff(stream: BinaryIO) -> bool:
    """Whether a file begins like a TIFF or a BigTIFF."""
    stream.seek(0)
    head = stream.read(4)
    stream.seek(0)
    return head in PREFIXES


class Tiff:
    """An open TIFF file. Raises InputError, in one line that begins with `name`, for a kind of page that is
    not supported; for damaged files Pillow raises almost any exception, which the caller must catch."""

    format = "TIFF"

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name, self.stream = name, stream
        tags = self.tags(0)
        check_size(tags[_WIDTH], tags[_HEIGHT])

    @property
    def frames(self) -> int:
        """The number of pages."""
        return sum(1 for _ in self._directories())

    def tags(self, page: int) -> ImageFileDirectory_v2:
        """The tags of a page, counted from 0."""
        for number, tags in enumerate(self._directories()):
            if number == page:
                return tags
        raise InputError(f"{self.name}: has no page {page + 1}")

    def orientation(self, page: int) -> int:
        """The EXIF orientation of a page."""
        return orientation_of(self.tags(page).get(_ORIENTATION))

    def image(self, page: int) -> Image.Image:
        """A page for Pillow to decode, if `samples` does not."""
        self.stream.seek(0)
        try:
            image = Image.open(self.stream, formats=("TIFF",))
            image.seek(page)
        except (UnidentifiedImageError, SyntaxError) as error:
            raise self._unsupported(self.tags(page)) from error
        return image

    def samples(self, page: int) -> np.ndarray | None:
        """The stored samples of a page, (h, w) or (h, w, c), larger is brighter, c as in `scan.scan_of`; None
        if Pillow decodes it."""
        tags = self.tags(page)
        bits, formats = _each(tags, _BITS), _each(tags, _SAMPLE_FORMAT)
        if tags.get(_COMPRESSION) == _WEBP:  # Pillow would call it damaged: few of its builds decode it
            raise self._unsupported(tags)
        if tags.get(_IMAGE_DEPTH, 1) != 1:
            raise InputError(f"{self.name}: unsupported kind of TIFF (a volume in one page)")
        if max(bits) <= 8 and set(formats) <= {1}:
            return None
        if max(bits) == 12 and set(formats) == {1} and len(bits) == 1:
            return None
        check_size(tags[_WIDTH], tags[_HEIGHT])
        photometric = tags.get(_PHOTOMETRIC, 1)  # some files lack it
        known = bits[0] in (8, 16, 32, 64) and formats[0] in _KINDS and photometric in _CHANNELS
        uniform = len(set(bits)) == len(set(formats)) == 1 and len(bits) == tags.get(_SAMPLES, 1)
        if not known or not uniform or tags.get(_COMPRESSION, 1) not in _BYTEWISE or bits[0] * len(bits) < 8:
            raise self._unsupported(tags)
        dtype = np.dtype(f"{'<' if tags.prefix[:2] == b'II' else '>'}{_KINDS[formats[0]]}{bits[0] // 8}")
        kept = self._kept(tags, dtype, len(bits), _CHANNELS[photometric])
        if tags.get(_PLANAR, 1) == 2:
            values = np.concatenate([self._decoded(tags, dtype, 1, plane) for plane in range(kept)], axis=2)
        else:
            values = self._decoded(tags, dtype, len(bits), 0)[..., :kept]
        return _brighter(values, photometric)

    def _directories(self) -> Iterator[ImageFileDirectory_v2]:
        """The tags of each page in turn, in one object."""
        self.stream.seek(0)
        head = self.stream.read(8)
        if head[:4] == _BIG_BIG_ENDIAN:
            raise InputError(f"{self.name}: unsupported kind of TIFF (BigTIFF in big-endian byte order)")
        tags = ImageFileDirectory_v2(head + self.stream.read(8) if head[2] == _BIG else head)
        seen: set[int] = set()
        while tags.next and tags.next not in seen:
            seen.add(tags.next)
            self.stream.seek(tags.next)
            tags.load(self.stream)
            if _WIDTH not in tags:  # cut off
                if len(seen) == 1:
                    raise EOFError
                return
            yield tags

    def _kept(self, tags: ImageFileDirectory_v2, dtype: np.dtype, samples: int, colours: int) -> int:
        """How many samples of a pixel are colours or alpha; not alpha that has multiplied the colours."""
        if samples == colours:
            return colours
        extra = tags.get(_EXTRA_SAMPLES, (_ALPHA,) if colours == 3 else (None,))[0]
        unfit = colours == 4 or dtype.kind != "u" or dtype.itemsize > 2  # for alpha
        if samples < colours or extra is None or (extra == _ALPHA and unfit):
            raise self._unsupported(tags)
        return colours + 1 if extra == _ALPHA else colours

    def _decoded(self, tags: ImageFileDirectory_v2, dtype: np.dtype, channels: int, plane: int) -> np.ndarray:
        """Samples (h, w, channels) of a page, or of one of its planes, in native byte order."""
        height, width, pixel = tags[_HEIGHT], tags[_WIDTH], channels * dtype.itemsize
        tile = tags.get(_TILE_WIDTH, width)  # a strip is as a tile of full width
        across, bands = (
            -(-width // tile),
            tags.get(_TILE_HEIGHT) or min(tags.get(_ROWS_PER_STRIP, height), height),
        )
        tiled = _TILE_WIDTH in tags
        names = (_TILE_OFFSETS, _TILE_SIZES) if tiled else (_STRIP_OFFSETS, _STRIP_SIZES)
        count = across * -(-height // bands)
        chosen = slice(plane * count, (plane + 1) * count)
        offsets, sizes = (tags[name][chosen] for name in names)
        if len(offsets) != count or len(sizes) != count:
            raise EOFError
        parts = [self._bytes(*place) for place in zip(offsets, sizes, strict=True)]
        layout = {_WIDTH: across * tile * pixel, _HEIGHT: height, _BITS: 8, _PHOTOMETRIC: 1, _SAMPLES: 1}
        layout |= {_COMPRESSION: tags.get(_COMPRESSION, 1), _FILL_ORDER: tags.get(_FILL_ORDER, 1)}
        layout |= {_TILE_WIDTH: tile * pixel, _TILE_HEIGHT: bands} if tiled else {_ROWS_PER_STRIP: bands}
        with TiffImageFile(BytesIO(_one_page(layout, parts, names))) as image, libtiff_errors():
            rows = np.asarray(image).reshape(height, across, tile, pixel)
        values = _undo_predictor(rows, dtype, channels, tags.get(_PREDICTOR, 1))
        return values.reshape(height, across * tile, channels)[:, :width]

    def _bytes(self, offset: int, size: int) -> bytes:
        self.stream.seek(offset)
        data = self.stream.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _unsupported(self, tags: ImageFileDirectory_v2) -> InputError:
        bits, formats = ("+".join(map(str, _each(tags, tag))) for tag in (_BITS, _SAMPLE_FORMAT))
        kind = f"photometric {tags.get(_PHOTOMETRIC)}, {bits} bits, sample format {formats}"
        return InputError(
            f"{self.name}: unsupported kind of TIFF ({kind}, compression {tags.get(_COMPRESSION, 1)})",
            hint="convert it to 8 or 16 bits of grey or RGB first",
        )


def _each(tags: ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    """BitsPerSample or SampleFormat of each sample."""
    found = tags.get(tag, (1,))
    values: tuple[int, ...] = found if isinstance(found, tuple) else (found,)
    samples = tags.get(_SAMPLES, 1)
    return values * samples if len(values) == 1 and samples < 100 else values


def check_size(width: int, height: int) -> None:
    """DecompressionBombError for more than MAX_PIXELS pixels."""
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError


def _one_page(layout: dict[int, int], parts: list[bytes], names: tuple[int, int]) -> bytes:
    """A TIFF file of one page of bytes, in strips or tiles `parts`."""
    body = b"".join(parts)
    sizes = [len(part) for part in parts]
    offsets = (8 + np.cumsum([0, *sizes[:-1]])).tolist()
    entries: dict[int, list[int]] = {tag: [value] for tag, value in layout.items()}
    entries |= {names[0]: offsets, names[1]: sizes}
    begin = 8 + len(body)
    after = begin + 2 + 12 * len(entries) + 4
    directory, arrays = struct.pack("<H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"<{len(values)}L", *values)
        place = packed if len(values) == 1 else struct.pack("<L", after + len(arrays))
        arrays += b"" if len(values) == 1 else packed
        directory += struct.pack("<HHL", tag, 4, len(values)) + place
    return b"".join([struct.pack("<2sHL", b"II", 42, begin), body, directory, bytes(4), arrays])


def _brighter(values: np.ndarray, photometric: int) -> np.ndarray:
    """Samples (h, w, c) such that larger is brighter, CMYK as RGB; (h, w) for grey without alpha."""
    if photometric == 0:
        kind = values.dtype.kind
        values = np.iinfo(values.dtype).max - values if kind == "u" else -values if kind == "f" else ~values
    if photometric == _CMYK:
        top = np.iinfo(values.dtype).max
        inks = (top - values).astype(np.float64)
        values = np.rint(inks[..., :3] * inks[..., 3:] / top).astype(values.dtype)
    return values[..., 0] if values.shape[2] == 1 else values


def _undo_predictor(rows: np.ndarray, dtype: np.dtype, channels: int, predictor: int) -> np.ndarray:
    """Bytes (h, tiles, w, pixel) as samples in native byte order, (h, tiles, w, channels)."""
    height, across, tile, _ = rows.shape
    native = dtype.newbyteorder("=")
    if predictor == 3:  # differences of bytes, the most significant bytes of a row first
        summed = np.cumsum(rows.reshape(height, across, -1, channels), axis=2, dtype=np.uint8)
        planes = summed.reshape(height, across, dtype.itemsize, tile * channels)
        values = np.ascontiguousarray(np.moveaxis(planes, 2, 3)).view(dtype.newbyteorder(">")).astype(native)
        return values.reshape(height, across, tile, channels)
    values = np.ascontiguousarray(rows).view(dtype).astype(native, copy=False)
    if predictor == 2:
        whole = np.dtype(f"u{dtype.itemsize}")
        values = np.cumsum(values.view(whole), axis=2, dtype=whole).view(native)
    return values
