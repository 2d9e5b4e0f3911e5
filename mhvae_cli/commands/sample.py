"""`mhvae sample -n N --out SET/`: synthetic images and masks (figure 10, appendix G)."""

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
from ..hashing import seed_of
from ..runs.generation import generate
from ..runs.generation_jobs import GenerationRequest
from ..runs.inputs import Item, gather
from ..runs.invocation import NEUTRAL
from ..runs.outputs import Job
from ..runs.results import Table, csv_cell
from ..runs.settings import GenerationSettings
from .generation_options import generative

if TYPE_CHECKING:
    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, Source

EXAMPLES = (
    "mhvae sample -n 100 --min-dice 0.9 --tries 4 --out set/",
    "mhvae sample -n 500 --from scans/ --layout nnunet --out Dataset001/",
)

Codes = Literal["density", "prior"]
Layout = Literal["data", "flat", "nnunet"]


@generative(without=("detail", "from_file", "from_file0", "recursive", "window", "save_latents"))
def sample(
    count: Annotated[int, typer.Option("-n", min=1, metavar="N", help="Number of images."), NEUTRAL],
    start: Annotated[
        int,
        typer.Option(
            "--start",
            min=0,
            metavar="I",
            help="Index of the first image. Image I depends only on I and --seed, so a set can be extended.",
        ),
        NEUTRAL,
    ] = 0,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="IMAGES",
            help="Carry the pixels of images drawn at random among these to new places and shapes; an image,"
            " a folder or a quoted glob, repeatable. By default the whole image is generated.",
            show_default=False,
        ),
        NEUTRAL,
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="WxH",
            help="Image width and height in pixels.",
            show_default="median of the training images, else the model's image size; with --from that of the"
            " source",
        ),
    ] = None,
    codes: Annotated[
        Codes,
        typer.Option(
            "--codes",
            help="Distribution of the latent codes: density is fitted to those of the training images and"
            " stored with the cDDPM; prior is N(0, I), a worse match to them.",
        ),
    ] = "density",
    layout: Annotated[
        Layout,
        typer.Option(
            "--layout",
            help="Folder layout: data as read by train-vae --data, flat for a single folder, nnunet for"
            " nnU-Net v2"
            " with labels 0 and 1.",
        ),
    ] = "data",
    audit: Annotated[
        bool,
        typer.Option(
            "--audit",
            help="Compare each image with the index of training images that is stored with the model.",
        ),
        NEUTRAL,
    ] = False,
    *,
    settings: GenerationSettings,
) -> None:
    """Generate synthetic images with masks, for example as training data.

    --out set/ becomes a folder with images/, masks/ (0 and 255, same names),
    latents/ (latent files, accepted as inputs by other verbs) and index.csv,
    with one subject per image: sample_s0_000000.png is image 0 of --seed 0.
    flat puts NAME.png, NAME_mask.png and the latent files in one folder;
    nnunet writes imagesTr/NAME_0000.png, labelsTr/NAME.png, latents/ and
    dataset.json. A latent code whose object has no pixel in the image is drawn
    again. Each image is segmented again: --min-dice 0.9 --tries 4 reports
    pairs that disagree. --existing skip continues an interrupted set.

    With --from, each image is one of the given ones with its object in a new
    place and shape, as warp does it; its source is named in results.csv and is
    its subject in index.csv, so that a split by subject keeps them together.
    Such images contain pixels of the scans: protect them as you protect the
    scans.

    --audit looks for memorised images: the column training_distance is the
    distance to the nearest training image, in units of the distance that 99 %
    of new images keep; below 1 the image is flagged in qc.
    """
    if layout == "nnunet" and settings.format == "tiff":
        raise UsageError("--layout nnunet needs PNG files", hint="leave --format out")
    given = None if size is None else _parse_size(size)
    model = {} if settings.dry_run else _read_model(settings, codes)
    options: _How = {"seed": settings.seed, "size": given or _default_size(model)}
    items = _find_sources(sources, settings) if sources else []
    if items and size is not None:
        raise UsageError("--size and --from exclude each other", hint="the images keep their own sizes")
    requests = [
        GenerationRequest(
            _source_of(items, index, settings.seed),
            **_stems(layout, f"sample_s{settings.seed}_{index:06d}"),
            label=1 if layout == "nnunet" else 255,
            sampled=True,
            edit=partial(_edit, codes, index, options),
            row={"source": "".join(item.name for item in _source_of(items, index, settings.seed))},
            record={"edit": {"index": index, "codes": codes}},
        )
        for index in range(start, start + count)
    ]
    # Without -n and --start: image I is the same file in every set.
    command_words = [
        *(["--size", size] if size else []),
        *([] if codes == "density" else ["--codes", codes]),
    ]
    dataset_index = DatasetIndex(layout, Path(settings.out or "."), model)
    adjusted = replace(settings, save_latents=settings.out != "-")
    many = layout != "flat" or count > 1
    with closing(dataset_index):
        code = generate(
            "sample",
            requests,
            adjusted,
            many=many,
            columns=["source"],
            command_words=command_words,
            titles=["source"] if items else [],
            settled=dataset_index.add,
            audit=audit,
        )
    raise typer.Exit(code)


def _parse_size(text: str) -> tuple[int, int]:
    """`WxH` as (h, w)."""
    from ..images.scan import MAX_PIXELS

    match = re.fullmatch(r"([0-9]{1,6})x([0-9]{1,6})", text)
    if not match:
        raise UsageError(f"--size {text}: not WxH", hint="for example --size 640x480")
    width, height = int(match[1]), int(match[2])
    if not 0 < width * height <= MAX_PIXELS:
        raise UsageError(f"--size {text}: must have 1 to {MAX_PIXELS // 1_000_000} million pixels")
    return height, width


def _find_sources(sources: list[str], settings: GenerationSettings) -> list[Item]:
    """The images of --from, sorted by name."""
    items = gather(sources, recursive=True, out=settings.out).items
    for item in items:
        if item.error is not None:
            raise item.error
    return sorted(items, key=lambda item: item.name)


def _source_of(items: Sequence[Item], index: int, seed: int) -> tuple[Item, ...]:
    """The image that sample `index` carries: drawn at random, depends on nothing but `seed` and `index`."""
    return (items[seed_of(f"{seed}/sample{index}/source") % len(items)],) if items else ()


class _How(TypedDict):
    seed: int
    size: tuple[int, int]


class _Places(TypedDict):
    stem: PurePath
    mask: NotRequired[PurePath]
    latents: NotRequired[PurePath]


def _read_model(settings: GenerationSettings, codes: Codes) -> dict[str, Any]:
    """The model's config.json; ModelError if it cannot generate such images."""
    from ..checkpoints.folder import model_config, read_config
    from ..checkpoints.registry import resolve

    folder = resolve(settings.model, offline=settings.offline)
    content = read_config(folder)
    model_config(content, folder)
    _check_size(content.get("cddpm", {}).get("size"), folder)
    if "cddpm" not in content and (codes == "density" or not settings.no_refine):
        reason = "has no cDDPM, which refines images and stores the density of the latent codes"
        hint = "use --no-refine --codes prior, or train a cDDPM with train-cddpm"
        raise ModelError(f"{content['name']}: {reason}", hint=hint)
    return content


def _check_size(size: object, folder: Path) -> None:
    """ModelError for a `size` in a config.json that is not absent or a height and a width."""
    from ..images.scan import MAX_PIXELS

    if not size:
        return
    sides = size if isinstance(size, list) and all(type(side) is int and side > 0 for side in size) else []
    if len(sides) != 2 or sides[0] * sides[1] > MAX_PIXELS:
        limit = f"at most {MAX_PIXELS // 1_000_000} million pixels"
        raise ModelError(f"{folder}: cddpm.size is not a height and a width of {limit}")


def _default_size(content: dict[str, Any]) -> tuple[int, int]:
    side = content.get("model", {}).get("image_size", 0)
    height, width = content.get("cddpm", {}).get("size") or (side, side)
    return height, width


def _stems(layout: Layout, name: str) -> "_Places":
    """The paths of an image, its mask and its latent files, without suffixes."""
    if layout == "flat":
        return {"stem": PurePath(name)}
    stem = {"data": f"images/{name}", "nnunet": f"imagesTr/{name}_0000"}[layout]
    mask = {"data": f"masks/{name}", "nnunet": f"labelsTr/{name}"}[layout]
    return {"stem": PurePath(stem), "mask": PurePath(mask), "latents": PurePath("latents", name)}


def _edit(
    codes: Codes, index: int, options: "_How", networks: "Networks", sources: "Sequence[Source]"
) -> "Draft":
    from ..diffusion.density import Density
    from ..inference.sampling import sample_code, vary_place

    prior = codes == "prior"
    density = Density.prior(networks.style_dim, networks.model.theta_dim) if prior else networks.density
    if sources:
        return vary_place(networks, density, index, sources[0], seed=options["seed"])
    return sample_code(networks, density, index, **options)


@dataclass
class DatasetIndex:
    """The index of a dataset: index.csv for the layout data, dataset.json for nnunet.

    It matches the existing pairs whenever a run ends; index.csv does so even if the run is killed.
    """

    layout: Layout
    folder: Path
    model: dict[str, Any]
    table: Table | None = None
    changed: bool = False

    def __post_init__(self) -> None:
        if self.model and self._index.exists() and self.layout == "data":
            self._open()  # fails before any work if the file is of another kind

    def add(self, job: Job) -> None:
        """Record a pair whose files exist."""
        self.changed = True
        if self.layout != "data":
            return
        table = self.table or self._open()
        name = job.item.name
        subject = "".join(item.stem.name for item in job.made_of or ()) or name
        if (name, csv_cell(subject)) not in table.known:
            table.add({"id": name, "subject": subject})

    def close(self) -> None:
        """Finish index.csv, or write dataset.json."""
        if self.table is not None:
            self.table.close()
        if self.changed and self.layout == "nnunet":
            self._write_dataset_json()

    @property
    def _index(self) -> Path:
        return self.folder / "index.csv"

    def _open(self) -> Table:
        self.table = Table(self._index, ("id", "subject"))
        return self.table

    def _write_dataset_json(self) -> None:
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
