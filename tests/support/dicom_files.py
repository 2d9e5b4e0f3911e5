"""DICOM files of a patient who must leave no trace, made of arrays and elements."""

import io
import warnings

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

NAME, ID = "Doe^Jane", "PATIENT-4711"
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 10), dtype=np.uint8)
DEEP = RNG.integers(0, 4096, (6, 10), dtype=np.uint16)


def dataset(array, *, frames=None, **elements):
    """A file of ultrasound: `array` is (rows, columns) or (rows, columns, 3), or `frames` of these."""
    shape = array.shape if frames is None else array.shape[1:]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UltrasoundImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate = NAME, ID, "19700101"
    ds.Rows, ds.Columns = shape[:2]
    ds.SamplesPerPixel = 3 if len(shape) == 3 else 1
    ds.PhotometricInterpretation = "RGB" if len(shape) == 3 else "MONOCHROME2"
    if len(shape) == 3:
        ds.PlanarConfiguration = 0
    if frames is not None:
        ds.NumberOfFrames = frames
    ds.BitsAllocated = 8 * array.itemsize
    ds.BitsStored, ds.HighBit = ds.BitsAllocated, ds.BitsAllocated - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    data = array.tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds["PixelData"].VR = "OW" if ds.BitsAllocated > 8 else "OB"
    return ds


def saved(ds):
    """The bytes of a data set's file."""
    data = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are wrong on purpose
        ds.save_as(data, enforce_file_format=True)
    return data.getvalue()


def dicom(array, **elements):
    """The bytes of a file; see `dataset`."""
    return saved(dataset(array, **elements))


def compressed(frames, syntax, array, **elements):
    """A file whose frames are compressed already."""
    ds = dataset(array, syntax=syntax, frames=len(frames) if len(frames) > 1 else None, **elements)
    ds.PixelData = encapsulate(frames)
    ds["PixelData"].is_undefined_length = True
    return saved(ds)


def jpeg(array, form="JPEG", **options):
    """A picture as the bytes of a JPEG or a JPEG2000."""
    data = io.BytesIO()
    Image.fromarray(array).save(data, form, **options)
    return data.getvalue()


def item(**elements):
    """One item of a sequence."""
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def region(x0, y0, x1, y1, delta, *, units=3, form=1):
    """An ultrasound region, by its first and last pixels; `delta` in `units`, centimetres by default."""
    box = {"RegionLocationMinX0": x0, "RegionLocationMinY0": y0}
    box |= {"RegionLocationMaxX1": x1, "RegionLocationMaxY1": y1}
    scale = {"PhysicalDeltaX": delta[0], "PhysicalDeltaY": delta[1], "PhysicalUnitsXDirection": units}
    scale |= {"PhysicalUnitsYDirection": units, "RegionSpatialFormat": form, "RegionDataType": 1}
    return item(**box, **scale, RegionFlags=0)


RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 10, 3), dtype=np.uint8)
