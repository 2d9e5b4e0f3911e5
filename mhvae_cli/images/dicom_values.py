"""What the numbers of a DICOM file stand for: grey values and their window, and the size of a pixel.

A header is a pydicom Dataset with the elements of `dicom.TAGS`; pydicom itself is not needed here. What one
frame has for itself, or all have in common, may lie in functional groups.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .scan import Spacing, Window

if TYPE_CHECKING:
    from pydicom import Dataset

_CENTIMETRES, _FLAT = 3, 1  # of an ultrasound region: its units, and a space that is no spectrum or curve


def grey(
    header: "Dataset", array: np.ndarray, page: int, window: Window
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Stored numbers (h, w) of a frame as uint8 or uint16, larger ones brighter, and their `Scan.window`.

    A window is in the numbers behind RescaleSlope and RescaleIntercept. "auto" is the file's first one, or
    its table, which becomes pixels of the whole 16 bits as a SIGMOID does; the range of less than 8 bits.
    """
    bits, dark = header.BitsStored, header.PhotometricInterpretation == "MONOCHROME1"
    least = -(2 ** (bits - 1)) if header.get("PixelRepresentation", 0) else 0
    top = 2**bits - 1
    slope, intercept = _rescale(header, page)
    if window == "auto" and (levels := _curved(header, array * slope + intercept, page)) is not None:
        return np.rint((1 - levels if dark else levels) * 65535).astype(np.uint16), (0.0, 65535.0)
    pixels = (array.astype(np.int32) - least).astype(np.uint8 if bits <= 8 else np.uint16)
    flip = dark != (slope < 0)
    limits = (0.0, float(top)) if window == "full" or (window == "auto" and bits < 8) else None
    if asked := _straight(header, page) if window == "auto" else window if window != "full" else None:
        ends = [(number - intercept) / slope - least for number in asked]
        low, high = sorted(top - end if flip else end for end in ends)
        limits = low, high
    return np.asarray(top, pixels.dtype) - pixels if flip else pixels, limits


def spacing(header: "Dataset", page: int) -> Spacing | None:
    """PixelSpacing, or that of the largest ultrasound region in cm; None if unknown.

    ImagerPixelSpacing is that of the detector, from which the object is away: it counts as unknown, and so
    does a PixelSpacing that merely repeats it. So do the two kinds where they contradict.
    """
    told = _size(_element(header, page, "PixelMeasuresSequence", "PixelSpacing"))
    detector = _size(header.get("ImagerPixelSpacing"))
    if told and detector and not header.get("PixelSpacingCalibrationType"):
        told = None if np.allclose(told, detector) else told
    areas = list(_regions(header))
    seen = max(areas)[1] if areas else None
    if told and seen and not np.allclose(told, seen, rtol=0.01):
        return None
    return told or seen


def _regions(header: "Dataset") -> Iterator[tuple[int, Spacing]]:
    """The area in pixels and the spacing of each flat ultrasound region whose axes are lengths."""
    for region in header.get("SequenceOfUltrasoundRegions") or ():
        units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
        if region.get("RegionSpatialFormat") != _FLAT or units != (_CENTIMETRES, _CENTIMETRES):
            continue
        deltas = region.get("PhysicalDeltaY"), region.get("PhysicalDeltaX")
        size = _size(None if None in deltas else [abs(float(delta)) * 10 for delta in deltas])
        width = region.RegionLocationMaxX1 - region.RegionLocationMinX0
        height = region.RegionLocationMaxY1 - region.RegionLocationMinY0
        if size and width > 0 and height > 0:
            yield width * height, size


def _size(values: Any) -> Spacing | None:
    """The size (x, y) of a pixel from a file's values, y before x; None for what can be no size."""
    numbers = [] if values is None else [float(value) for value in np.ravel(values)]
    fit = len(numbers) == 2 and all(0 < number < np.inf for number in numbers)
    return Spacing(numbers[1], numbers[0]) if fit else None


def _rescale(header: "Dataset", page: int) -> tuple[float, float]:
    """Slope and intercept from stored numbers to the file's."""
    names, group = ("RescaleSlope", "RescaleIntercept"), "PixelValueTransformationSequence"
    values = (_element(header, page, group, name) for name in names)
    slope, intercept = (None if value is None else float(value) for value in values)
    if slope is None or intercept is None or not slope or not np.isfinite([slope, intercept]).all():
        return 1.0, 0.0
    return slope, intercept


def _first_window(header: "Dataset", page: int) -> tuple[float, float, str] | None:
    """Centre and width of the file's first window, and its function; None if it has no such window."""
    values = [_element(header, page, "FrameVOILUTSequence", f"Window{it}") for it in ("Center", "Width")]
    if None in values:
        return None
    centre, width = (float(np.ravel(value)[0]) for value in values)
    function = _element(header, page, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR"
    least = 1.0 if function == "LINEAR" else np.finfo(np.float32).tiny
    return (centre, width, function) if np.isfinite(centre) and least <= width < np.inf else None


def _straight(header: "Dataset", page: int) -> tuple[float, float] | None:
    """The numbers that the file's own window makes black and white (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    if (found := _first_window(header, page)) is None:
        return None
    centre, width, function = found
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    return centre - width / 2, centre + width / 2


def _curved(header: "Dataset", numbers: np.ndarray, page: int) -> np.ndarray | None:
    """What a table or a SIGMOID window makes of numbers, in [0, 1]; None for a file that has neither."""
    if tables := header.get("VOILUTSequence"):
        entries, first, bits = tables[0].LUTDescriptor
        data, order = tables[0].LUTData, "<" if header.original_encoding[1] else ">"
        table = np.frombuffer(data, f"{order}u2") if isinstance(data, bytes) else np.asarray(data)
        levels = np.clip(table[: entries or 2**16] / (2**bits - 1), 0, 1)
        curved: np.ndarray = levels[np.clip(np.rint(numbers).astype(np.int32) - first, 0, len(levels) - 1)]
        return curved
    if (found := _first_window(header, page)) is None or found[2] != "SIGMOID":
        return None
    centre, width, _ = found
    return 1 / (1 + np.exp(np.clip(-4 * (numbers - centre) / width, -60, 60)))


def _element(header: "Dataset", page: int, group: str, keyword: str) -> Any:
    """An element of the header, or of a functional group of all frames or this one; None if missing."""
    if (value := header.get(keyword)) is not None:
        return value
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    for groups in (*shared[:1], *own[page : page + 1]):
        for macro in groups.get(group) or ():
            if (value := macro.get(keyword)) is not None:
                return value
    return None
