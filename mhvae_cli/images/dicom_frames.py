"""The frames of a DICOM file's pixel data, decoded by Pillow (two kinds of JPEG) or by pydicom."""

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from ..errors import InputError
from .scan import MAX_PIXELS

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.uid import UID

GREYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")
"""The supported values of PhotometricInterpretation."""
PALETTES = ("Red", "Green", "Blue")
"""The first words of the keywords of the three palettes."""

_BASELINE, _EXTENDED = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"
"""The transfer syntaxes of 8-bit and of 8- or 12-bit JPEG; Pillow decodes 8 bits only."""


@dataclass(frozen=True)
class PixelData:
    """The pixel data, OB or OW by `vr`, of the file `name`: `frames` frames in `stream` from `start` on."""

    name: str
    stream: BinaryIO
    syntax: "UID"
    header: "Dataset"
    frames: int
    start: int
    vr: str


def check_header(header: "Dataset", syntax: "UID", name: str) -> None:
    """InputError for a header without a supported image, ValueError for one that contradicts itself."""
    rows, columns = header.get("Rows"), header.get("Columns")
    if not rows or not columns:
        raise InputError(f"{name}: DICOM file without an image")
    if rows * columns > MAX_PIXELS:
        limit = f"more than {MAX_PIXELS // 1_000_000} million pixels"
        raise InputError(f"{name}: {limit}", hint="crop it or scale it down first")
    colour = header.get("PhotometricInterpretation")
    if colour not in GREYS + COLOURS:
        raise InputError(f"{name}: DICOM file with an unsupported PhotometricInterpretation")
    if header.BitsAllocated not in (1, 8, 16) or not 1 <= header.BitsStored <= header.BitsAllocated:
        raise InputError(f"{name}: DICOM file with more than 16 bits, or an invalid number of bits")
    samples, signed = 3 if colour in COLOURS[:-1] else 1, header.get("PixelRepresentation", 0)
    if header.get("SamplesPerPixel", 1) != samples or (samples == 3 and signed):
        raise ValueError("samples")


def decode_frame(data: PixelData, page: int) -> np.ndarray:
    """The stored values of a frame, (rows, columns), or its colours, (rows, columns, 3)."""
    syntax = data.syntax
    data.stream.seek(data.start)
    if syntax == _BASELINE or (syntax == _EXTENDED and data.header.BitsStored <= 8):
        return _decode_jpeg(data, page)
    from pydicom.pixels import get_decoder

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise cannot_decode(data.name, syntax) from None
    # Pillow is listed as a decoder of JPEG Extended, of which it decodes 8 bits only.
    if not decoder.is_available or (syntax == _EXTENDED and decoder.available_plugins == ("pillow",)):
        raise cannot_decode(data.name, syntax, installable=True)
    if syntax.is_encapsulated and "JPEG 2000" in syntax.name:
        _open_frame(data, page).close()
    array, found = decoder.as_array(data.stream, index=page, **_decoder_options(data))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if data.header.get("PhotometricInterpretation") == "PALETTE COLOR":
        colours, first = _palette(data.header)
        return colours[np.clip(array.astype(np.int32) - first, 0, len(colours) - 1)]
    if array.ndim == 3 and found["photometric_interpretation"] != "RGB":
        raise cannot_decode(data.name, syntax)
    return array


def cannot_decode(name: str, syntax: "UID", *, installable: bool = False) -> InputError:
    """The error for a transfer syntax that no installed decoder supports; `installable`: others do."""
    kind = syntax.name if syntax.is_transfer_syntax else "an unknown transfer syntax"
    plugin = "pylibjpeg-openjpeg" if "2000" in kind else "pylibjpeg-libjpeg"
    install = f"pip install pylibjpeg {plugin}, or " if installable else ""
    return InputError(f"{name}: cannot decode DICOM in {kind}", hint=f"{install}decompress it first")


def _palette(header: "Dataset") -> tuple[np.ndarray, int]:
    """A palette's colours, uint8 (n, 3), and the stored value of the first one."""
    entries, first, _ = header.RedPaletteColorLookupTableDescriptor
    entries = entries or 2**16
    if header.get("SegmentedRedPaletteColorLookupTableData") is not None:
        from pydicom.pixels import apply_color_lut

        if "RedPaletteColorLookupTableData" in header:
            raise ValueError("palettes")
        colours = apply_color_lut(np.arange(first, first + entries), header)[:, :3]
    else:
        order = "<" if header.original_encoding[1] else ">"
        tables = [bytes(header[f"{colour}PaletteColorLookupTableData"].value) for colour in PALETTES]
        size = 2 if len(tables[0]) >= 2 * entries else 1
        colours = np.stack([np.frombuffer(table, f"{order}u{size}", entries) for table in tables], axis=1)
    # Some files hold 8 bits in 16.
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8), first


def _decode_jpeg(data: PixelData, page: int) -> np.ndarray:
    with _open_frame(data, page) as image:
        marked = "adobe_transform" in image.info or "jfif" in image.info
        marked = marked or [layer[0] for layer in getattr(image, "layer", ())] == list(b"RGB")
        if data.header.get("PhotometricInterpretation") == "RGB" and not marked:
            image.draft("YCbCr", image.size)  # no conversion: libjpeg would take the RGB for YCbCr
        array = np.asarray(image)
    if array.ndim != (2 if data.header.get("SamplesPerPixel", 1) == 1 else 3):
        raise ValueError("colours")
    return array


def _open_frame(data: PixelData, page: int) -> Image.Image:
    """A frame's JPEG with its own header read, which must state the same size as the file's header."""
    from pydicom.encaps import get_frame

    data.stream.seek(data.start)
    frame = get_frame(data.stream, page, number_of_frames=data.frames)
    data.stream.seek(data.start)
    image = Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000"))
    if image.size != (data.header.Columns, data.header.Rows):
        raise ValueError("size")
    return image


def _decoder_options(data: PixelData) -> dict[str, Any]:
    """What pydicom's decoders need to know of the header."""
    header = data.header
    return {
        "transfer_syntax_uid": data.syntax,
        "rows": header.Rows,
        "columns": header.Columns,
        "samples_per_pixel": header.get("SamplesPerPixel", 1),
        "photometric_interpretation": str(header.get("PhotometricInterpretation", "")),
        "planar_configuration": header.get("PlanarConfiguration", 0),
        "number_of_frames": data.frames,
        "bits_allocated": header.BitsAllocated,
        "bits_stored": header.BitsStored,
        "pixel_representation": header.get("PixelRepresentation", 0),
        "pixel_keyword": "PixelData",
        "pixel_vr": data.vr,
    }
