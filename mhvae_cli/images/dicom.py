"""DICOM files (the extra `dicom`, pydicom): their frames as scans, their windows, the size of their pixels.

Only the elements of TAGS are read, so no name and no number of a patient is ever in memory; and no fault
tells more than what kind it is. `Scan.pixels` of a grey file are the stored numbers, which lose nothing:
shifted where they are signed, and turned so that larger is brighter.
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
"""The values of PhotometricInterpretation that are understood."""

_JPEGS = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_SYNTAX, _FRAMES = 0x00020010, 0x00280008
_PIXEL_DATA = (0x7FE00008, 0x7FE00010)  # the first is of floats

# What pydicom remarks may quote a patient's data.
warnings.filterwarnings("ignore", module=r"pydicom|mhvae_cli\.dicom")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def has_preamble(stream: BinaryIO) -> bool:
    """Whether a file begins as DICOM files do: 128 bytes of anything, and DICM."""
    stream.seek(0)
    head = stream.read(132)
    stream.seek(0)
    return head[128:] == b"DICM"


class Dicom:
    """An open DICOM file: its header, and its frames one at a time.

    Raises InputError, in one line that begins with `name`, where pydicom is missing, for what holds no
    picture, or one that cannot be decoded, and for frames of more than MAX_PIXELS pixels; pydicom raises
    nearly anything for what is damaged, which is the caller's to catch.
    """

    format = "DICOM"

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self.name, self.stream = name, stream
        try:
            from pydicom.filereader import read_dataset, read_preamble
        except ImportError:
            hint = "pip install 'mhvae[dicom]'"
            raise InputError(f"{name}: DICOM files need pydicom", hint=hint) from None
        from pydicom.uid import UID, ImplicitVRLittleEndian

        read_preamble(stream, force=True)
        meta = read_dataset(
            stream, False, True, stop_when=lambda tag, *_: tag >> 16 != 2, specific_tags=[_SYNTAX]
        )
        self.syntax = UID(meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian)
        if not self.syntax.is_transfer_syntax or self.syntax.is_deflated:  # a deflated header may be a bomb
            raise self._undecodable()
        self._begin = stream.tell()

    @cached_property
    def header(self) -> "Dataset":
        """The elements of TAGS."""
        from pydicom.datadict import tag_for_keyword

        header = self._read([tag_for_keyword(keyword) for keyword in TAGS], until=_PIXEL_DATA[0])
        self._end = self.stream.tell()
        self._check(header)
        return header

    @cached_property
    def frames(self) -> int:
        """How many frames there are, each of them a picture; a file that claims no more than one is quick."""
        few = self._read([_FRAMES], until=_FRAMES + 1)
        claimed = max(1, int(few.get("NumberOfFrames") or 1))
        if claimed == 1:
            return 1
        if self.syntax.is_encapsulated:
            from pydicom.encaps import parse_fragments

            self.stream.seek(self._pixels[0])
            present = parse_fragments(self.stream)[0] - 1  # the first is the table of offsets
        else:
            present = self._pixels[1] * 8 // self._frame_bits
        if present < claimed:
            raise EOFError
        return claimed

    def scan(self, page: int, window: Window) -> Scan:
        """A frame, counted from 0, as a Scan; see `imaging.read_scan`."""
        array = self.stored(page)
        pixels, limits = array, None
        if array.ndim == 2:
            pixels, limits = grey(self.header, array, page, window)
        elif array.dtype == np.uint16 and window != "auto":
            limits = (0.0, 2.0**self.header.BitsStored - 1) if window == "full" else window
        size = spacing(self.header, page)
        return Scan(np.ascontiguousarray(pixels), page=page, name=self.name, window=limits, spacing=size)

    def stored(self, page: int = 0) -> np.ndarray:
        """The numbers of a frame as they are stored, (rows, columns), or its colours, (rows, columns, 3)."""
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
            self._picture(page).close()
        array, found = decoder.as_array(self.stream, index=page, **self._layout)
        if self._colour == "PALETTE COLOR":
            array = apply_color_lut(array, self.header)
            return array if array.dtype == np.uint8 else (array >> 8).astype(np.uint8)
        if array.ndim == 3 and found["photometric_interpretation"] != "RGB":
            raise self._undecodable()
        return array

    def _jpeg(self, page: int) -> np.ndarray:
        """A frame of the two kinds of JPEG that Pillow knows."""
        with self._picture(page) as picture:
            told = "adobe_transform" in picture.info or "jfif" in picture.info
            told = told or [layer[0] for layer in getattr(picture, "layer", ())] == list(b"RGB")
            if self._colour == "RGB" and not told:
                picture.draft("YCbCr", picture.size)  # as it is: else libjpeg takes RGB for YCbCr
            array = np.asarray(picture)
        if array.ndim != (2 if self._layout["samples_per_pixel"] == 1 else 3):
            raise ValueError("colours")
        return array

    def _picture(self, page: int) -> Image.Image:
        """The header of a frame's JPEG, which must be of the size that the file's header gives."""
        from pydicom.encaps import get_frame

        self.stream.seek(self._pixels[0])
        data = get_frame(self.stream, page, number_of_frames=self.frames)
        self.stream.seek(self._pixels[0])
        picture = Image.open(BytesIO(data), formats=("JPEG", "JPEG2000"))
        if picture.size != (self.header.Columns, self.header.Rows):
            raise ValueError("size")
        return picture

    def _read(self, tags: list[Any], *, until: int) -> "Dataset":
        from pydicom.filereader import read_dataset

        self.stream.seek(self._begin)
        coding = self.syntax.is_implicit_VR, self.syntax.is_little_endian
        return read_dataset(self.stream, *coding, stop_when=lambda tag, *_: tag >= until, specific_tags=tags)

    def _check(self, header: "Dataset") -> None:
        """InputError for a header that no picture can follow."""
        rows, columns = header.get("Rows"), header.get("Columns")
        if not rows or not columns:
            raise InputError(f"{self.name}: a DICOM file that holds no picture")
        if rows * columns > MAX_PIXELS:
            limit = f"more than {MAX_PIXELS // 1_000_000} million pixels"
            raise InputError(f"{self.name}: {limit}", hint="crop it or scale it down first")
        colour = header.get("PhotometricInterpretation")
        if colour not in GREYS + COLOURS:
            raise InputError(f"{self.name}: DICOM of an unknown kind of colours")
        if header.BitsAllocated not in (1, 8, 16) or not 1 <= header.BitsStored <= header.BitsAllocated:
            raise InputError(f"{self.name}: DICOM of more than 16 bits, or of no number of bits")
        samples, signed = 3 if colour in COLOURS[:-1] else 1, header.get("PixelRepresentation", 0)
        if header.get("SamplesPerPixel", 1) != samples or (samples == 3 and signed):
            raise ValueError("samples")
        if self.syntax == _JPEGS[1] and header.BitsStored > 8:
            raise self._undecodable()

    @cached_property
    def _pixels(self) -> tuple[int, int]:
        """Where the pixel data begin in the stream, and how many bytes are there."""
        implicit, little = self.header.original_encoding
        order = "<" if little else ">"
        self.stream.seek(self._end)
        head = self.stream.read(8)
        if len(head) < 8:
            raise InputError(f"{self.name}: a DICOM file that holds no picture")
        group, element, length = struct.unpack(order + "HHL", head)
        if group << 16 | element != _PIXEL_DATA[-1]:
            raise InputError(f"{self.name}: DICOM of more than 16 bits, or of no number of bits")
        if not implicit:
            (length,) = struct.unpack(order + "L", self.stream.read(4))
        start = self.stream.tell()
        return start, min(length, self.stream.seek(0, 2) - start)

    @property
    def _colour(self) -> str:
        return str(self.header.get("PhotometricInterpretation", ""))

    @property
    def _frame_bits(self) -> int:
        header, subsampled = self.header, self._colour == "YBR_FULL_422"  # two pixels share their two colours
        samples = 2 if subsampled else header.get("SamplesPerPixel", 1)
        bits: int = header.Rows * header.Columns * header.BitsAllocated * samples
        return bits

    @property
    def _layout(self) -> dict[str, Any]:
        """What pydicom's decoders need to know."""
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
        known = self.syntax.name if self.syntax.is_transfer_syntax else "no transfer syntax that is known"
        hint = "decompress it first, or install a decoder beside pydicom, as pylibjpeg"
        return InputError(f"{self.name}: DICOM in {known}: cannot be decoded", hint=hint)
