"""Whether files that are damaged in every way cost `mhvae segment` more than their own rows.

    python examples/benchmarks/fuzz.py [--count 2000] [--seed 0] [--model fetal-head]

Seeded phantoms are written as PNG, JPEG, TIFF (pages, 16 bits, floats) and DICOM (frames, 16 bits, JPEG, RLE;
needs pydicom), and most of them are spoiled: cut, bytes flipped anywhere or in the header, another type's
first bytes, sizes that claim gigapixels, junk for a body, text, nothing; some whole ones get another type's
suffix. One run over the folder must end in time with exit code 3, without a traceback or a patient's name,
with a row for every input, and with a mask for every picture that is whole.
"""

import argparse
import csv
import io
import resource
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from common import MHVAE, table  # first: see there

# isort: split
import numpy as np
from PIL import Image

from mhvae_cli.images.read import read_mask
from mhvae_cli.training.phantoms import phantom

PATIENT = ("Doe^Jane", "PATIENT-4711")
WHOLE = 0.1
"""The share of files that are left whole."""


@dataclass(frozen=True)
class Case:
    """One file: how it was spoiled, and how many pictures it must give (0: any number, or a fault)."""

    name: str
    how: str
    pages: int


def write_cases(folder: Path, count: int, seed: int, size: tuple[int, int] = (60, 80)) -> list[Case]:
    """Write `count` files of phantoms of `size` (h, w) into a folder."""
    rng = np.random.default_rng(seed)
    pictures = [phantom("fetal-head", number, size)[0] for number in range(8)]
    kinds = list(_KINDS.items())
    cases = []
    for number in range(count):
        (suffix, pages), encode = kinds[number % len(kinds)]
        whole = encode(pictures[rng.integers(len(pictures))])
        how = "whole" if rng.random() < WHOLE else str(rng.choice(list(_SPOILERS)))
        if how == "swapped suffix":
            suffix = str(rng.choice([".png", ".jpg", ".tif", ".bmp", ".dcm"]))
        name = f"{number:05d}{suffix}"
        (folder / name).write_bytes(whole if how == "whole" else _SPOILERS[how](whole, rng))
        counted = pages == 1 or suffix in (".tif", ".dcm")  # of others the first page is taken
        cases.append(Case(name, how, (pages if counted else 1) if how in ("whole", "swapped suffix") else 0))
    return cases


def judge(folder: Path, out: Path, cases: list[Case], code: int, stderr: str) -> list[str]:
    """What a run over the cases in `folder`, with its masks in `out`, did wrong; one line each."""
    faults = [] if code == 3 else [f"exit code {code}"]
    faults += [f"stderr has {word!r}" for word in ("Traceback", "internal error", *PATIENT) if word in stderr]
    if not (out / "results.csv").exists():
        return [*faults, f"no results.csv: {stderr[-2000:]}"]
    with (out / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = Counter(Path(row["input"]).name for row in rows)
    good = Counter(Path(row["input"]).name for row in rows if row["status"] == "ok")
    for case in cases:
        if not found[case.name]:
            faults.append(f"{case.name} ({case.how}): no row")
        if good[case.name] < case.pages:
            faults.append(f"{case.name} ({case.how}): {good[case.name]} of {case.pages} masks")
    for row in rows:
        if row["status"] == "ok" and read_mask(Path(row["output"])).shape != _shape(row):
            faults.append(f"{row['output']}: not of the size that its row gives")
        if row["status"] != "ok" and not row["error"]:
            faults.append(f"{row['input']}: failed without a reason")
    return faults


def strangers(stderr: str) -> list[str]:
    """Lines on stderr that are not mhvae's, such as libtiff's own."""
    return [line for line in stderr.splitlines() if not line.startswith(("error: ", "hint: ", "segment: "))]


def _shape(row: dict[str, str]) -> tuple[int, int]:
    return int(row["height"]), int(row["width"])


def _saved(picture: np.ndarray, form: str, **options: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, form, **options)
    return data.getvalue()


def _tiff(picture: np.ndarray) -> bytes:
    deep = Image.fromarray(picture.astype(np.float32) / 7)
    return _saved(picture, "TIFF", save_all=True, append_images=[Image.fromarray(255 - picture), deep])


def _dicom(picture: np.ndarray, *, frames: int = 1, syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    """An ultrasound of `frames` equal frames."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit, RLELossless, UltrasoundImageStorage, generate_uid

    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax if syntax != RLELossless else "1.2.840.10008.1.2.1"
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = UltrasoundImageStorage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid(entropy_srcs=["fuzz"])
    ds.PatientName, ds.PatientID = PATIENT
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = picture.shape
    ds.BitsAllocated = ds.BitsStored = 8 * picture.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.PixelSpacing, ds.WindowCenter, ds.WindowWidth = [0.2, 0.2], 2 ** (ds.BitsStored - 1), 2**ds.BitsStored
    if frames > 1:
        ds.NumberOfFrames = frames
    ds.PixelData = picture.tobytes() * frames
    ds["PixelData"].VR = "OB" if ds.BitsStored == 8 else "OW"
    if syntax == JPEGBaseline8Bit:
        ds.PixelData = encapsulate([_saved(picture, "JPEG")] * frames)
        ds["PixelData"].is_undefined_length = True
    elif syntax == RLELossless:
        ds.compress(RLELossless, generate_instance_uid=False)
    data = io.BytesIO()
    ds.save_as(data, enforce_file_format=True)
    return data.getvalue()


def _deep(picture: np.ndarray) -> np.ndarray:
    return picture.astype(np.uint16) * 200


_KINDS: dict[tuple[str, int], Callable[[np.ndarray], bytes]] = {
    (".png", 1): lambda picture: _saved(picture, "PNG"),
    (".jpg", 1): lambda picture: _saved(np.dstack([picture] * 3), "JPEG"),
    (".tif", 3): _tiff,
    (".dcm", 1): _dicom,
    (".PNG", 1): lambda picture: _saved(_deep(picture), "PNG"),
    (".jpeg", 1): lambda picture: _saved(picture, "JPEG", progressive=True),
    (".tiff", 1): lambda picture: _saved(_deep(picture), "TIFF", compression="tiff_lzw"),
    (".DCM", 1): lambda picture: _dicom(_deep(picture)),
    (".dicom", 4): lambda picture: _dicom(picture, frames=4),
    (".ima", 1): lambda picture: _dicom(picture, syntax="1.2.840.10008.1.2.4.50"),
    (".dcm", 2): lambda picture: _dicom(picture, frames=2, syntax="1.2.840.10008.1.2.5"),
}
"""By suffix and number of pictures: what makes the bytes of a file."""


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def _flipped(data: bytes, rng: np.random.Generator, *, within: int | None = None) -> bytes:
    changed = bytearray(data)
    for place in rng.integers(0, min(within or len(data), len(data)), rng.integers(1, 9)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def _header(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes flipped where types keep their headers: at the beginning, and at the end for TIFF."""
    if data[:4] in (b"II*\0", b"MM\0*") and rng.random() < 0.5:
        return _flipped(data[::-1], rng, within=300)[::-1]
    return _flipped(data, rng, within=700)


def _disguised(data: bytes, rng: np.random.Generator) -> bytes:
    """The first bytes of another type."""
    heads = [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"II*\0",
        b"MM\0*",
        bytes(128) + b"DICM",
        b"GIF89a",
        b"BM",
    ]
    head = heads[rng.integers(len(heads))]
    return head + data[len(head) :]


def _bomb(data: bytes, rng: np.random.Generator) -> bytes:
    """Sizes that claim gigapixels, or as many frames; in a type of its own choice."""
    sizes = {b"IHDR": (4, ">II"), b"\xff\xc0": (5, ">HH"), b"\xff\xc2": (5, ">HH")}
    for mark, (offset, form) in sizes.items():
        if (at := data.find(mark)) >= 0 and data[:2] in (b"\x89P", b"\xff\xd8"):
            huge = np.array([60000, 60000], ">u4" if form == ">II" else ">u2").tobytes()
            return data[: at + offset] + huge + data[at + offset + len(huge) :]
    changed = bytearray(data)
    if data[128:132] == b"DICM":
        for element in (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x11\x00US\x02\x00"):
            if (at := data.find(element)) >= 0:
                changed[at + 8 : at + 10] = b"\x60\xea"
        if (at := data.find(b"\x28\x00\x08\x00IS\x02\x00")) >= 0 and rng.random() < 0.5:
            changed = bytearray(data[:at] + b"\x28\x00\x08\x00IS\x0a\x002147483640"[:18] + data[at + 10 :])
        return bytes(changed)
    for tag in (b"\x00\x01", b"\x01\x01"):  # a TIFF's width and height, in either order of bytes
        at = data.find(tag + b"\x03\x00\x01\x00\x00\x00")
        at = data.find(tag + b"\x04\x00\x01\x00\x00\x00") if at < 0 else at
        if at >= 0:
            changed[at + 8 : at + 12] = b"\x60\xea\x00\x00"
    return bytes(changed)


def _noise(data: bytes, rng: np.random.Generator) -> bytes:
    """The header kept, junk behind it."""
    kept = int(rng.integers(0, min(len(data), 400)))
    return data[:kept] + rng.bytes(len(data) - kept)


_SPOILERS: dict[str, Callable[[bytes, np.random.Generator], bytes]] = {
    "cut": _cut,
    "flipped bytes": _flipped,
    "flipped header": _header,
    "another's first bytes": _disguised,
    "bomb": _bomb,
    "swapped suffix": lambda data, _rng: data,
    "junk behind the header": _noise,
    "junk": lambda data, rng: rng.bytes(len(data)),
    "empty": lambda _data, _rng: b"",
    "text": lambda _data, rng: b"patient,finding\n" * int(rng.integers(1, 99)),
}


def main() -> None:
    """Write, run, judge and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="fetal-head")
    parser.add_argument("--limit", type=float, default=600, help="seconds that the run may take")
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        folder, out = Path(name) / "files", Path(name) / "masks"
        folder.mkdir()
        cases = write_cases(folder, args.count, args.seed)
        command = [MHVAE, "segment", str(folder), "-o", f"{out}/", "-m", args.model, "--device", "cpu"]
        begun = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=args.limit)
        except subprocess.TimeoutExpired:
            sys.exit(f"hangs: not done in {args.limit:g} s")
        seconds = time.perf_counter() - begun
        faults = judge(folder, out, cases, done.returncode, done.stderr)
        with (out / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    good = Counter(row["status"] for row in rows)
    named = {Path(row["input"]).name for row in rows if row["status"] == "ok"}
    hows = Counter(case.how for case in cases)
    shown = [
        [how, str(n), str(sum(c.how == how and c.name in named for c in cases))] for how, n in hows.items()
    ]
    table(["how", "files", "of these segmented"], *sorted(shown))
    print(f"{len(cases)} files, {len(rows)} rows: {good['ok']} ok, {good['failed']} failed; ", end="")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )
    print(f"exit code {done.returncode}, {seconds:.0f} s, {peak:.0f} MiB at most")
    faults += [f"on stderr: {line}" for line in strangers(done.stderr)[:9]]
    print(
        "\n".join(faults) or "no crash, no hang, no traceback; every input has a row, every whole one a mask"
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
