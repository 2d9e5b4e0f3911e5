"""The meaning of a DICOM file's values: grey levels and their window, and the pixel spacing.

A header is a pydicom Dataset with the elements in `dicom.TAGS`; pydicom itself is not needed here. The
elements of a single frame, or shared by all frames, may be in functional groups.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from .scan import Region, Spacing, Window

if TYPE_CHECKING:
    from pydicom import Dataset

_CENTIMETRES, _FLAT = 3, 1  # an ultrasound region's units, and its format: a 2-D image, no spectrum or curve


def grey(
    header: "Dataset", array: np.ndarray, page: int, window: Window
) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Stored values (h, w) of a frame as uint8 or uint16, larger is brighter, and their `Scan.window`.

    A window is in the values after RescaleSlope and RescaleIntercept. "auto" is the file's first linear
    window; its lookup table or SIGMOID window, which is applied and gives pixels of the full 16 bits; or the
    full range of a file of fewer than 8 bits.
    """
    bits, dark = header.BitsStored, header.PhotometricInterpretation == "MONOCHROME1"
    least = -(2 ** (bits - 1)) if header.get("PixelRepresentation", 0) else 0
    top = 2**bits - 1
    slope, intercept = _rescale(header, page)
    if (
        window == "auto"
        and (levels := _nonlinear_levels(header, array * slope + intercept, page)) is not None
    ):
        return np.rint((1 - levels if dark else levels) * 65535).astype(np.uint16), (0.0, 65535.0)
    pixels = (array.astype(np.int32) - least).astype(np.uint8 if bits <= 8 else np.uint16)
    flip = dark != (slope < 0)  # MONOCHROME1 and a negative slope each reverse the order, both cancel
    limits = (0.0, float(top)) if window == "full" or (window == "auto" and bits < 8) else None
    if chosen := _linear_window(header, page) if window == "auto" else window if window != "full" else None:
        ends = [(number - intercept) / slope - least for number in chosen]
        low, high = sorted(top - end if flip else end for end in ends)
        limits = low, high
    return np.asarray(top, pixels.dtype) - pixels if flip else pixels, limits


def spacing(header: "Dataset", page: int) -> tuple[Spacing | None, tuple[Region, ...]]:
    """PixelSpacing in mm, None if unknown; instead of it the ultrasound regions, if there are any.

    ImagerPixelSpacing is measured at the detector, at a distance from the object: it counts as unknown, and
    so does a PixelSpacing that merely repeats it. The spacing of a region is unknown if its axes are not
    lengths (as of a spectrum), or if it and PixelSpacing contradict.
    """
    stated = _size(_element(header, page, "PixelMeasuresSequence", "PixelSpacing"))
    detector = _size(header.get("ImagerPixelSpacing"))
    if stated and detector and not header.get("PixelSpacingCalibrationType"):
        stated = None if np.allclose(stated, detector) else stated
    found = header.get("SequenceOfUltrasoundRegions")
    regions = tuple(_region(each, stated) for each in found or ())
    return None if regions else stated, regions


def _region(region: "Dataset", stated: Spacing | None) -> Region:
    units = region.get("PhysicalUnitsXDirection"), region.get("PhysicalUnitsYDirection")
    deltas = region.get("PhysicalDeltaY"), region.get("PhysicalDeltaX")
    flat = region.get("RegionSpatialFormat") == _FLAT and units == (_CENTIMETRES, _CENTIMETRES)
    size = _size([abs(float(delta)) * 10 for delta in deltas]) if flat and None not in deltas else None
    if size and stated and not np.allclose(stated, size, rtol=0.01):
        size = None
    x0, y0 = (float(region.get(f"RegionLocationMin{end}", -np.inf)) for end in ("X0", "Y0"))
    x1, y1 = (float(region.get(f"RegionLocationMax{end}", np.inf)) + 1 for end in ("X1", "Y1"))
    return Region(x0, y0, x1, y1, size)


def _size(values: Any) -> Spacing | None:
    """The spacing from a file's values, which are (y, x); None if they are invalid."""
    numbers = [] if values is None else [float(value) for value in np.ravel(values)]
    fit = len(numbers) == 2 and all(0 < number < np.inf for number in numbers)
    return Spacing(numbers[1], numbers[0]) if fit else None


def _rescale(header: "Dataset", page: int) -> tuple[float, float]:
    """RescaleSlope and RescaleIntercept, or 1 and 0 if they are missing or invalid."""
    names, group = ("RescaleSlope", "RescaleIntercept"), "PixelValueTransformationSequence"
    values = (_element(header, page, group, name) for name in names)
    slope, intercept = (None if value is None else float(value) for value in values)
    if slope is None or intercept is None or not slope or not np.isfinite([slope, intercept]).all():
        return 1.0, 0.0
    return slope, intercept


def _first_window(header: "Dataset", page: int) -> tuple[float, float, str] | None:
    """Centre, width and function of the file's first window; None if it has no valid one."""
    values = [_element(header, page, "FrameVOILUTSequence", f"Window{it}") for it in ("Center", "Width")]
    if None in values:
        return None
    centre, width = (float(np.ravel(value)[0]) for value in values)
    function = _element(header, page, "FrameVOILUTSequence", "VOILUTFunction") or "LINEAR"
    least = 1.0 if function == "LINEAR" else np.finfo(np.float32).tiny
    return (centre, width, function) if np.isfinite(centre) and least <= width < np.inf else None


def _linear_window(header: "Dataset", page: int) -> tuple[float, float] | None:
    """The values that the file's own window maps to black and white (PS3.3, C.11.2.1.2 and C.11.2.1.3)."""
    if (found := _first_window(header, page)) is None:
        return None
    centre, width, function = found
    if function == "LINEAR":  # defined by the standard with these offsets; LINEAR_EXACT has none
        centre, width = centre - 0.5, width - 1
    return centre - width / 2, centre + width / 2


def _nonlinear_levels(header: "Dataset", numbers: np.ndarray, page: int) -> np.ndarray | None:
    """Values through the file's lookup table or SIGMOID window, in [0, 1]; None if it has neither."""
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
    """An element of the header, or of a functional group, shared or of this frame; None if missing."""
    if (value := header.get(keyword)) is not None:
        return value
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    for groups in (*shared[:1], *own[page : page + 1]):
        for macro in groups.get(group) or ():
            if (value := macro.get(keyword)) is not None:
                return value
    return None
