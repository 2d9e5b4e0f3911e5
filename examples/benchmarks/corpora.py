"""What Pillow, pydicom or tifffile and mhvae read of image files that others wrote, and if it is the same.

    python examples/benchmarks/corpora.py [--folder CORPORA] [--limit 30] [--verbose]

pip fetches the test images of Pillow and imagecodecs, from their source distributions, and pydicom-data to
CORPORA, once; those of pydicom, which is needed, are part of it. tifffile, imagecodecs and pylibjpeg take
part where they are installed. Each file is read in two processes, one per reader, each with a time limit. A
page that only one side reads, or whose pixels differ, must be in corpora.csv with its reason; no file may
hang mhvae or raise anything but its own error.

Pixels are the same if they are equal, or equal up to the changes that `read_scan` documents: alpha on black,
palettes as colours, and for grey values a line (the offset of signed values, inversion, stretching).
"""

import argparse
import csv
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pydicom
from common import table
from PIL import Image, ImageOps
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

from mhvae_cli.errors import InputError
from mhvae_cli.images.read import count_pages, read_scan

try:
    import tifffile
except ImportError:
    tifffile = None

PAGES = 12
"""The most pages of a file that are compared."""
LIST = Path(__file__).with_suffix(".csv")
SDISTS = {"pillow": "*/Tests/images/*", "imagecodecs": "*/tests/*"}


@dataclass
class Read:
    """What a reader made of a file: an array a page, None for one that it does not read, and why."""

    pages: list[np.ndarray | None] = field(default_factory=list)
    why: str = ""
    format: str = ""
    fault: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


# Readers


def ours(path: Path) -> Read:
    """By mhvae: the stored values, or upright colours."""
    found = Read()
    try:
        count = count_pages(path)
    except InputError as error:
        return Read([None], str(error).removeprefix(f"{path}: "))
    for page in range(min(count, PAGES)):
        try:
            found.pages.append(read_scan(path, page=page).pixels)
        except InputError as error:
            found.pages.append(None)
            found.why = str(error).removeprefix(f"{path}: ")
    return found


def theirs(path: Path) -> Read:
    """By pydicom for DICOM, by tifffile for TIFF, if it and the page allow, else by Pillow."""
    with path.open("rb") as file:
        head = file.read(132)
    if head[128:] == b"DICM" or path.suffix == ".dcm":
        return _by(_pydicom, path, "DICOM")
    found = _by(_pillow, path, "")
    if tifffile is not None and head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        other = _by(_tifffile, path, "TIFF")
        pairs = zip(other.pages, [*found.pages, *[None] * PAGES], strict=False)
        found = Read([a if a is not None else b for a, b in pairs] or found.pages, format="TIFF")
    return found


def _by(reader: Callable[[Path], Iterator[np.ndarray | str | None]], path: Path, form: str) -> Read:
    found = Read(format=form)
    try:
        for page in reader(path):
            if isinstance(page, str):
                found.format = page
            else:
                found.pages.append(page)
            if len(found.pages) == PAGES:
                break
    except Exception as error:  # theirs to raise
        found.pages.append(None)
        found.why = f"{type(error).__name__}: {error}"[:90]
    return found


def _pillow(path: Path) -> Iterator[np.ndarray | str]:
    with Image.open(path) as image:
        yield str(image.format)
        for page in range(getattr(image, "n_frames", 1) if image.format == "TIFF" else 1):
            if page:
                image.seek(page)
            image.load()
            turned = ImageOps.exif_transpose(image)
            yield _plain(turned)


def _plain(image: Image.Image) -> np.ndarray:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.has_transparency_data:
        grey = image.mode in ("L", "LA", "La")
        values = np.asarray(image.convert("LA" if grey else "RGBA")).astype(float)
        black = np.rint(values[..., :-1] * (values[..., -1:] / 255)).astype(np.uint8)
        return black[..., 0] if grey else black
    return np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))


def _tifffile(path: Path) -> Iterator[np.ndarray | None]:
    """None for pages that are left to Pillow."""
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            name = page.photometric.name
            if name not in ("MINISBLACK", "MINISWHITE", "RGB") or page.compression in (6, 7):
                yield None
                continue
            values = page.asarray()
            if page.planarconfig == 2 and values.ndim == 3:
                values = np.moveaxis(values, 0, -1)
            if name == "MINISWHITE" and values.dtype.kind == "u":
                values = (1 if page.bitspersample == 1 else np.iinfo(values.dtype).max) - values
            if values.dtype == bool or page.bitspersample < 8:
                values = values.astype(np.uint8) * (255 // (2**page.bitspersample - 1))
            if values.ndim == 3 and values.shape[2] == 4:
                values = _on_black(values, premultiplied=tuple(page.extrasamples) == (1,))
            tag = page.tags.get(274)
            yield _turned(values, tag.value if tag else 1)


def _on_black(values: np.ndarray, *, premultiplied: bool) -> np.ndarray:
    if premultiplied or values.dtype.kind != "u":
        return values[..., :3]
    top = np.iinfo(values.dtype).max
    return np.rint(values[..., :3] * (values[..., 3:] / top)).astype(values.dtype)


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    turns = {2: np.fliplr, 3: lambda it: np.rot90(it, 2), 4: np.flipud, 6: lambda it: np.rot90(it, -1)}
    turns |= {8: np.rot90, 5: lambda it: np.rot90(np.fliplr(it)), 7: lambda it: np.rot90(np.fliplr(it), -1)}
    return turns.get(orientation, lambda it: it)(values)


def _pydicom(path: Path) -> Iterator[np.ndarray]:
    header = pydicom.dcmread(path, force=True)
    if "PixelData" not in header:
        raise ValueError("no pixel data")
    for page in range(int(header.get("NumberOfFrames") or 1)):
        values = pixel_array(path, index=page)
        if header.PhotometricInterpretation == "PALETTE COLOR":
            values = apply_color_lut(values, header)
            values = values >> 8 if values.dtype == np.uint16 else values
        elif header.get("VOILUTSequence"):
            values = apply_voi_lut(apply_modality_lut(values, header), header)
        yield values


# Comparison


def difference(mine: np.ndarray, others: np.ndarray) -> str:
    """Empty if two pages have the same pixels."""
    if mine.shape != others.shape:
        return f"{mine.shape}, not {others.shape}"
    if np.array_equal(mine, others):
        return ""
    high = mine.dtype == np.uint16 and others.dtype == np.uint8  # Pillow's colours of 16 bits
    if high and np.abs((mine >> 8).astype(int) - others).max() <= 1:
        return ""
    here, there = mine.astype(float).ravel(), others.astype(float).ravel()
    fine = np.isfinite(there) & (np.abs(there) < 3.4e38)
    inside = fine & (here > here.min()) & (here < here.max())  # what is clipped lies on no line
    if np.ptp(there[fine]) == 0 or not inside.any():
        return "" if np.ptp(here[fine]) == 0 or not inside.any() else "constant"
    slope, shift = (
        np.polyfit(there[inside], here[inside], 1) if np.ptp(there[inside]) else (0.0, here[inside][0])
    )
    worst = np.abs(here - slope * there - shift)[inside].max()
    colours = mine.ndim == 3 and mine.dtype == np.uint8
    return "" if worst <= 1 and not colours else f"up to {np.abs(here - there)[fine].max():g} levels"


def alone(reader: Callable[[Path], Read], path: Path, limit: int) -> Read:
    """What a reader makes of a file in a process of its own."""
    receive, send = os.pipe()
    begun = time.perf_counter()
    child = os.fork()
    if not child:
        os.close(receive)
        signal.alarm(limit)
        warnings.simplefilter("ignore")
        try:
            found = reader(path)
        except BaseException:
            found = Read([None], fault=traceback.format_exc())
        with os.fdopen(send, "wb") as pipe:
            pickle.dump(found, pipe)
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        data = pipe.read()
    _, status, usage = os.wait4(child, 0)
    ended = os.waitstatus_to_exitcode(status)
    hangs = ended == -signal.SIGALRM
    fault = f"not done in {limit} s" if hangs else f"ended with {ended}"
    found = pickle.loads(data) if ended == 0 else Read([None], fault=fault)
    found.seconds, found.megabytes = time.perf_counter() - begun, usage.ru_maxrss / 1024
    return found


# Corpora


def fetch(folder: Path) -> dict[str, list[Path]]:
    """The files of each corpus, unpacked below `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for package, pattern in SDISTS.items():
        if not list(folder.glob(f"{package}-*")):
            _unpack(_download(folder, package, "--no-binary", package), folder, pattern)
    if not (folder / "pydicom_data").exists():
        _unpack(_download(folder, "pydicom-data"), folder / "pydicom_data", "*")
    inside = Path(pydicom.__file__).parent / "data" / "test_files"
    corpora = {"Pillow": folder.glob("pillow-*/**/*"), "imagecodecs": folder.glob("imagecodecs-*/**/*")}
    corpora |= {"pydicom": inside.rglob("*"), "pydicom-data": folder.glob("pydicom_data/**/*")}
    others = (".py", ".txt", ".json", ".csv", ".md")
    return {
        name: sorted(it for it in paths if it.is_file() and it.suffix not in others)
        for name, paths in corpora.items()
    }


def _download(folder: Path, package: str, *options: str) -> Path | None:
    """A package's file by pip, of the version that is installed, if it is; None if there is none."""
    with suppress(ImportError):
        package = f"{package}=={version(package)}"
    before = set(folder.iterdir())
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        *options,
        "-d",
        str(folder),
        package,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    new = sorted(set(folder.iterdir()) - before)
    if done.returncode or not new:
        print(f"{package}: not to be had with pip, left out", file=sys.stderr)
        return None
    return new[0]


def _unpack(archive: Path | None, folder: Path, pattern: str) -> None:
    if archive is None:
        return
    if archive.suffix == ".whl":
        zipfile.ZipFile(archive).extractall(folder)
        return
    with tarfile.open(archive) as tar:
        members = [it for it in tar.getmembers() if fnmatch(it.name, pattern)]
        tar.extractall(folder, members, filter="data")


def reason(listed: list[dict[str, str]], path: Path, outcome: tuple[str, str], form: str) -> str:
    """The reason in corpora.csv for an outcome and its detail, by the file's name or format; "" if none."""
    for row in listed:
        fits = fnmatch(path.name, row["file"]) or row["file"] == f"format {form}"
        if fits and row["outcome"] == outcome[0] and fnmatch(outcome[1], row["detail"]):
            return row["reason"]
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("corpora"))
    parser.add_argument("--limit", type=int, default=30, help="seconds per file and reader")
    parser.add_argument("--verbose", action="store_true", help="print each listed page, too")
    args = parser.parse_args()
    with LIST.open(newline="") as file:
        listed = list(csv.DictReader(file))
    heads = ["corpus", "files", "pages", "both", "neither", "theirs only", "ours only", "differ", "unlisted"]
    rows, faults = [], []
    for name, paths in fetch(args.folder).items():
        counts: Counter[str] = Counter()
        seconds, megabytes = np.zeros(2), np.zeros(2)
        for path in paths:
            reads = [alone(reader, path, args.limit) for reader in (theirs, ours)]
            seconds += [it.seconds for it in reads]
            megabytes = np.maximum(megabytes, [it.megabytes for it in reads])
            if reads[1].fault:
                faults.append(f"{path}: {reads[1].fault}")
            counts["files"] += 1
            for page, outcome in enumerate(outcomes(*reads)):
                what, detail = outcome
                counts["pages"] += 1
                counts[what] += 1
                counts["both"] += what == "differ"
                if what not in ("theirs only", "ours only", "differ"):
                    continue
                why = reason(listed, path, outcome, reads[0].format)
                if not why:
                    counts["unlisted"] += 1
                    faults.append(f"{path}, page {page}: {what} ({reads[0].format}): {detail}")
                elif args.verbose:
                    print(f"{path.name}, page {page}: {what}: {why}")
        rows.append([name, *(str(counts[head]) for head in heads[1:])])
        rows[-1] += [f"{seconds[1] / seconds[0]:.1f} x", *(f"{it:.0f}" for it in megabytes)]
    table([*heads, "time", "their MiB", "our MiB"], *rows)
    print("\n".join(faults) or "no hang, no traceback; all that differs is listed")
    sys.exit(1 if faults else 0)


def outcomes(others: Read, mine: Read) -> Iterator[tuple[str, str]]:
    """For each page both, neither, theirs only, ours only or differ; and a detail."""
    for page in range(max(len(others.pages), len(mine.pages))):
        them, us = (it.pages[page] if page < len(it.pages) else None for it in (others, mine))
        if them is None:
            yield ("neither" if us is None else "ours only"), others.why
        elif us is None:
            yield "theirs only", mine.why or mine.fault
        else:
            detail = difference(us, them)
            yield ("differ" if detail else "both"), detail


if __name__ == "__main__":
    main()
