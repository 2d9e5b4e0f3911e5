"""Section 5.2: latent codes to images. Each is decoded, refined, resized to its scan, and segmented again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

import numpy as np

from ..config import STEPS, STEPS_CARRIED
from ..errors import InputError
from ..evaluation.metrics import dice
from ..hashing import sha256_of
from ..images.scan import Scan, scan_of
from ..images.transforms import to_native, to_uint8
from ..vae.editing import LatentCode, blend, interpolate, transform_code
from ..vae.handles import move_handles
from .carrying import Carried, Donor, carry_detail
from .looking import locate, view_of
from .networks import Networks


@dataclass(frozen=True)
class Source:
    """What images are generated from: the latent code of a scan, or one from a file, which has no scan.

    `sha256` is that of the image file, and `key` identifies the noise of the images generated from it.
    """

    code: LatentCode
    scan: Scan | None
    sha256: str
    key: str


@dataclass(frozen=True)
class Draft:
    """An image to generate: its latent code, the key of its noise, and the scan that sets its bit depth.

    Without a scan it is 8-bit. The pixels of `donors` are carried along (`carrying.carry_detail`); without
    any, the whole image is generated. `note` is what the user should know about it.
    """

    code: LatentCode
    key: str
    like: Scan | None = None
    donors: tuple[Donor, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class GeneratedImage:
    """A generated image, upright, at its native size: pixels uint8 or uint16 (h, w) or (h, w, 3).

    `mask` bool (h, w) is the intended object, `dice` its agreement with the object that the model finds in
    `pixels`, `tries` the number of attempts, `key` identifies the noise of the chosen one, `recon` float32
    (C, S, S) is the VAE's image before refinement, `steps` the evaluations of the cDDPM, and `window` the
    values of `pixels` that are black and white, as in a Scan.
    """

    pixels: np.ndarray
    mask: np.ndarray
    code: LatentCode
    dice: float
    tries: int
    key: str
    recon: np.ndarray
    steps: int
    window: tuple[float, float] | None = None


class GenerationOptions(TypedDict, total=False):
    """The keywords of `make`."""

    refine: bool
    steps: int | None
    solver: str
    strength: float | None
    seed: int
    min_dice: float
    tries: int


def draft_of(source: Source, *, draw: int = 0) -> Draft:
    """The draft of an unedited source; each `draw` has its own path of noise."""
    return Draft(source.code, source.key + (f"/draw{draw}" if draw else ""), source.scan)


def swap_style(
    networks: Networks, content: Source, style: Source, *, mix: float = 1.0, carry: bool = True
) -> Draft:
    """Figure 5: `content` in the style of `style`, with the noise of `content`; see `editing.blend`.

    With `carry` the pixels are those of `style`, brought to the object's position in `content`.
    InputError for one greyscale and one colour image, if the model works in colour (grey is a style).
    """
    _same_colours(networks, content, style)
    draft = Draft(blend(content.code, style.code, mix=mix), content.key, content.scan)
    return with_donors(networks, draft, [(content, 1 - mix), (style, mix)], carry)


def interpolate_codes(
    networks: Networks, a: Source, b: Source, *, style: float, position: float, carry: bool = True
) -> Draft:
    """Figure 9: an image between `a` and `b`, with the same noise at every position; see `interpolate`.

    With `carry` both images' pixels are moved there and cross-faded. InputError as in `swap_style`.
    """
    _same_colours(networks, a, b)
    key = sha256_of("+".join(sorted([a.key, b.key])).encode())
    draft = Draft(interpolate(a.code, b.code, style=style, position=position), key, a.scan)
    return with_donors(networks, draft, [(a, 1 - style), (b, style)], carry)


@dataclass(frozen=True)
class Warping:
    """The edits of `warp_image`, in this order: a spline's handles are moved, by number
    (`handles.move_handles`), then the image is rotated and scaled about a point, then shifted
    (`editing.transform_code`).

    `about` and `shift` are (x, y) in native pixels, "object" is the object's centre after the moves.
    """

    rotate: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    about: tuple[float, float] | Literal["object", "image"] = "object"
    moves: Mapping[int, tuple[float, float]] = field(default_factory=dict)


def warp_image(
    networks: Networks,
    source: Source,
    edit: Warping,
    *,
    position: LatentCode | None = None,
    carry: bool = True,
) -> tuple[Draft, float]:
    """Figures 6 and 8: the image with its object edited, starting from that of `position`, if given.

    With `carry` the object's pixels move with it. Also returns the largest distance of the outline
    from a moved handle, in pixels. InputError if there is no object, or none is left in the image.
    """
    code, away = source.code, 0.0
    if position is not None:
        code = replace(code, theta=position.theta, pose=position.pose)
    if not networks.mask_of(code).any():
        raise InputError("no object found")
    if edit.moves:
        code, away = move_handles(networks.model, code, edit.moves)
    if (edit.rotate, edit.scale, *edit.shift) != (0, 1, 0, 0):
        about = edit.about
        if about == "object":
            about = networks.centre(code)
        elif about == "image":
            about = (code.size[1] / 2, code.size[0] / 2)
        code = transform_code(code, about=about, rotate=edit.rotate, scale=edit.scale, shift=edit.shift)
    if not networks.mask_of(code).any():
        raise InputError("the edit moves the object out of the image")
    return with_donors(networks, Draft(code, source.key, source.scan), [(source, 1.0)], carry), away


def with_donors(
    networks: Networks, draft: Draft, sources: Sequence[tuple[Source, float]], carry: bool
) -> Draft:
    """The draft with the scans of its sources as donors, each with its share, if their detail is carried.

    Without donors if one of them is a latent file. InputError for a scan without an object, as it is not
    known what would move.
    """
    needed = [(source, share) for source, share in sources if share > 0]
    if not carry:
        return draft
    if any(source.scan is None for source, _ in needed):
        return replace(draft, note="generated as a whole, as a latent file has no detail to carry")
    donors: list[Donor] = []
    for source, share in needed:
        if source.scan is not None:
            if not networks.mask_of(source.code).any():
                raise InputError(f"{source.scan.name}: no object found", hint="use --detail invent")
            donors.append(Donor(source.scan, source.code, share))
    return replace(draft, donors=tuple(donors))


def make(
    networks: Networks,
    drafts: Sequence[Draft],
    *,
    refine: bool = True,
    steps: int | None = None,
    solver: str = "dpm++2m-sde",
    strength: float | None = None,
    seed: int = 0,
    min_dice: float = 0.0,
    tries: int = 1,
) -> list[GeneratedImage]:
    """Generate one image per draft, in one batch. `refine=False` gives the VAE's own image.

    `steps` is by default STEPS, or STEPS_CARRIED where detail is carried. Images with a Dice below `min_dice`
    are refined again with different noise, up to `tries` times in all; the best is kept, even if it is below.
    ModelError for a model without a cDDPM.
    """
    recon = networks.decode([draft.code for draft in drafts])
    masks = [networks.mask_of(draft.code) for draft in drafts]
    carried = [carry_detail(networks, draft.code, draft.donors) if draft.donors else None for draft in drafts]
    settled = np.stack([each.settle(x) if each else x for x, each in zip(recon, carried, strict=True)])
    unknown = [i for i, each in enumerate(carried) if refine and not (each and each.complete)]
    drawn = {i: steps or (STEPS_CARRIED if carried[i] else STEPS) for i in unknown}
    best: dict[int, GeneratedImage] = {}
    for attempt in range(tries):
        todo = [i for i in range(len(drafts)) if i not in best or (i in drawn and best[i].dice < min_dice)]
        if not todo:
            break
        keys = [drafts[i].key + (f"/try{attempt}" if attempt else "") for i in todo]
        squares = settled[todo]
        for count in {drawn[i] for i in todo if i in drawn}:
            rows = [row for row, i in enumerate(todo) if drawn.get(i) == count]
            squares[rows] = networks.refine(
                squares[rows],
                [keys[row] for row in rows],
                seed=seed,
                steps=count,
                solver=solver,
                strength=strength,
                codes=[drafts[todo[row]].code for row in rows],
                known=_known([carried[todo[row]] for row in rows], squares[rows]),
            )
        scans = [_fitted(square, drafts[i], carried[i]) for square, i in zip(squares, todo, strict=True)]
        found = locate(networks, [view_of(networks, scan) for scan in scans])
        for i, key, scan, position in zip(todo, keys, scans, found, strict=True):
            code, tried = drafts[i].code, attempt + 1
            agreed = dice(networks.mask(position.theta, code.size, position.pose), masks[i])
            if i not in best or agreed > best[i].dice:
                best[i] = GeneratedImage(
                    scan.pixels, masks[i], code, agreed, tried, key, recon[i], drawn.get(i, 0), scan.window
                )
            best[i] = replace(best[i], tries=attempt + 1)
    return [best[i] for i in range(len(drafts))]


def _same_colours(networks: Networks, a: Source, b: Source) -> None:
    if networks.config.channels == 1 or a.scan is None or b.scan is None:
        return
    here, there = ("grey" if scan.pixels.ndim == 2 else "in colour" for scan in (a.scan, b.scan))
    if here != there:
        hint = "a colour model treats grey as a style: convert one of the two"
        raise InputError(f"{here}, but {b.scan.name} is {there}", hint=hint)


def _known(carried: Sequence[Carried | None], like: np.ndarray) -> tuple[np.ndarray, ...]:
    """What is known of a batch `like` (B, C, S, S), as `Networks.refine` takes it; empty if nothing is."""
    if not any(carried):
        return ()
    blank = np.zeros_like(like[0, 0])
    image = [each.square if each else x for x, each in zip(like, carried, strict=True)]
    weight = [each.known if each else blank for each in carried]
    free = [each.free if each else blank for each in carried]
    sharp = [each.sharp if each else blank for each in carried]
    return np.stack(image), *(np.stack(planes)[:, None] for planes in (weight, free, sharp))


def _fitted(square: np.ndarray, draft: Draft, carried: Carried | None) -> Scan:
    """A generated square (C, S, S) at its native size; with its scan's bit depth and window if it is grey.

    PNGs in colour are written in 8 bits.
    """
    like = draft.like
    if carried is not None:
        if like is None:
            like = scan_of(np.zeros((*draft.code.size, *draft.donors[0].scan.pixels.shape[2:]), np.uint8))
        if like.pixels.ndim == 3 and (like.bits != 8 or like.window is not None):
            like = replace(like, pixels=to_uint8(like.pixels, like.window), window=None)
        pixels = carried.compose(square, like)
        return replace(scan_of(pixels), window=like.window)
    like = like if len(square) == 1 else None
    return replace(scan_of(to_native(square, like or draft.code.size)), window=like.window if like else None)
