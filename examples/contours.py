"""Draw examples/contours.png, the README's picture: the bundled models' outlines on the example scans.

python examples/contours.py
"""

from pathlib import Path

from mhvae_cli import Pipeline
from mhvae_cli.filesystem import write_atomic
from mhvae_cli.images.encode import encode_png
from mhvae_cli.images.read import read_scan
from mhvae_cli.images.render import overlay, sheet

HERE = Path(__file__).parent


def row(model: str, folder: str) -> list:
    """A folder's scans, each with the exact outline that the model finds."""
    pipeline = Pipeline.load(model)
    scans = [read_scan(path).pixels for path in sorted((HERE / folder / "images").iterdir())]
    return [overlay(scan, pipeline.segment(scan).contour()) for scan in scans]


if __name__ == "__main__":
    rows = [row("fetal-head", "heads"), row("skin-lesion", "lesions")]
    write_atomic(HERE / "contours.png", encode_png(sheet(rows, cell=220)))
