"""The options of `mhvae segment` alone."""

from pathlib import Path
from typing import Annotated, Literal

from ..runs.invocation import NEUTRAL
from .options import MEASURE_PANEL, option

_PANEL = "How far to trust it"

Measure = Annotated[
    Literal["fetal-head", "cup-disc"] | None,
    option(
        "--measure",
        help="fetal-head: head circumference, BPD (outer to outer) and OFD of the ellipse along the skull."
        " cup-disc: vertical and area ratio of the cup that --cup-model finds to the disc of --model.",
        panel=MEASURE_PANEL,
        show_default=False,
    ),
]

CupModel = Annotated[
    str | None,
    option(
        "--cup-model",
        metavar="REF",
        help="The model that finds the cup, for --measure cup-disc; named as --model is.",
        panel=MEASURE_PANEL,
        show_default=False,
    ),
]

SpacingCsv = Annotated[
    Path | None,
    option(
        "--spacing-csv",
        metavar="FILE",
        help="The same by input: columns filename, and spacing or spacing_x and spacing_y. It comes first.",
        panel=MEASURE_PANEL,
        show_default=False,
    ),
    NEUTRAL,
]

TrustDpi = Annotated[
    bool,
    option(
        "--trust-dpi",
        help="Take the resolution that a TIFF is labelled with, where nothing else is known.",
        panel=MEASURE_PANEL,
    ),
]

Tta = Annotated[
    bool,
    option(
        "--tta",
        help="Average what is found in the image and in its three mirror images: a little more exact, and the"
        " network takes four times as long. A cup is found in the image alone.",
        panel=_PANEL,
    ),
]

Qc = Annotated[
    Literal["quick", "full", "off"],
    option(
        "--qc",
        help="Judge each result by how usual its image is for the model: qc and qc_why in results.csv. full"
        " compares the image with the VAE's own picture of it too, which takes half as long again.",
        panel=_PANEL,
    ),
]

FailOnQc = Annotated[
    bool,
    option("--fail-on-qc", help="Exit with 8 if any result is flagged; all are written.", panel=_PANEL),
    NEUTRAL,
]

Posterior = Annotated[
    int | None,
    option(
        "--posterior",
        metavar="N",
        min=20,
        help="Also draw N outlines that the object could have: NAME__probability.png, the part of them that"
        " each pixel is in (0 to 255), and 90 % intervals in results.csv.",
        panel=_PANEL,
        show_default=False,
    ),
]

Page = Annotated[
    Path | None,
    option(
        "--report",
        metavar="FILE",
        help="Also write one HTML page to review the run on: for each input a small picture with the contour,"
        " what is measured, and what is flagged. It asks for nothing outside itself.",
        show_default=False,
    ),
    NEUTRAL,
]
