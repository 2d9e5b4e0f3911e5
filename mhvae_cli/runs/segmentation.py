"""The workflow of `segment`: scans are read, segmented, measured, checked, and encoded as files."""

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import InputError, ModelError
from ..evaluation import biometry
from ..images.encode import encode_png, encode_tiff
from ..images.read import read_scan
from ..images.render import geojson, overlay, svg
from ..images.scan import Region, Spacing, Window, stored, stored_points
from ..images.spacing import SpacingSources, spacing_of_outline
from ..images.transforms import to_uint8
from ..inference import qc
from ..inference.certainty import Certainty
from ..inference.looking import Position, View, certainty_of, locate, view_of
from ..inference.posterior import draw, probability
from ..inference.provenance import noise_key
from ..inference.qc import QCResult
from ..resources import worker_count
from .console import print_note
from .fingerprint import InputHashes, RunFingerprint
from .measurements import MEASURE_COLUMNS, Fields, Measure, interval_fields, intervals, rounded
from .models import load_networks
from .outputs import Job, Target
from .reporter import Reporter, drive
from .results import Result
from .review.thumbnails import shrink, thumbnail_of
from .settings import RunSettings

if TYPE_CHECKING:
    from ..inference.networks import Networks

Rings = list[np.ndarray]


@dataclass(frozen=True)
class QCOptions:
    """--qc (`level`), --fail-on-qc, --posterior (`samples`), --looks, --tta and --seed."""

    level: Literal["quick", "full", "off"]
    fail: bool
    samples: int
    looks: int
    tta: bool
    seed: int

    def check(self, networks: "Networks") -> None:
        """ModelError for damaged QC statistics, and for --fail-on-qc with a model that has none."""
        if self.level != "off" and networks.qc_statistics is None and self.fail:
            hint = "add them to the model with examples/training/calibrate.py"
            raise ModelError(f"{networks.name}: has no QC statistics, which --fail-on-qc needs", hint=hint)


@dataclass(frozen=True)
class SegmentationOptions:
    """The options of `segment` besides its `RunSettings`.

    `cup_model` segments the cup for `measure` "cup-disc"; `review_page` is the path of --report.
    """

    format: str
    overlay: bool
    window: Window
    measure: Measure | None
    cup_model: str | None
    spacings: SpacingSources
    qc: QCOptions
    review_page: Path | None


@dataclass(frozen=True)
class Localization:
    """The position of an object, and the encoder outputs for QC, if needed."""

    position: Position
    outputs: qc.EncoderOutputs | None = None


@dataclass(frozen=True)
class ScanContext:
    """What is kept of a scan during inference.

    `size` (h, w) upright; `spacing` of the stored pixels, or `regions` that have one each; `pixels` upright,
    if needed for the overlay, and `small`, if needed for the review page; `key` seeds the samples of
    --posterior.
    """

    size: tuple[int, int]
    orientation: int
    spacing: Spacing | None
    regions: tuple[Region, ...]
    pixels: np.ndarray | None
    small: np.ndarray | None
    key: str

    @property
    def stored_size(self) -> tuple[int, int]:
        """(h, w) as stored in the file; EXIF orientations 5 to 8 swap the two."""
        return self.size if self.orientation < 5 else self.size[::-1]

    def stored_rings(self, rings: Sequence[np.ndarray]) -> Rings:
        """An upright outline in the coordinates of the stored pixels."""
        return [stored_points(ring, self.size, self.orientation) for ring in rings]


def segment_jobs(
    jobs: Sequence[Job],
    planned: Sequence[Job],
    target: Target,
    options: SegmentationOptions,
    settings: RunSettings,
    fingerprint: RunFingerprint,
) -> int:
    """Segment, write and report every job; return the exit code. `planned` are those of every shard."""
    todo = [job for job in jobs if not job.skip and job.item.error is None]
    results: Generator[Result | InputError] = (_ for _ in ())
    notes: list[str] = []
    if todo:
        networks, *cup = load_networks(settings, *([options.cup_model] if options.cup_model else []))
        options.qc.check(networks)
        if options.qc.level != "off" and not settings.quiet and (target.folder or settings.as_json):
            notes = missing_statistics(options.qc, networks, *cup)
        fingerprint.networks = networks
        task = SegmentationTask(networks, cup[0] if cup else None, options, fingerprint.hashes)
        results = fingerprint.stream(
            todo,
            load=task.load,
            run=task.run,
            finish=task.finish,
            batch_size=1 if settings.deterministic else settings.batch_size,
            workers=worker_count(settings.workers),
        )
    reporter = Reporter(
        "segment",
        jobs,
        target,
        settings,
        columns=columns(options.measure, options.qc),
        fingerprint=fingerprint,
        planned=planned,
        review_page=options.review_page,
    )
    with closing(results), reporter:
        code = drive(reporter, jobs, results, settings.on_error)
    for note in notes:
        print_note(note)
    return code


@dataclass(frozen=True)
class SegmentationTask:
    """Segments scans: `load`, `run` and `finish` are the three parts that `streaming.stream` calls."""

    networks: "Networks"
    cup: "Networks | None"
    options: SegmentationOptions
    hashes: InputHashes

    @property
    def _all_networks(self) -> "list[Networks]":
        """The networks for the object and, if any, the cup."""
        return [self.networks] if self.cup is None else [self.networks, self.cup]

    def load(self, job: Job) -> tuple[list[View], ScanContext]:
        """Read a scan: its view for each network, and the context for `finish`."""
        item = job.item
        scan = read_scan(item.source, page=item.page, name=item.name, window=self.options.window)
        spacing = self.options.spacings.of(item.name, scan, item.source)
        context = ScanContext(
            size=scan.pixels.shape[:2],
            orientation=scan.orientation,
            spacing=spacing,
            regions=() if spacing else scan.regions,
            pixels=to_uint8(scan.pixels, scan.window) if self.options.overlay else None,
            small=shrink(scan.pixels, scan.window) if self.options.review_page is not None else None,
            key=noise_key(self.hashes.of(item), item.page) if self.options.qc.samples else "",
        )
        return [view_of(each, scan) for each in self._all_networks], context

    def run(self, views: list[list[View]]) -> list[tuple[Localization, ...]]:
        """Localize the objects in a batch of scans, one per network."""
        batches = [list(batch) for batch in zip(*views, strict=True)]
        found = [self._localize(batches[0])]
        if self.cup is not None:
            positions = locate(self.cup, batches[1], looks=self.options.qc.looks)
            found.append([Localization(each) for each in positions])
        return list(zip(*found, strict=True))

    def finish(self, job: Job, context: ScanContext, found: tuple[Localization, ...]) -> Result:
        """Measure, check and encode the segmentation of a scan."""
        outlines = [
            each.contour(localization.position.theta, context.size, localization.position.pose)
            for each, localization in zip(self._all_networks, found, strict=True)
        ]
        upright, *cups = outlines
        rings = context.stored_rings(upright)
        note = None
        if context.regions:
            spacing, note = spacing_of_outline(context.regions, rings)
            context = replace(context, spacing=spacing)
        height, width = context.stored_size
        fields: Fields = {"width": width, "height": height, **self._measure(context, rings)}
        fields["spacing_note"] = note
        if self.options.measure == "cup-disc":
            fields |= rounded(biometry.measure_cup(cups[0], upright))
        certainties = [
            self._certainty(each, localization.position, outline, context.size)
            for each, localization, outline in zip(self._all_networks, found, outlines, strict=True)
        ]
        qc_result = self._check_quality(found[0], upright, certainties[0])
        fields |= {} if qc_result is None else qc_result.fields()
        if self.options.qc.level != "off":
            fields |= interval_fields(fields, certainties, self.options.measure)
        problems = qc_result.why if qc_result is not None and self.options.qc.fail else ()
        probability_files = self._posterior(context, found[0], certainties[0])
        contours = [ring for each in outlines for ring in each]
        pixels = context.pixels
        overlays = [] if pixels is None else [encode_png(overlay(pixels, contours))]
        outline = self._encode_outline(context, found[0].position, rings, fields)
        return Result(
            files=[outline, *overlays, *probability_files],
            fields=fields,
            missed=f"failed quality control: {', '.join(problems)}" if problems else None,
            thumbnail=None if context.small is None else thumbnail_of(context.small, contours, context.size),
        )

    def _localize(self, views: list[View]) -> list[Localization]:
        networks, checks = self.networks, self.options.qc
        outputs: list[qc.EncoderOutputs] = []
        if checks.level != "off" and networks.qc_statistics is not None:
            squares = np.stack([view.square for view in views])
            outputs = networks.examine(squares, recon=checks.level == "full")
        positions = locate(networks, views, looks=checks.looks, tta=checks.tta, first=outputs)
        judged = outputs or repeat(None, len(views))
        return [Localization(*each) for each in zip(positions, judged, strict=True)]

    def _certainty(
        self, networks: "Networks", position: Position, rings: Rings, size: tuple[int, int]
    ) -> Certainty | None:
        """What is certain of a result; None with --qc off, and if it has not been looked at often enough."""
        checks = self.options.qc
        enough = checks.level != "off" and (checks.looks > 1 or not networks.config.fill)
        return certainty_of(networks, position, rings, size) if enough else None

    def _check_quality(
        self, found: Localization, rings: Rings, certainty: Certainty | None
    ) -> QCResult | None:
        statistics = self.networks.qc_statistics
        if self.options.qc.level == "off" or statistics is None or found.outputs is None:
            return None
        jacobian = self.networks.jacobian(found.position.theta)
        expected = None if certainty is None else certainty.dice
        return statistics.judge(found.outputs, rings, jacobian, expected)

    def _measure(self, context: ScanContext, rings: Rings) -> biometry.Figures:
        """The measurement columns of an outline; `rings` in stored pixels."""
        found = dict(biometry.measure(rings, context.spacing))
        if self.options.measure == "fetal-head":
            pen = self.networks.config.pen
            found |= biometry.measure_head(rings, context.stored_size, context.spacing, pen=pen)
        return rounded(found)

    def _posterior(
        self, context: ScanContext, found: Localization, certainty: Certainty | None
    ) -> list[bytes]:
        """For --posterior, the probability map as a PNG."""
        if not self.options.qc.samples:
            return []
        networks, pose = self.networks, found.position.pose
        thetas = draw(
            found.position,
            self.options.qc.samples,
            certainty=certainty,
            seed=self.options.qc.seed,
            key=context.key,
        )
        inside = probability(networks.mask(theta, context.size, pose) for theta in thetas)
        levels = np.rint(inside * 255).astype(np.uint8)
        return [encode_png(stored(levels, context.orientation))]

    def _encode_outline(
        self, context: ScanContext, position: Position, rings: Rings, fields: Fields
    ) -> bytes:
        """The mask or outline as the bytes of a file."""
        if self.options.format == "svg":
            return svg(rings, context.stored_size).encode()
        if self.options.format == "geojson":
            return geojson(rings, fields).encode()
        mask = stored(self.networks.mask(position.theta, context.size, position.pose), context.orientation)
        return encode_png(mask) if self.options.format == "png" else encode_tiff(mask)


def columns(measure: Measure | None, options: QCOptions) -> tuple[str, ...]:
    """All columns that `SegmentationTask.finish` may fill, in the order of the table."""
    judged = qc.COLUMNS if options.level != "off" else ()
    spans = intervals(measure) if options.level != "off" else ()
    ends = tuple(f"{name}_{end}" for name in spans for end in ("low", "high"))
    return ("width", "height", *biometry.COLUMNS, "spacing_note", *MEASURE_COLUMNS[measure], *judged, *ends)


def missing_statistics(options: QCOptions, *models: "Networks") -> list[str]:
    """What to tell the user of columns that will be empty."""
    hint = "examples/training/calibrate.py measures them"
    notes = [
        f"note: {networks.name}: has no statistics for quality control and intervals, or those of an earlier"
        f" version, so these columns are empty; {hint}"
        for networks in models
        if networks.qc_statistics is None
    ]
    if options.looks == 1 and any(each.error_model is not None and each.config.fill for each in models):
        notes.append("note: dice_expected and the intervals need two looks, so these columns are empty")
    return notes
