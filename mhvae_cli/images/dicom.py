"""DICOM files (the extra `dicom`, pydicom): their frames as scans, with windows and pixel spacing.

Only the elements in TAGS are read, so no patient's name or number is ever in memory, and an error message
says only what kind of error it is. `Scan.pixels` of a greyscale file are the stored values, without loss:
offset if they are signed, and inverted if needed, so that larger is brighter.
"""

import logging
import struct
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from ..errors import InputError
from .dicom_frames import PixelData, cannot_decode, check_header, decode_frame
from .dicom_values import grey, spacing
from .scan import Scan, Window

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

_SYNTAX, _FRAMES = 0x00020010, 0x00280008
_FLOAT_PIXEL_DATA, _PIXEL_DATA = 0x7FE00008, 0x7FE00010

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
            raise cannot_decode(name, self.syntax)
        self._begin = stream.tell()

    @cached_property
    def header(self) -> "Dataset":
        """The elements in TAGS."""
        from pydicom.datadict import tag_for_keyword

        tags = [tag for keyword in TAGS if (tag := tag_for_keyword(keyword)) is not None]
        header = self._read(tags, until=_FLOAT_PIXEL_DATA)
        self._end = self.stream.tell()
        check_header(header, self.syntax, self.name)
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

            self.stream.seek(self._extent[0])
            present = parse_fragments(self.stream)[0] - 1  # the first fragment is the Basic Offset Table
        else:
            present = self._extent[1] * 8 // self._frame_bits
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
        if not self.syntax.is_encapsulated and self._extent[1] * 8 < self._frame_bits:
            raise EOFError
        start, _ = self._extent
        data = PixelData(self.name, self.stream, self.syntax, self.header, self.frames, start)
        array = decode_frame(data, page)
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _read(self, tags: list[int], *, until: int) -> "Dataset":
        from pydicom.filereader import read_dataset

        self.stream.seek(self._begin)
        coding = self.syntax.is_implicit_VR, self.syntax.is_little_endian
        return read_dataset(self.stream, *coding, stop_when=lambda tag, *_: tag >= until, specific_tags=tags)

    @cached_property
    def _extent(self) -> tuple[int, int]:
        """Where the pixel data begins in the stream, and its number of bytes."""
        implicit, little = self.header.original_encoding
        order = "<" if little else ">"
        self.stream.seek(self._end)
        head = self.stream.read(8)
        if len(head) < 8:
            raise InputError(f"{self.name}: DICOM file without an image")
        group, element, length = struct.unpack(order + "HHL", head)
        if group << 16 | element != _PIXEL_DATA:
            raise InputError(f"{self.name}: DICOM file with more than 16 bits, or an invalid number of bits")
        if not implicit:
            (length,) = struct.unpack(order + "L", self.stream.read(4))
        start = self.stream.tell()
        return start, min(length, self.stream.seek(0, 2) - start)

    @property
    def _frame_bits(self) -> int:
        header = self.header
        # In YBR_FULL_422 two pixels share Cb and Cr.
        subsampled = header.get("PhotometricInterpretation") == "YBR_FULL_422"
        samples = 2 if subsampled else header.get("SamplesPerPixel", 1)
        bits: int = header.Rows * header.Columns * header.BitsAllocated * samples
        return bits
