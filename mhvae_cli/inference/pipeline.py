"""The Python interface: load a model once, then call it with arrays or files. The CLI uses it too."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
from PIL import Image

from ..diffusion.density import Density
from ..errors import InputError
from ..hashing import sha256_of
from ..images.read import read_scan, scan_of_image
from ..images.scan import Scan, scan_of
from ..vae.editing import LatentCode
from .certainty import Certainty
from .looking import certainty_of, encode, locate, view_of
from .networks import Networks
from .posterior import draw, probability
from .provenance import noise_key
from .qc import QCResult
from .sampling import sample_code
from .synthesis import (
    GeneratedImage,
    GenerationOptions,
    Source,
    Warping,
    draft_of,
    make,
    swap_style,
    warp_image,
)

ImageInput = np.ndarray | Path | str | Image.Image | Scan
"""A file, a Pillow image, a Scan, or an upright array (H, W) or (H, W, 3) of 8 or 16 bits."""


@dataclass(frozen=True)
class Segmentation:
    """The result of `Pipeline.segment`: mask bool (H, W) upright, theta float32 (P,).

    `pose` float64 (2, 3) maps the image to the crop that theta was found in, None for the image itself.
    `contour()` returns the exact outline: closed polygons float64 (n, 2) xy in pixels, pixel centres at +0.5.
    `quality` is the result of quality control and `certainty` says how certain the result is, after all looks
    that the model is made for; None if the model has no statistics for them. With `posterior`
    samples: `thetas` float32 (N, P), and `probability` float32 (H, W) in [0, 1], the fraction of their masks
    that contain each pixel; else None.
    """

    mask: np.ndarray
    theta: np.ndarray
    pose: np.ndarray | None
    contour: Callable[[], list[np.ndarray]]
    quality: QCResult | None
    certainty: Certainty | None = None
    thetas: np.ndarray | None = None
    probability: np.ndarray | None = None


class Pipeline:
    """A model on a device, its `networks`. Create one with `Pipeline.load`.

    The methods that generate images take the keywords of `synthesis.make`: refine, steps, solver, strength,
    seed, min_dice and tries. The same image, seed and edit give the same image. Generated images are
    synthetic.
    """

    def __init__(self, networks: Networks) -> None:
        self.networks = networks

    def __str__(self) -> str:
        return str(self.networks)

    @classmethod
    def load(
        cls,
        ref: str | Path = "fetal-head",
        *,
        device: str = "auto",
        dtype: str = "auto",
        offline: bool = False,
        deterministic: bool = False,
    ) -> "Pipeline":
        """Load a model: a bundled name, a model folder, or ORG/NAME[@REVISION] on the Hub.

        `device`: auto, cpu, cuda[:N] or mps; `dtype`: auto (bfloat16 where it is fast), float32, bfloat16 or
        float16. `deterministic`: the same bits in every run, for the whole process (other batch sizes may
        still differ in the last bits). Raises ModelError (missing, damaged, offline) or DeviceError.
        """
        return cls(
            Networks.load(ref, device=device, dtype=dtype, offline=offline, deterministic=deterministic)
        )

    def segment(
        self,
        image: ImageInput,
        *,
        looks: int = 2,
        posterior: int = 0,
        recon: bool = False,
        tta: bool = False,
        seed: int = 0,
    ) -> Segmentation:
        """Segment the object. Raises InputError if the input is not an image.

        `looks`: 2 to find the object again in a crop around it, else 1. `posterior`: the number of plausible
        outlines to sample. `recon`: also use the VAE's reconstruction for quality control, which takes half
        as long again. `tta`: see `Networks.posterior`.
        """
        networks, scan = self.networks, _scan(image)
        view = view_of(networks, scan)
        judged = networks.qc_statistics is not None  # else the style head need not run
        first = networks.examine(view.square[None], recon=recon) if judged else []
        [position] = locate(networks, [view], looks=looks, tta=tta, first=first)
        theta, pose = position.theta, position.pose
        outline = partial(networks.contour, theta, view.size, pose)
        quality = certainty = thetas = coverage = None
        if networks.qc_statistics is not None:
            rings = outline()
            if looks > 1 or not networks.config.fill:
                certainty = certainty_of(networks, position, rings, view.size)
            expected = None if certainty is None else certainty.dice
            quality = networks.qc_statistics.judge(first[0], rings, networks.jacobian(theta), expected)
        if posterior:
            key = noise_key(self._sha256(image, scan), scan.page)
            thetas = draw(position, posterior, certainty=certainty, seed=seed, key=key)
            coverage = probability(networks.mask(each, view.size, pose) for each in thetas)
        mask = networks.mask(theta, view.size, pose)
        return Segmentation(mask, theta, pose, outline, quality, certainty, thetas, coverage)

    def source(self, image: ImageInput | LatentCode) -> Source:
        """Encode an image, or wrap a latent code, as a source to generate images from."""
        if isinstance(image, LatentCode):
            digest = sha256_of(image.z.tobytes() + image.theta.tobytes())
            return Source(image, None, digest, digest)
        scan = _scan(image)
        digest = self._sha256(image, scan)
        code = encode(self.networks, view_of(self.networks, scan))
        return Source(code, scan, digest, noise_key(digest, scan.page))

    @staticmethod
    def _sha256(image: ImageInput, scan: Scan) -> str:
        return sha256_of(Path(image) if isinstance(image, str | Path) else scan.pixels.tobytes())

    def reconstruct(self, image: ImageInput | LatentCode, **how: Unpack[GenerationOptions]) -> GeneratedImage:
        """Figures 3 and 4: the image reconstructed from its latent code, at its own size."""
        return make(self.networks, [draft_of(self.source(image))], **how)[0]

    def swap_style(
        self,
        content: ImageInput | LatentCode,
        style: ImageInput | LatentCode,
        *,
        mix: float = 1.0,
        carry: bool = True,
        **how: Unpack[GenerationOptions],
    ) -> GeneratedImage:
        """Figure 5: `content` in the style of `style`; a `mix` in [0, 1] blends the styles.

        With `carry` the pixels of `style` are brought to the object's position in `content`, without it the
        whole image is generated.

        InputError for one greyscale and one colour image, if the model works in colour.
        """
        draft = swap_style(self.networks, self.source(content), self.source(style), mix=mix, carry=carry)
        return make(self.networks, [draft], **how)[0]

    def warp(
        self,
        image: ImageInput | LatentCode,
        *,
        rotate: float = 0.0,
        scale: float = 1.0,
        shift: tuple[float, float] = (0.0, 0.0),
        about: tuple[float, float] | Literal["object", "image"] = "object",
        carry: bool = True,
        **how: Unpack[GenerationOptions],
    ) -> GeneratedImage:
        """Figures 6 and 8: the image with its object rotated and scaled about a point, then shifted.

        `rotate` in degrees, counter-clockwise on the screen; `shift` and `about` are (x, y) in native pixels,
        y down; see `synthesis.Warping`. With `carry` the object's own pixels move, without it the
        whole image is generated. InputError if no object is found, or none is left after the edit.
        """
        edit = Warping(rotate, scale, shift, about)
        draft, _ = warp_image(self.networks, self.source(image), edit, carry=carry)
        return make(self.networks, [draft], **how)[0]

    def sample(
        self,
        n: int,
        *,
        size: tuple[int, int] | None = None,
        density: Density | None = None,
        **how: Unpack[GenerationOptions],
    ) -> Iterator[GeneratedImage]:
        """Figure 10, appendix G: `n` new images and masks, one at a time, of `size` (h, w) or the model's.

        Latent codes are drawn from `density`, by default that of the training images, which is stored with
        the cDDPM (ModelError without one); `Density.prior` is the alternative.
        """
        side = self.networks.config.image_size
        chosen = density or self.networks.density
        for index in range(n):
            draft = sample_code(
                self.networks, chosen, index, seed=how.get("seed", 0), size=size or (side, side)
            )
            yield make(self.networks, [draft], **how)[0]


def _scan(image: ImageInput) -> Scan:
    """The image as a Scan; InputError for anything that is none."""
    if isinstance(image, str | Path):
        return read_scan(Path(image))
    if isinstance(image, np.ndarray):
        return scan_of(image)
    if isinstance(image, Image.Image):
        return scan_of_image(image)
    if isinstance(image, Scan):
        return image
    hint = "give a path, a NumPy array, a Pillow image or a Scan"
    raise InputError(f"an object of type {type(image).__name__} is not an image", hint=hint)
