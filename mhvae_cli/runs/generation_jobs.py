"""One generated result: the request, and how its files are produced."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..resources import worker_count
from .inputs import Item
from .streaming import Halving, stream

if TYPE_CHECKING:
    import numpy as np

    from ..images.scan import Scan, Window
    from ..inference.looking import View
    from ..inference.networks import Networks
    from ..inference.synthesis import Draft, GeneratedImage, GenerationOptions, Source

    _Loaded = tuple["GenerationRequest", list["Source | _Read"]]
    _Made = tuple[Draft, list[Source], GeneratedImage]

CELL = 256
"""Side of an image on the sheet in pixels."""
CACHE_SIZE = 8
"""Number of cached sources, so that a source of several results is not read for each of them."""

Edit = Callable[["Networks", "Sequence[Source]"], "Draft"]


def unedited(_networks: "Networks", sources: "Sequence[Source]") -> "Draft":
    """The first source without any edit."""
    from ..inference.synthesis import draft_of

    return draft_of(sources[0])


@dataclass(frozen=True)
class GenerationRequest:
    """One result: an image, its mask and, optionally, its latent files.

    `sources` are the inputs of the result; the first names its row, unless the result is `sampled` and named
    by its stem. `stem` is the path of the files in the output folder, without a suffix; `mask` is the path of
    the mask, if not the stem and "_mask", and `latents` that of the latent files, if not the stem; `label` is
    the value of the object's pixels in the mask. `edit` returns the draft. `row` holds the verb's own
    columns, `record` what the files record of this edit besides the command (no file names, as they may
    identify patients).
    """

    sources: tuple[Item, ...]
    stem: PurePath
    edit: Edit = unedited
    mask: PurePath | None = None
    latents: PurePath | None = None
    label: int = 255
    sampled: bool = False
    row: Mapping[str, Any] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def item(self) -> Item:
        """The item for the result's row: the first source with an error, else the first source."""
        failed = next((item for item in self.sources if item.error), None)
        if failed is None and (self.sampled or not self.sources):
            return Item(self.stem.name, b"", self.stem)
        return failed or self.sources[0]


@dataclass(frozen=True)
class GenerationResult:
    """A result: its files in the order of its outputs, its columns, the quality gate it `missed`, a
    `note` for the user, its thumbnails, and the SHA-256 of its sources when they were read."""

    request: GenerationRequest
    picture: "GeneratedImage"
    files: list[bytes]
    row: dict[str, Any]
    missed: str | None
    note: str
    thumbnails: "list[np.ndarray]"
    hashes: list[str]


@dataclass(frozen=True)
class _Read:
    """A scan that has been read but not encoded, and its view."""

    scan: "Scan"
    sha256: str
    view: "View"


def output_stem(item: Item, ending: str, number: int = 0, count: int = 1) -> PurePath:
    """An item's stem with an ending, `a__recon`, and a number if there are several, `a__recon_07` of 11."""
    numbered = f"_{str(number).zfill(len(str(count - 1)))}" if count > 1 else ""
    return item.stem.with_name(item.stem.name + ending + numbered)


def _with_picture(
    row: "tuple[Draft, list[Source]]", picture: "GeneratedImage | Exception"
) -> "_Made | Exception":
    """(draft, sources, picture), or the exception that replaces the picture."""
    return picture if isinstance(picture, Exception) else (*row, picture)


class JobRunner:
    """Processes the requests of one run in memory that does not grow with their number.

    `options` are for `synthesis.make`; `kind` is png or tiff; `command` is recorded in the files; `window` is
    for `read_scan`; `latents` and `thumbnails` request latent files and thumbnails. `derived` is whether a
    result so far contains pixels of a scan. ModelError for a single-headed VAE, and if images are to be
    refined and the model has no cDDPM.
    """

    def __init__(
        self,
        networks: "Networks",
        options: "GenerationOptions",
        *,
        kind: str,
        command: str,
        window: "Window" = "auto",
        latents: bool = False,
        thumbnails: bool = False,
    ) -> None:
        from ..checkpoints.folder import digest
        from ..inference.provenance import Origin

        self.networks, self.options, self.kind = networks, options, kind
        self.derived = False
        self.window, self.latents, self.thumbnails = window, latents, thumbnails
        networks.need_position()
        if options["refine"]:
            _ = networks.refiner
        self.origin = Origin(networks.name, digest(networks.folder), options["seed"], command)
        self._cache: OrderedDict[tuple[Path | bytes, int], Source] = OrderedDict()

    @cached_property
    def vae_sha256(self) -> str:
        """The SHA-256 of the VAE, which latent files record; and of the cDDPM, if there are texture codes."""
        from ..checkpoints.folder import digest

        textured = self.networks.style_dim > self.networks.config.z_dim
        return digest(self.networks.folder, ["vae"] + ["cddpm"] * textured)

    def stream(
        self,
        requests: Sequence[GenerationRequest],
        *,
        batch_size: int,
        workers: int | None,
        halved: Callable[[int], None],
    ) -> Generator[GenerationResult | InputError]:
        """The result of each request, or its InputError, in order; see `streaming.stream`."""
        make = Halving(self._make, halved)
        return stream(
            requests,
            load=self._load,
            run=partial(self._run, make),
            finish=self._finish,
            batch_size=1 if self.networks.single_image_batches else batch_size,
            workers=worker_count(workers),
            halved=halved,
        )

    def text(self, sources: Sequence[str] = (), *, derived: bool = False, **extra: object) -> dict[str, str]:
        """The provenance texts to embed in a file, from the SHA-256 of its sources; see `make_record`."""
        from ..inference.provenance import embed, make_record

        return embed(make_record(self.origin, sources, derived=derived, **extra))

    def _load(self, request: GenerationRequest) -> "tuple[_Loaded, None]":
        return (request, [self._read(item) for item in request.sources]), None

    def _read(self, item: Item) -> "Source | _Read":
        """A Source if it is cached or a latent file, else a _Read; worker threads only read the cache."""
        from ..hashing import sha256_of
        from ..images.read import read_scan
        from ..inference.latent_files import is_latents
        from ..inference.looking import view_of

        cached = self._cache.get((item.source, item.page))
        if cached is not None:
            return cached
        if isinstance(item.source, Path) and is_latents(item.source):
            return self._from_latents(item.source)
        # Hashed before it is read: a file that changes in between counts as stale later.
        digest = sha256_of(item.source)
        scan = read_scan(item.source, page=item.page, name=item.name, window=self.window)
        return _Read(scan, digest, view_of(self.networks, scan))

    def _from_latents(self, path: Path) -> "Source":
        from ..hashing import sha256_of
        from ..inference.latent_files import load_latents
        from ..inference.provenance import read
        from ..inference.synthesis import Source

        lengths = {"z_dim": self.networks.style_dim, "theta_dim": self.networks.model.theta_dim}
        digest = sha256_of(path)
        code = load_latents(path, vae_sha256=self.vae_sha256, **lengths)
        noise = (read(path) or {}).get("noise")  # reproduces the saved image
        return Source(code, None, digest, noise if isinstance(noise, str) else digest)

    def _make(self, drafts: "Sequence[Draft]") -> "list[GeneratedImage]":
        from ..inference.synthesis import make

        return make(self.networks, drafts, **self.options)

    def _run(
        self, make: "Callable[[list[Draft]], list[GeneratedImage | Exception]]", batch: "list[_Loaded]"
    ) -> "list[_Made | Exception]":
        """Per request (draft, sources, picture), or its exception; uses the network."""
        rows: list[tuple[Draft, list[Source]] | InputError] = []
        for request, read in batch:
            sources = [self._encoded(item, each) for item, each in zip(request.sources, read, strict=True)]
            try:
                rows.append((request.edit(self.networks, sources), sources))
            except InputError as error:
                rows.append(InputError(f"{request.item.name}: {error}", hint=error.hint))
        drafts = [row[0] for row in rows if not isinstance(row, InputError)]
        pictures = iter(make(drafts) if drafts else [])
        return [row if isinstance(row, InputError) else _with_picture(row, next(pictures)) for row in rows]

    def _encoded(self, item: Item, read: "Source | _Read") -> "Source":
        from ..inference.looking import encode
        from ..inference.provenance import noise_key
        from ..inference.synthesis import Source

        key = (item.source, item.page)
        if isinstance(read, _Read) and key not in self._cache:
            code = encode(self.networks, read.view)
            read = Source(code, read.scan, read.sha256, noise_key(read.sha256, item.page))
        source = self._cache[key] = self._cache[key] if isinstance(read, _Read) else read
        self._cache.move_to_end(key)
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)
        return source

    def _finish(self, request: GenerationRequest, _kept: None, generated: "_Made") -> GenerationResult:
        """Encode the files of a picture, and collect its row."""
        from ..images.encode import encode_png, encode_tiff
        from ..images.scan import stored

        draft, sources, picture = generated
        orientation = 1 if draft.like is None else draft.like.orientation
        own = {"noise": picture.key, "steps": picture.steps, "dice": round(picture.dice, 4)}
        facts = {**own, **request.record}
        hashes = [source.sha256 for source in sources]
        derived = bool(draft.donors)
        self.derived |= derived
        text = self.text(hashes, derived=derived, **facts)
        encode = encode_tiff if self.kind == "tiff" else encode_png
        mask = stored(picture.mask, orientation).astype("uint8") * request.label
        files = [
            encode(stored(picture.pixels, orientation), text=text, orientation=orientation),
            encode(mask.astype("uint8"), text=text),
        ]
        if self.latents:
            files += self._latents(picture, hashes, facts)
        row = {"dice": facts["dice"], "tries": picture.tries, "seed": self.origin.seed, **request.row}
        row["detail"] = "carry" if derived else "invent"
        missed, thumbnails = self._missed(picture), self._thumbnails(sources, picture)
        return GenerationResult(request, picture, files, row, missed, draft.note, thumbnails, hashes)

    def _latents(
        self, picture: "GeneratedImage", hashes: Sequence[str], facts: Mapping[str, Any]
    ) -> list[bytes]:
        from ..inference.latent_files import encode_latents
        from ..inference.provenance import make_record

        record = make_record(self.origin, hashes, **facts)
        own = {"model": self.networks.name, "vae_sha256": self.vae_sha256}
        return list(encode_latents(picture.code, record=record, handles=self._handles(picture), **own))

    def _handles(self, picture: "GeneratedImage") -> "np.ndarray | None":
        """The handles of a spline for the JSON file; None for an affine model or an outline without any."""
        from ..vae.handles import handles

        if self.networks.config.warp.family == "affine":
            return None
        try:
            return handles(self.networks.model, picture.code)
        except InputError:
            return None

    def _missed(self, picture: "GeneratedImage") -> str | None:
        minimum = self.options["min_dice"]
        if picture.dice >= minimum:
            return None
        draws = f" after {picture.tries} attempts" if picture.tries > 1 else ""
        return f"dice {picture.dice:.3f}{draws}, below {minimum:g}"

    def _thumbnails(self, sources: "Sequence[Source]", picture: "GeneratedImage") -> "list[np.ndarray]":
        """Small images for a row of the sheet: sources, mask, VAE image, refined image."""
        if not self.thumbnails:
            return []
        import numpy as np

        from ..images.render import sheet
        from ..images.transforms import to_native, to_uint8

        height, width = picture.code.size
        scale = CELL / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        blank = np.full(size, 128, np.uint8)
        scans = [source.scan for source in sources]
        images = [blank if scan is None else to_uint8(scan.pixels, scan.window) for scan in scans]
        images += [picture.mask, to_native(picture.recon, size)]
        images += [to_uint8(picture.pixels, picture.window)] if self.options["refine"] else []
        return [sheet([[each]], cell=CELL, gutter=0) for each in images]
