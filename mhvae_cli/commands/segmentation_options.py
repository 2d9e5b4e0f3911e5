"""The options of `mhvae segment` alone."""

from pathlib import Path
from typing import Annotated, Literal

from ..runs.invocation import NEUTRAL
from .options import option

MEASURE_PANEL, _PANEL = "Measurements", "Quality control and uncertainty"

Measure = Annotated[
    Literal["fetal-head", "cup-disc"] | None,
    option(
        "--measure",
        help="fetal-head: head circumference, BPD (outer to outer) and OFD of an ellipse fitted to the skull."
        " cup-disc: vertical and area cup-to-disc ratio, with the disc from --model and the cup from"
        " --cup-model.",
        panel=MEASURE_PANEL,
        show_default=False,
    ),
]

CupModel = Annotated[
    str | None,
    option(
        "--cup-model",
        metavar="REF",
        help="Model that segments the cup for --measure cup-disc, given as for --model.",
        panel=MEASURE_PANEL,
        show_default=False,
    ),
]

Spacing = Annotated[
    str | None,
    option(
        "--spacing",
        metavar="S|X,Y",
        help="Pixel width and height of all inputs in mm, in the stored orientation.",
        panel=MEASURE_PANEL,
        show_default="from DICOM metadata, else unknown",
    ),
]

SpacingCsv = Annotated[
    Path | None,
    option(
        "--spacing-csv",
        metavar="FILE",
        help="CSV of pixel sizes per input, which takes precedence over --spacing: columns filename, and"
        " spacing or spacing_x and spacing_y.",
        panel=MEASURE_PANEL,
        show_default=False,
    ),
    NEUTRAL,
]

TrustDpi = Annotated[
    bool,
    option(
        "--trust-dpi",
        help="Use the resolution tag of a TIFF file if no other pixel size is known.",
        panel=MEASURE_PANEL,
    ),
]

Looks = Annotated[
    int,
    option(
        "--looks",
        min=1,
        max=2,
        help="2: find each object again in a crop around it, if that is smaller than the image. More"
        " accurate, but inference takes almost twice as long.",
        panel=_PANEL,
    ),
]

Tta = Annotated[
    bool,
    option(
        "--tta",
        help="Test-time augmentation: average the results for the image and its three mirror images. Slightly"
        " more accurate, but inference takes four times as long. Not applied to --cup-model.",
        panel=_PANEL,
    ),
]

Qc = Annotated[
    Literal["quick", "full", "off"],
    option(
        "--qc",
        help="Quality control, in columns of results.csv: foreign flags images unlike the training data, and"
        " doubtful results whose expected Dice is low; qc is warn for either, and qc_why says why. Also adds"
        " 90 % intervals of measurements. full also compares the image with its VAE reconstruction and takes"
        " 50 % longer.",
        panel=_PANEL,
    ),
]

FailOnQc = Annotated[
    bool,
    option(
        "--fail-on-qc",
        help="Exit with code 8 if any result is flagged; all results are still written.",
        panel=_PANEL,
    ),
    NEUTRAL,
]

Posterior = Annotated[
    int | None,
    option(
        "--posterior",
        metavar="N",
        min=20,
        help="Also sample N plausible outlines from the posterior. Writes NAME__probability.png, the fraction"
        " of outlines that contain each pixel (0 to 255).",
        panel=_PANEL,
        show_default=False,
    ),
]

ReviewPage = Annotated[
    Path | None,
    option(
        "--report",
        metavar="FILE",
        help="Also write a self-contained HTML page to review the run: thumbnail with contour, measurements"
        " and quality flags for each input.",
        show_default=False,
    ),
    NEUTRAL,
]
