"""Section 5.2: latent codes to images. Each is decoded, refined, resized to its scan, and segmented again."""

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
"""Most latent codes that are drawn to get one with an object."""


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

    Without a scan it is 8-bit. `compose` maps the generated pixels (h, w) or (h, w, 3) and the intended mask,
    bool (h, w), to the final pixels.
    """

    code: LatentCode
    key: str
    like: Scan | None = None
    compose: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class GeneratedImage:
    """A generated image, upright, at its native size: pixels uint8 or uint16 (h, w) or (h, w, 3).

    `mask` bool (h, w) is the intended object, `dice` its agreement with the object that the model finds in
    `pixels`, `tries` the number of attempts, `key` identifies the noise of the chosen one, `recon` float32
    (C, S, S) is the VAE's image before refinement, and `window` the values of `pixels` that are black and
    white, as in a Scan.
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
    """The draft of an unedited source; each `draw` has its own path of noise."""
    return Draft(source.code, source.key + (f"/draw{draw}" if draw else ""), source.scan)


def swap_style(networks: Networks, content: Source, style: Source, *, mix: float = 1.0) -> Draft:
    """Figure 5: `content` in the style of `style`, with the noise of `content`; see `editing.blend`.

    InputError for one greyscale and one colour image, if the model works in colour (grey is a style).
    """
    _same_colours(networks, content, style)
    return Draft(blend(content.code, style.code, mix=mix), content.key, content.scan)


def interpolate_codes(networks: Networks, a: Source, b: Source, *, style: float, position: float) -> Draft:
    """Figure 9: an image between `a` and `b`, with the same noise at every position; see `interpolate`.

    InputError as in `swap_style`.
    """
    _same_colours(networks, a, b)
    key = sha256_of("+".join(sorted([a.key, b.key])).encode())
    return Draft(interpolate(a.code, b.code, style=style, position=position), key, a.scan)


@dataclass(frozen=True)
class Warping:
    """The edits of `warp_image`, in this order: a spline's handles are moved, by number
    (`handles.move_handles`), then the image is rotated and scaled about a point, then shifted
    (`editing.transform_code`).

    `about` and `shift` are (x, y) in native pixels, "object" is the object's centre after the moves.
    `keep_background` keeps the scan's own pixels outside the object's old and new position.
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
    """Figures 6 and 8: the image with its object edited, starting from that of `position`, if given.

    Also returns the largest distance of the outline from a moved handle, in pixels. InputError if there is no
    object, or none is left in the image, or no scan whose background could be kept.
    """
    code, away = source.code, 0.0
    if position is not None:
        code = replace(code, theta=position.theta, pose=position.pose)
    if not networks.mask(code.theta, code.size, code.pose).any():
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
    if not networks.mask(code.theta, code.size, code.pose).any():
        raise InputError("the edit moves the object out of the image")
    draft = Draft(code, source.key, source.scan)
    return (_with_background(networks, source, draft) if edit.keep_background else draft), away


def _with_background(networks: Networks, source: Source, draft: Draft) -> Draft:
    """The draft with the scan's own pixels outside the object's old and new position."""
    scan = source.scan
    if scan is None:
        raise InputError("a latent code has no background to keep", hint="use the image instead")
    plain = scan.bits == 8 and scan.window is None
    if not plain and (scan.pixels.ndim == 3 or networks.config.channels == 3):
        shown = to_uint8(scan.pixels, scan.window)
        scan = replace(scan, pixels=shown, window=None)  # colour is written in 8 bits
    old = networks.mask(source.code.theta, source.code.size, source.code.pose)

    def compose(made: np.ndarray, mask: np.ndarray) -> np.ndarray:
        from scipy.ndimage import distance_transform_edt  # slow to import, and not needed for segmentation

        # A margin, so that the echo or halo along the object's boundary moves with it.
        reach = max(4.0, max(mask.shape) / 50)
        away = distance_transform_edt(~(old | mask))
        return composite(made, scan.pixels, np.clip(2 - 2 * away / reach, 0, 1))

    return replace(draft, like=scan, compose=compose)


def sample_code(
    networks: Networks, density: Density, index: int, *, seed: int, size: tuple[int, int]
) -> Draft:
    """Appendix G: the draft of sample `index`, which depends only on `seed` and `index`; size (h, w).

    A latent code whose object has no pixel in the image is drawn again, up to DRAWS times; then InputError.
    """
    key = f"sample{index}"
    rng = np.random.default_rng(seed_of(f"{seed}/{key}/code", size=32))
    for _ in range(DRAWS):
        z, theta = density.draw(rng)
        if networks.mask(theta, size).any():
            return Draft(LatentCode(z=z, theta=theta, pose=None, size=size), key)
    raise InputError(f"none of {DRAWS} latent codes has an object", hint="generate larger images: --size")


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
    """Generate one image per draft, in one batch. `refine=False` gives the VAE's own image.

    Images with a Dice below `min_dice` are refined again with different noise, up to `tries` times in all,
    and the best is kept even if it is below. ModelError for a model without a cDDPM.
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
        hint = "a colour model treats grey as a style: convert one of the two"
        raise InputError(f"{here}, but {b.scan.name} is {there}", hint=hint)


def _fitted(square: np.ndarray, draft: Draft, mask: np.ndarray) -> Scan:
    """A generated square (C, S, S) at its native size; with its scan's bit depth and window if it is grey.

    PNGs in colour are written in 8 bits.
    """
    like = draft.like if len(square) == 1 else None
    pixels = to_native(square, like or draft.code.size)
    if draft.compose is not None:
        pixels = draft.compose(pixels, mask)
    return replace(scan_of(pixels), window=like.window if like else None)
