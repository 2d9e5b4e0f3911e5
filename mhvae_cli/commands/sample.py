"""`mhvae sample -n N --out SET/`: new pictures and masks, from the model alone (figure 10, appendix G)."""

import json
import re
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import typer

from ..errors import ModelError, UsageError
from ..runs.generation import generate
from ..runs.generation_jobs import GenerationRequest
from ..runs.invocation import NEUTRAL
from ..runs.outputs import Job
from ..runs.results import Table
from ..runs.settings import GenerationSettings
from .generation_options import generative

if TYPE_CHECKING:
    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, Source

EXAMPLES = (
    "mhvae sample -n 100 --min-dice 0.9 --tries 4 --out set/",
    "mhvae sample -n 8 --model skin-lesion --layout nnunet --out Dataset001/",
)

Codes = Literal["density", "prior"]
Layout = Literal["data", "flat", "nnunet"]


@generative(without=("from_file", "recursive", "window", "save_latents"))
def sample(
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="How many pictures."), NEUTRAL],
    start: Annotated[
        int,
        typer.Option(
            "--start",
            min=0,
            metavar="I",
            help="Number of the first. Picture I depends on I and --seed alone, so that a set can grow.",
        ),
        NEUTRAL,
    ] = 0,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="WxH",
            help="Of a picture, in pixels.",
            show_default="the training images' median, or the model's square",
        ),
    ] = None,
    codes: Annotated[
        Codes,
        typer.Option(
            "--codes",
            help="What codes are drawn from: the density of the training images' codes, kept with the cDDPM,"
            " or the prior N(0, I), from which those differ.",
        ),
    ] = "density",
    layout: Annotated[
        Layout,
        typer.Option(
            "--layout",
            help="data is what train-vae --data reads; flat one folder; nnunet that of nnU-Net 2, with labels"
            " 0 and 1.",
        ),
    ] = "data",
    *,
    settings: GenerationSettings,
) -> None:
    """Draw new pictures and their masks, to train with.

    --out set/ becomes a folder of images/, masks/ (0 and 255, of the same
    names), latents/ (their codes, which other verbs take as inputs) and
    index.csv, with a subject a picture: sample_s0_000000.png is number 0 of
    --seed 0. flat has NAME.png, NAME_mask.png and the codes side by side;
    nnunet has imagesTr/NAME_0000.png, labelsTr/NAME.png, latents/ and
    dataset.json. A code whose object has no pixel in the picture is drawn
    again. Each picture is segmented again: --min-dice 0.9 --tries 4 tells of
    pairs that disagree. --existing skip goes on with a set that was cut.
    """
    if layout == "nnunet" and settings.format == "tiff":
        raise UsageError("--layout nnunet is of PNGs", hint="leave --format out")
    given = None if size is None else _parse_size(size)
    model = {} if settings.dry_run else _look(settings, codes)
    how: _How = {"seed": settings.seed, "size": given or _default_size(model)}
    requests = [
        GenerationRequest(
            (),
            **_places(layout, f"sample_s{settings.seed}_{index:06d}"),
            label=1 if layout == "nnunet" else 255,
            edit=partial(_drawn, codes, index, how),
            record={"edit": {"index": index, "codes": codes}},
        )
        for index in range(start, start + count)
    ]
    words = ["-n", str(count), *(["--start", str(start)] if start else [])]
    words += [*(["--size", size] if size else []), *([] if codes == "density" else ["--codes", codes])]
    book = DatasetIndex(layout, Path(settings.out or "."), model)
    kept = replace(settings, save_latents=settings.out != "-")
    many = layout != "flat" or count > 1
    with closing(book):
        code = generate("sample", requests, kept, many=many, words=words, titles=[], settled=book.add)
    raise typer.Exit(code)


def _parse_size(text: str) -> tuple[int, int]:
    """`WxH` as (h, w)."""
    from ..images.scan import MAX_PIXELS

    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text)
    if not match:
        raise UsageError(f"--size {text}: not WxH", hint="--size 640x480")
    width, height = int(match[1]), int(match[2])
    if not 0 < width * height <= MAX_PIXELS:
        raise UsageError(f"--size {text}: from 1 to {MAX_PIXELS // 1_000_000} million pixels")
    return height, width


class _How(TypedDict):
    seed: int
    size: tuple[int, int]


class _Places(TypedDict):
    stem: PurePath
    mask: NotRequired[PurePath]
    latents: NotRequired[PurePath]


def _look(settings: GenerationSettings, codes: Codes) -> dict[str, Any]:
    """The model's config.json; ModelError if it cannot draw such pictures."""
    from ..checkpoints.folder import read_config
    from ..checkpoints.registry import resolve

    content = read_config(resolve(settings.model, offline=settings.offline))
    if "cddpm" not in content and (codes == "density" or not settings.no_refine):
        lacks = "has no cDDPM, which refines pictures and keeps the density of the codes"
        hint = "--no-refine --codes prior needs none; train-cddpm trains one"
        raise ModelError(f"{content['name']}: {lacks}", hint=hint)
    return content


def _default_size(content: dict[str, Any]) -> tuple[int, int]:
    side = content.get("model", {}).get("image_size", 0)
    height, width = content.get("cddpm", {}).get("size") or (side, side)
    return height, width


def _places(layout: Layout, name: str) -> "_Places":
    """Where the files of a pair go."""
    if layout == "flat":
        return {"stem": PurePath(name)}
    stem = {"data": f"images/{name}", "nnunet": f"imagesTr/{name}_0000"}[layout]
    mask = {"data": f"masks/{name}", "nnunet": f"labelsTr/{name}"}[layout]
    return {"stem": PurePath(stem), "mask": PurePath(mask), "latents": PurePath("latents", name)}


def _drawn(
    codes: Codes, index: int, how: "_How", networks: "Networks", _sources: "Sequence[Source]"
) -> "Draft":
    from ..inference.synthesis import sample_code
    from ..vae.density import Density

    prior = codes == "prior"
    density = Density.prior(networks.config.z_dim, networks.model.theta_dim) if prior else networks.density
    return sample_code(networks, density, index, **how)


@dataclass
class DatasetIndex:
    """What tells of a set as a whole: index.csv of the layout data, dataset.json of nnunet.

    True to the pairs that are there whenever a run ends, and index.csv also where it is killed.
    """

    layout: Layout
    folder: Path
    model: dict[str, Any]
    table: Table | None = None
    touched: bool = False

    def __post_init__(self) -> None:
        if self.model and self._index.exists() and self.layout == "data":
            self._open()  # one of another kind shows before any work

    def add(self, job: Job) -> None:
        """A pair is there."""
        self.touched = True
        if self.layout != "data":
            return
        table = self.table or self._open()
        name = job.item.name
        if (name, name) not in table.known:
            table.add({"id": name, "subject": name})

    def close(self) -> None:
        """Tell of all."""
        if self.table is not None:
            self.table.close()
        if self.touched and self.layout == "nnunet":
            self._describe()

    @property
    def _index(self) -> Path:
        return self.folder / "index.csv"

    def _open(self) -> Table:
        self.table = Table(self._index, ("id", "subject"))
        return self.table

    def _describe(self) -> None:
        from ..filesystem import write_atomic

        labels = (path.stem for path in (self.folder / "labelsTr").glob("*.png"))
        images = self.folder / "imagesTr"
        names = ["grey"] if self.model["model"]["channels"] == 1 else ["R", "G", "B"]
        content = {
            "channel_names": {str(number): name for number, name in enumerate(names)},
            "labels": {"background": 0, "object": 1},
            "numTraining": sum((images / f"{label}_0000.png").exists() for label in labels),
            "file_ending": ".png",
        }
        write_atomic(self.folder / "dataset.json", (json.dumps(content, indent=2) + "\n").encode())
