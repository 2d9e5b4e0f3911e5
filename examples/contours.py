"""Draw examples/contours.png, the README's picture: the bundled models' outlines on the example scans.

    python examples/contours.py
"""

from pathlib import Path

from mhvae_cli import Pipeline
from mhvae_cli.imaging import encode_png, read_scan, write_atomic
from mhvae_cli.render import overlay, sheet

HERE = Path(__file__).parent


def row(model: str, pattern: str) -> list:
    """The scans that match, each with the exact outline that the model finds."""
    pipeline = Pipeline.load(model)
    scans = [read_scan(path).pixels for path in sorted((HERE / "scans").glob(pattern))]
    return [overlay(scan, pipeline.segment(scan).contour()) for scan in scans]


if __name__ == "__main__":
    rows = [row("fetal-head", "head*.png"), row("skin-lesion", "lesion*.png")]
    write_atomic(HERE / "contours.png", encode_png(sheet(rows, cell=220)))
