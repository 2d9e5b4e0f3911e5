"""DICOM files (the extra `dicom`, pydicom): their frames as scans, with windows and pixel spacing.

Only the elements in TAGS are read, so no patient's name or number is ever in memory, and an error message
says only what kind of error it is. `Scan.pixels` of a greyscale file are the stored values, without loss:
offset if they are signed, and inverted if needed, so that larger is brighter.
"""

import logging
import struct
import warnings
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import InputError
from .dicom_values import grey, spacing
from .scan import MAX_PIXELS, Scan, Window

if TYPE_CHECKING:
    from pydicom import Dataset

SUFFIXES = frozenset((".dcm", ".dicom", ".ima"))
TAGS = [
    *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
    *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
    *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
    *("PixelSpacing", "PixelSpacingCalibrationType", "ImagerPixelSpacing", "SequenceOfUltrasoundRegions"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
]
GREYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
"""The supported values of PhotometricInterpretation."""

_JPEGS = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_SYNTAX, _FRAMES = 0x00020010, 0x00280008
_PIXEL_DATA = (0x7FE00008, 0x7FE00010)  # Float Pixel Data and Pixel Data

# pydicom's warnings and log messages may quote a patient's data.
warnings.filterwarnings("ignore", module=r"pydicom|mhvae_cli\.images\.dicom")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def has_preamble(stream: BinaryIO) -> bool:
    """Whether a file begins like a DICOM file: 128 arbitrary bytes, then DICM."""
    stream.seek(0)
    head = stream.read(132)
    stream.seek(0)
    return head[128:] == b"DICM"


class Dicom:
    """An open DICOM file: its header, and its frames one at a time.

    Raises InputError, in one line that begins with `name`, if pydicom is missing, if the file has no image or
    one that cannot be decoded, and for frames of more than MAX_PIXELS pixels. For damaged files pydicom
    raises almost any exception, which the caller must catch.
    """

    format = "DICOM"

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name, self.stream = name, stream
        try:
            from pydicom.filereader import read_dataset, read_preamble
        except ImportError:
            hint = "pip install 'mhvae[dicom]'"
            raise InputError(f"{name}: reading DICOM files needs pydicom", hint=hint) from None
        from pydicom.uid import UID, ImplicitVRLittleEndian

        read_preamble(stream, force=True)
        meta = read_dataset(
            stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2, specific_tags=[_SYNTAX]
        )
        self.syntax = UID(meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)
        if not self.syntax.is_transfer_syntax or self.syntax.is_deflated:  # it may be a decompression bomb
            raise self._undecodable()
        self._begin = stream.tell()

    @cached_property
    def header(self) -> "Dataset":
        """The elements in TAGS."""
        from pydicom.datadict import tag_for_keyword

        header = self._read([tag_for_keyword(keyword) for keyword in TAGS], until=_PIXEL_DATA[0])
        self._end = self.stream.tell()
        self._check(header)
        return header

    @cached_property
    def frames(self) -> int:
        """The number of frames, each one an image; EOFError if the file has fewer than its header claims."""
        few = self._read([_FRAMES], until=_FRAMES + 1)
        claimed = max(1, int(few.get("NumberOfFrames") or 1))
        if claimed == 1:
            return 1
        if self.syntax.is_encapsulated:
            from pydicom.encaps import parse_fragments

            self.stream.seek(self._pixels[0])
            present = parse_fragments(self.stream)[0] - 1  # the first fragment is the Basic Offset Table
        else:
            present = self._pixels[1] * 8 // self._frame_bits
        if present < claimed:
            raise EOFError
        return claimed

    def scan(self, page: int, window: Window) -> Scan:
        """A frame, counted from 0, as a Scan; see `read.read_scan`."""
        array = self.stored(page)
        pixels, limits = array, None
        if array.ndim == 2:
            pixels, limits = grey(self.header, array, page, window)
        elif array.dtype == np.uint16 and window != "auto":
            limits = (0.0, 2.0**self.header.BitsStored - 1) if window == "full" else window
        size = spacing(self.header, page)
        return Scan(np.ascontiguousarray(pixels), page=page, name=self.name, window=limits, spacing=size)

    def stored(self, page: int = 0) -> np.ndarray:
        """The stored values of a frame, (rows, columns), or its colours, (rows, columns, 3)."""
        if page >= self.frames:
            raise InputError(f"{self.name}: has no page {page + 1}")
        if not self.syntax.is_encapsulated and self._pixels[1] * 8 < self._frame_bits:
            raise EOFError
        self.stream.seek(self._pixels[0])
        if self.syntax in _JPEGS:
            return self._jpeg(page)
        from pydicom.pixels import apply_color_lut, get_decoder

        try:
            decoder = get_decoder(self.syntax)
        except NotImplementedError:
            raise self._undecodable() from None
        if not decoder.is_available:
            raise self._undecodable()
        if self.syntax.is_encapsulated and "JPEG 2000" in self.syntax.name:
            self._open_frame(page).close()
        array, found = decoder.as_array(self.stream, index=page, **self._layout)
        if self._colour == "PALETTE COLOR":
            array = apply_color_lut(array, self.header)
            return array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)
        if array.ndim == 3 and found["photometric_interpretation"] != "RGB":
            raise self._undecodable()
        return array

    def _jpeg(self, page: int) -> np.ndarray:
        """A frame in one of the two kinds of JPEG that Pillow decodes."""
        with self._open_frame(page) as image:
            marked = "adobe_transform" in image.info or "jfif" in image.info
            marked = marked or [layer[0] for layer in getattr(image, "layer", ())] == list(b"RGB")
            if self._colour == "RGB" and not marked:
                image.draft("YCbCr", image.size)  # no conversion: libjpeg would take the RGB for YCbCr
            array = np.asarray(image)
        if array.ndim != (2 if self._layout["samples_per_pixel"] == 1 else 3):
            raise ValueError("colours")
        return array

    def _open_frame(self, page: int) -> Image.Image:
        """A frame's JPEG with its header read, whose size must be the one in the file's header."""
        from pydicom.encaps import get_frame

        self.stream.seek(self._pixels[0])
        data = get_frame(self.stream, page, number_of_frames=self.frames)
        self.stream.seek(self._pixels[0])
        image = Image.open(BytesIO(data), formats=("JPEG", "JPEG2000"))
        if image.size != (self.header.Columns, self.header.Rows):
            raise ValueError("size")
        return image

    def _read(self, tags: list[Any], *, until: int) -> "Dataset":
        from pydicom.filereader import read_dataset

        self.stream.seek(self._begin)
        coding = self.syntax.is_implicit_VR, self.syntax.is_little_endian
        return read_dataset(self.stream, *coding, stop_when=lambda tag, *_: tag >= until, specific_tags=tags)

    def _check(self, header: "Dataset") -> None:
        """InputError for a header without a supported image."""
        rows, columns = header.get("Rows"), header.get("Columns")
        if not rows or not columns:
            raise InputError(f"{self.name}: DICOM file without an image")
        if rows * columns > MAX_PIXELS:
            limit = f"more than {MAX_PIXELS // 1_000_000} million pixels"
            raise InputError(f"{self.name}: {limit}", hint="crop it or scale it down first")
        colour = header.get("PhotometricInterpretation")
        if colour not in GREYS + COLOURS:
            raise InputError(f"{self.name}: DICOM file with an unsupported PhotometricInterpretation")
        if header.BitsAllocated not in (1, 8, 16) or not 1 <= header.BitsStored <= header.BitsAllocated:
            raise InputError(f"{self.name}: DICOM file with more than 16 bits, or an invalid number of bits")
        samples, signed = 3 if colour in COLOURS[:-1] else 1, header.get("PixelRepresentation", 0)
        if header.get("SamplesPerPixel", 1) != samples or (samples == 3 and signed):
            raise ValueError("samples")
        if self.syntax == _JPEGS[1] and header.BitsStored > 8:
            raise self._undecodable()

    @cached_property
    def _pixels(self) -> tuple[int, int]:
        """The offset of the pixel data in the stream, and their number of bytes."""
        implicit, little = self.header.original_encoding
        order = "<" if little else ">"
        self.stream.seek(self._end)
        head = self.stream.read(8)
        if len(head) < 8:
            raise InputError(f"{self.name}: DICOM file without an image")
        group, element, length = struct.unpack(order + "HHL", head)
        if group << 16 | element != _PIXEL_DATA[-1]:
            raise InputError(f"{self.name}: DICOM file with more than 16 bits, or an invalid number of bits")
        if not implicit:
            (length,) = struct.unpack(order + "L", self.stream.read(4))
        start = self.stream.tell()
        return start, min(length, self.stream.seek(0, 2) - start)

    @property
    def _colour(self) -> str:
        return str(self.header.get("PhotometricInterpretation", ""))

    @property
    def _frame_bits(self) -> int:
        header, subsampled = self.header, self._colour == "YBR_FULL_422"  # two pixels share Cb and Cr
        samples = 2 if subsampled else header.get("SamplesPerPixel", 1)
        bits: int = header.Rows * header.Columns * header.BitsAllocated * samples
        return bits

    @property
    def _layout(self) -> dict[str, Any]:
        """The options that pydicom's decoders need."""
        header = self.header
        return {
            "transfer_syntax_uid": self.syntax,
            "rows": header.Rows,
            "columns": header.Columns,
            "samples_per_pixel": header.get("SamplesPerPixel", 1),
            "photometric_interpretation": self._colour,
            "planar_configuration": header.get("PlanarConfiguration", 0),
            "number_of_frames": self.frames,
            "bits_allocated": header.BitsAllocated,
            "bits_stored": header.BitsStored,
            "pixel_representation": header.get("PixelRepresentation", 0),
            "pixel_keyword": "PixelData",
            "pixel_vr": "OW" if header.BitsAllocated > 8 else "OB",
        }

    def _undecodable(self) -> InputError:
        syntax = self.syntax.name if self.syntax.is_transfer_syntax else "an unknown transfer syntax"
        hint = "decompress it first, or install a decoder for pydicom, such as pylibjpeg"
        return InputError(f"{self.name}: cannot decode DICOM in {syntax}", hint=hint)
