"""The row of a generated image: does it show the object of its mask, and is it new?"""

from dataclasses import replace
from typing import TYPE_CHECKING

from .generation_jobs import GenerationResult
from .outputs import Job
from .results import Result

if TYPE_CHECKING:
    from ..inference.networks import Networks


class Judge:
    """Judges the images of one run; with `audit` also by their distance to the training images.

    ModelError for a model without an index of these.
    """

    def __init__(self, networks: "Networks", *, audit: bool) -> None:
        from ..inference.audit import load_audit

        self.networks = networks
        self.audit = load_audit(networks) if audit else None

    def result(self, job: Job, made: GenerationResult, made_by: str | None) -> Result:
        """The files and the row of a generated image, with a warning if it is flagged."""
        from ..inference.qc import LEAST_DICE, judge_generated

        dice, distance = made.row["dice"], self._training_distance(made)
        quality = judge_generated(dice, distance)
        row = {**made.row, **quality, "mask": str(job.outputs[1]) if job.outputs else None}
        if distance is not None:
            row["training_distance"] = round(distance, 3)
        doubt = "the image may not show the object of its mask"
        words = {
            "dice": f"dice {dice:g}, below {LEAST_DICE:g}: {doubt}",
            "training_distance": "closer to a training image than 99 % of new images are",
        }
        warning = "; ".join(words[why] for why in quality["qc_why"].split(";") if why) or None
        return Result(made.files, row, missed=made.missed, warning=warning, made_by=made_by)

    def _training_distance(self, made: GenerationResult) -> float | None:
        from ..images.scan import scan_of

        if self.audit is None:
            return None
        picture = made.picture
        return self.audit.distance(self.networks, replace(scan_of(picture.pixels), window=picture.window))
