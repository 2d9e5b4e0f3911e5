"""Play a lab's night: a folder of scans as scanners leave them, one command, and what the morning finds.

    python examples/night.py [night/]

The scans are synthetic heads, as 8- and 16-bit PNGs, a TIFF of three pages and, if pydicom is installed,
DICOM files with the size of their pixels. Among them are a file that was cut off, a black frame, and a skin
lesion that somebody dropped into the wrong folder.
"""

import csv
import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from mhvae_cli.training.phantoms import phantom

SIZE = (540, 800)
PATIENT = "Doe^Jane"
MHVAE = str(Path(sys.executable).with_name("mhvae"))
COMMAND = "segment scans -o results/ --measure fetal-head --posterior 50 --report night.html"


def head(number: int) -> np.ndarray:
    """A synthetic ultrasound of a head, uint8 (540, 800)."""
    return phantom("fetal-head", number, SIZE)[0]


def write_scans(folder: Path) -> None:
    """What came in during the day."""
    folder.mkdir(parents=True)
    for number in range(6):
        Image.fromarray(head(number)).save(folder / f"case_{number:02d}.png")
    for number in (6, 7):  # 12 bits of 16, as many scanners use them
        Image.fromarray(head(number).astype(np.uint16) * 16).save(folder / f"case_{number:02d}.png")
    first, *others = (Image.fromarray(head(number)) for number in (8, 9, 10))
    first.save(folder / "case_08.tif", save_all=True, append_images=others)
    if importlib.util.find_spec("pydicom"):
        for number in range(11, 15):
            write_dicom(folder / f"case_{number:02d}.dcm", head(number), spacing=0.14 + 0.01 * (number % 3))
    else:
        print("no pydicom here, so no DICOM files: pip install 'mhvae[dicom]'")
    whole = (folder / "case_00.png").read_bytes()
    (folder / "cut_off.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "black.png")
    Image.fromarray(phantom("skin-lesion", 3, SIZE)[0]).save(folder / "lesion.png")


def write_dicom(path: Path, pixels: np.ndarray, spacing: float) -> None:
    """An ultrasound image file with pixels of `spacing` mm and a patient's name, which must not get out."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.file_meta.MediaStorageSOPClassUID = file.SOPClassUID = UltrasoundImageStorage
    file.file_meta.MediaStorageSOPInstanceUID = file.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    file.PatientName, file.PatientID, file.Modality = PATIENT, "4711", "US"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.PixelSpacing = [spacing, spacing]
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)


def run(folder: Path, command: str) -> None:
    """Run the command in a folder, and show it with the end of what it says and its exit code."""
    print(f"\n$ mhvae {command}")
    environment = {**os.environ, "MHVAE_PROGRESS": "off"}
    argv = [MHVAE, *command.split()]
    ended = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True)
    print(ended.stderr.rstrip())
    print(f"exit code {ended.returncode}, {len(ended.stdout.splitlines())} files written")


def tell(folder: Path) -> None:
    """What results.csv holds: how many, whom to look at, and the circumferences that are in mm."""
    with (folder / "results" / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    print(
        "\nresults.csv:", ", ".join(f"{count} {kind}" for kind, count in Counter(map(outcome, rows)).items())
    )
    for row in rows:
        if outcome(row) != "ok":
            print(f"  {outcome(row):8}{row['input']:20}page {row['page']}  {row['error'] or row['qc_why']}")
    print("head circumference, with its 90 % interval:")
    for row in filter(lambda row: row["hc_mm"], rows):
        value, low, high = (float(row[name]) for name in ("hc_mm", "hc_mm_low", "hc_mm_high"))
        print(f"  {row['input']:20}{value:6.1f} mm  ({low:.1f} to {high:.1f})")


def outcome(row: dict[str, str]) -> str:
    """failed, flagged or ok."""
    return "failed" if row["status"] == "failed" else "flagged" if row["qc"] == "warn" else "ok"


def main() -> None:
    """The night, the morning, and the same command again."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "night")
    if folder.exists():
        sys.exit(f"{folder}: exists already; name another folder")
    write_scans(folder / "scans")
    run(folder, COMMAND)
    tell(folder)
    written = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "scans"]
    leaks = [path for path in written if PATIENT.encode() in path.read_bytes()]
    size = (folder / "night.html").stat().st_size / 1000
    print(f"night.html: {size:.0f} kB; files that tell the patient's name: {len(leaks)}")
    run(folder, COMMAND + " --existing skip")


if __name__ == "__main__":
    main()
