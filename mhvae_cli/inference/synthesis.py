"""Section 5.2: from codes to pictures. Each is decoded, refined, fitted to its scan, and looked at again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypedDict

import numpy as np

from ..errors import InputError
from ..evaluation.metrics import dice
from ..hashing import seed_of, sha256_of
from ..images.scan import Scan, scan_of
from ..images.transforms import composite, to_native, to_uint8
from ..vae.density import Density
from ..vae.editing import LatentCode, blend, interpolate, transform_code
from ..vae.handles import move_handles
from .networks import Networks

DRAWS = 100
"""Codes, at most, that are drawn for a picture with an object."""


@dataclass(frozen=True)
class Source:
    """What pictures are made from: the code of a scan, or of a latents file, which has no scan.

    `sha256` is that of the image file, and `key` names the noise of what is made from it.
    """

    code: LatentCode
    scan: Scan | None
    sha256: str
    key: str


@dataclass(frozen=True)
class Draft:
    """A picture to be made: its code, the key of its noise, and the scan whose depth and range it takes.

    Without a scan it is 8-bit. `compose` turns the made pixels (h, w) or (h, w, 3) and the asked mask bool
    (h, w) into the pixels that are kept.
    """

    code: LatentCode
    key: str
    like: Scan | None = None
    compose: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class GeneratedImage:
    """A made picture, upright and of its code's native size: pixels uint8 or uint16 (h, w) or (h, w, 3).

    `mask` bool (h, w) is the object as it was asked for, `dice` its agreement with the object that the model
    finds in `pixels`, `tries` how many were drawn to choose from, `key` the noise of the one that was chosen,
    `recon` float32 (C, S, S) the VAE's picture before refinement, and `window` which of `pixels`' numbers are
    black and white, as in a Scan.
    """

    pixels: np.ndarray
    mask: np.ndarray
    code: LatentCode
    dice: float
    tries: int
    key: str
    recon: np.ndarray
    window: tuple[float, float] | None = None


class GenerationOptions(TypedDict, total=False):
    """The keywords of `make`."""

    refine: bool
    steps: int
    solver: str
    strength: float | None
    seed: int
    min_dice: float
    tries: int


def draft_of(source: Source, *, draw: int = 0) -> Draft:
    """The picture of an unedited source; another `draw` is another path of its noise."""
    return Draft(source.code, source.key + (f"/draw{draw}" if draw else ""), source.scan)


def swap_style(networks: Networks, content: Source, style: Source, *, mix: float = 1.0) -> Draft:
    """Figure 5: `content` in the style of `style`, with the noise that `content` has by itself; see `blend`.

    InputError for a grey picture and one in colour where the model is of colour: it takes grey for a style.
    """
    _same_colours(networks, content, style)
    return Draft(blend(content.code, style.code, mix=mix), content.key, content.scan)


def interpolate_codes(networks: Networks, a: Source, b: Source, *, style: float, position: float) -> Draft:
    """Figure 9: a picture on the way from `a` to `b`, and the same noise for all of them; see `interpolate`.

    InputError as in `swap_style`.
    """
    _same_colours(networks, a, b)
    key = sha256_of("+".join(sorted([a.key, b.key])).encode())
    return Draft(interpolate(a.code, b.code, style=style, position=position), key, a.scan)


@dataclass(frozen=True)
class Warping:
    """What `warp_image` does, in this order: a spline's handles moved, by their numbers
    (`handles.move_handles`), then the image turned and scaled about a point, then shifted
    (`editing.transform_code`).

    `about` and `shift` are (x, y) in native pixels, "object" the object's centre as it is after the moves.
    `keep_background` keeps the scan's own pixels outside the object, its old place and its new one.
    """

    rotate: float = 0.0
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    about: tuple[float, float] | Literal["object", "image"] = "object"
    moves: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    keep_background: bool = False


def warp_image(
    networks: Networks, source: Source, edit: Warping, *, position: LatentCode | None = None
) -> tuple[Draft, float]:
    """Figures 6 and 8: the picture with its object in another place, at first that of `position`, if given.

    Also returns how far the outline stays from the handles that were moved, in pixels.
    InputError if there is no object, or none is left in the picture, or no scan to keep the background of.
    """
    code, away = source.code, 0.0
    if position is not None:
        code = replace(code, theta=position.theta, pose=position.pose)
    if not networks.mask(code.theta, code.size, code.pose).any():
        raise InputError("no object is found in it")
    if edit.moves:
        code, away = move_handles(networks.model, code, edit.moves)
    if (edit.rotate, edit.scale, *edit.shift) != (0, 1, 0, 0):
        about = edit.about
        if about == "object":
            about = networks.centre(code)
        elif about == "image":
            about = (code.size[1] / 2, code.size[0] / 2)
        code = transform_code(code, about=about, rotate=edit.rotate, scale=edit.scale, shift=edit.shift)
    if not networks.mask(code.theta, code.size, code.pose).any():
        raise InputError("the edit leaves nothing of the object in the image")
    draft = Draft(code, source.key, source.scan)
    return (_on_its_ground(networks, source, draft) if edit.keep_background else draft), away


def _on_its_ground(networks: Networks, source: Source, draft: Draft) -> Draft:
    """The draft with the scan's own pixels around the object's old place and its new one."""
    scan = source.scan
    if scan is None:
        raise InputError("a latents file has no background to keep", hint="name the image in its place")
    plain = scan.bits == 8 and scan.window is None
    if not plain and (scan.pixels.ndim == 3 or networks.config.channels == 3):
        shown = to_uint8(scan.pixels, scan.window)
        scan = replace(scan, pixels=shown, window=None)  # colour is written in 8 bits
    old = networks.mask(source.code.theta, source.code.size, source.code.pose)

    def compose(made: np.ndarray, mask: np.ndarray) -> np.ndarray:
        from scipy.ndimage import distance_transform_edt  # not at the top: segmenting waits for no SciPy

        # The whole of a rim's echo or halo goes with the object.
        reach = max(4.0, max(mask.shape) / 50)
        away = distance_transform_edt(~(old | mask))
        return composite(made, scan.pixels, np.clip(2 - 2 * away / reach, 0, 1))

    return replace(draft, like=scan, compose=compose)


def sample_code(
    networks: Networks, density: Density, index: int, *, seed: int, size: tuple[int, int]
) -> Draft:
    """Appendix G: picture number `index` of those that `seed` draws, whatever others are; size (h, w).

    A code whose object has no pixel in the picture is drawn again; InputError if a hundred have none.
    """
    key = f"sample{index}"
    rng = np.random.default_rng(seed_of(f"{seed}/{key}/code", size=32))
    for _ in range(DRAWS):
        z, theta = density.draw(rng)
        if networks.mask(theta, size).any():
            return Draft(LatentCode(z=z, theta=theta, pose=None, size=size), key)
    raise InputError(f"{DRAWS} codes were drawn, and none has an object", hint="draw larger pictures: --size")


def make(
    networks: Networks,
    drafts: Sequence[Draft],
    *,
    refine: bool = True,
    steps: int = 20,
    solver: str = "dpm++2m-sde",
    strength: float | None = None,
    seed: int = 0,
    min_dice: float = 0.0,
    tries: int = 1,
) -> list[GeneratedImage]:
    """A picture a draft, in one batch. `refine=False` leaves the VAE's own picture.

    Pictures of less than `min_dice` are refined again with other noise, up to `tries` times in all, and the
    best is kept, whether or not it will do. ModelError for a model without a cDDPM.
    """
    recon = networks.decode([draft.code for draft in drafts])
    masks = [networks.mask(draft.code.theta, draft.code.size, draft.code.pose) for draft in drafts]
    best: dict[int, GeneratedImage] = {}
    for attempt in range(tries if refine else 1):
        todo = [i for i in range(len(drafts)) if i not in best or best[i].dice < min_dice]
        if not todo:
            break
        keys = [drafts[i].key + (f"/try{attempt}" if attempt else "") for i in todo]
        squares = recon[todo]
        if refine:
            squares = networks.refine(squares, keys, seed=seed, steps=steps, solver=solver, strength=strength)
        scans = [_fitted(square, drafts[i], masks[i]) for square, i in zip(squares, todo, strict=True)]
        thetas = networks.locate(np.stack([networks.prepare(scan) for scan in scans]))
        for i, key, scan, theta in zip(todo, keys, scans, thetas, strict=True):
            code, tried = drafts[i].code, attempt + 1
            agreed = dice(networks.mask(theta, code.size), masks[i])
            if i not in best or agreed > best[i].dice:
                best[i] = GeneratedImage(
                    scan.pixels, masks[i], code, agreed, tried, key, recon[i], window=scan.window
                )
            best[i] = replace(best[i], tries=attempt + 1)
    return [best[i] for i in range(len(drafts))]


def _same_colours(networks: Networks, a: Source, b: Source) -> None:
    if networks.config.channels == 1 or a.scan is None or b.scan is None:
        return
    here, there = ("grey" if scan.pixels.ndim == 2 else "in colour" for scan in (a.scan, b.scan))
    if here != there:
        hint = "a model of colour takes grey for a style: convert one of the two"
        raise InputError(f"{here}, where {b.scan.name} is {there}", hint=hint)


def _fitted(square: np.ndarray, draft: Draft, mask: np.ndarray) -> Scan:
    """A made square (C, S, S) at its native size; with the bits and the window of its scan if it is grey.

    PNGs in colour are written in 8 bits.
    """
    like = draft.like if len(square) == 1 else None
    pixels = to_native(square, like or draft.code.size)
    if draft.compose is not None:
        pixels = draft.compose(pixels, mask)
    return replace(scan_of(pixels), window=like.window if like else None)
