"""What `segment` tells of trust: whether a result is usual, and which other outlines it could have."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from ..inference.pipeline import Pipeline
    from ..inference.qc import Evidence

Fields = dict[str, Any]
INTERVALS = ("area_px", "area_mm2")
HEAD_INTERVALS = ("hc_px", "hc_mm")


@dataclass(frozen=True)
class Located:
    """Where an object is, `theta` (P,), and what it is judged by, if anything."""

    theta: "np.ndarray"
    evidence: "Evidence | None"


@dataclass(frozen=True)
class Judging:
    """--qc, --fail-on-qc, --posterior, --tta and --seed; `measure` says what has intervals."""

    qc: str
    fail: bool
    draws: int
    tta: bool
    seed: int
    measure: str | None

    def __post_init__(self) -> None:
        if self.fail and self.qc == "off":
            raise UsageError("--fail-on-qc and --qc off exclude each other")

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of what `fields` and `drawn` give."""
        from ..inference.qc import COLUMNS

        return (*(COLUMNS if self.qc != "off" else ()), *(f"{n}_{end}" for n in self._spans for end in _ENDS))

    @property
    def endings(self) -> list[str]:
        """Of the files that `drawn` gives."""
        return ["__probability.png"] if self.draws else []

    def check(self, pipeline: "Pipeline") -> None:
        """ModelError if results are to be judged by a model that has nothing to judge by."""
        if self.fail and pipeline.trust is None:
            hint = "examples/training/calibrate.py measures them for a model that was trained without"
            raise ModelError(f"{pipeline.name}: has no statistics for --fail-on-qc", hint=hint)

    def locate(self, pipeline: "Pipeline", batch: "np.ndarray") -> list[Located]:
        """Where the object of each `prepare`d image (B, C, S, S) is."""
        if not self.draws and not self.tta and (self.qc == "off" or pipeline.trust is None):
            return [Located(theta, None) for theta in pipeline.locate(batch)]
        found = pipeline.examine(batch, recon=self.qc == "full", tta=self.tta)
        return [Located(each.theta, each) for each in found]

    def fields(
        self, pipeline: "Pipeline", located: Located, rings: "Sequence[np.ndarray]"
    ) -> tuple[Fields, str | None]:
        """The columns that judge an outline, and the quality gate that it misses."""
        if self.qc == "off" or pipeline.trust is None or located.evidence is None:
            return {}, None
        verdict = pipeline.trust.judge(located.evidence, rings)
        return (
            verdict.fields(),
            f"not to be trusted: {', '.join(verdict.why)}" if self.fail and verdict.why else None,
        )

    def key(self, source: Any, page: int) -> str:
        """The name of an input's draws: of its bytes; "" if there are none."""
        from ..hashing import sha256_of
        from ..inference.synthesis import noise_key

        return noise_key(sha256_of(source), page) if self.draws else ""

    def drawn(
        self,
        pipeline: "Pipeline",
        located: Located,
        *,
        size: tuple[int, int],
        orientation: int,
        key: str,
        figures: "Callable[[list[np.ndarray]], Fields]",
    ) -> tuple[list[bytes], Fields]:
        """The map of the mask's probability as a PNG, stored, and the columns of 90 % intervals.

        `figures` measures an outline as it is stored. No files and no columns without --posterior.
        """
        if not self.draws or located.evidence is None:
            return [], {}
        import numpy as np

        from ..images.encode import encode_png
        from ..images.scan import stored, stored_points
        from ..inference.posterior import interval

        thetas = pipeline.draws(located.evidence, self.draws, seed=self.seed, key=key)
        levels = np.rint(pipeline.probability(thetas, size) * 255).astype(np.uint8)
        rows = [
            figures([stored_points(ring, size, orientation) for ring in pipeline.contour(theta, size)])
            for theta in thetas
        ]
        found: Fields = {}
        for name in self._spans:
            ends = interval([row[name] for row in rows])
            found |= {f"{name}_{end}": _short(value) for end, value in zip(_ENDS, ends, strict=True)}
        return [encode_png(stored(levels, orientation))], found

    @property
    def _spans(self) -> tuple[str, ...]:
        if not self.draws:
            return ()
        return INTERVALS + (HEAD_INTERVALS if self.measure == "fetal-head" else ())


_ENDS = ("low", "high")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")
