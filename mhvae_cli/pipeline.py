"""Load a model once, then ask it: arrays in, arrays out. The command line does no more than this."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from .checkpoint import load_state, read_config, resolve
from .config import ModelConfig, check_model, from_dict
from .devices import resolve_device, resolve_dtype
from .errors import ModelError, UsageError
from .imaging import Scan, read_scan, scan_of, to_square
from .vae.contour import contours
from .vae.encoder import fold_batch_norms
from .vae.model import MultiHeadedVAE, build
from .vae.raster import Level, rasterise


@dataclass(frozen=True)
class Segmentation:
    """What `Pipeline.segment` finds: mask bool (H, W) upright, theta float32 (P,).

    `contour()` gives the exact outline: closed polygons float64 (n, 2) xy in pixels, pixel centres at +0.5.
    """

    mask: np.ndarray
    theta: np.ndarray
    contour: Callable[[], list[np.ndarray]]


class Pipeline:
    """A model on a device. Make one with `Pipeline.load`."""

    def __init__(
        self, model: MultiHeadedVAE, *, name: str, folder: Path, device: torch.device, dtype: torch.dtype
    ) -> None:
        fold_batch_norms(model.eval().encoder.convnet)
        self.model = model.to(device=device, memory_format=torch.channels_last)
        self.model.encoder.convnet.to(dtype)
        self.model.segmentation_head.cpu()  # outlines are evaluated in float64, which MPS has not
        self.config = model.config
        self.name, self.folder, self.device, self.dtype = name, folder, device, dtype

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
        """A bundled name, a folder, or ORG/NAME[@REVISION] on the Hub.

        `device`: auto, cpu, cuda[:N] or mps; `dtype`: auto (bfloat16 where it is fast), float32, bfloat16 or
        float16. `deterministic`: the same bits on every run, for the whole process (a batch of another size
        may still differ in its last bits). Raises ModelError (missing, damaged, offline) or DeviceError.
        """
        if deterministic:
            torch.use_deterministic_algorithms(True)
        place = resolve_device(device)
        number = resolve_dtype(dtype, place)
        folder = resolve(ref, offline=offline)
        model, name = load_model(folder)
        return cls(model, name=name, folder=folder, device=place, dtype=number)

    def prepare(self, scan: Scan) -> np.ndarray:
        """The network's input, float32 (C, S, S) in [-1, 1]; runs no torch, so any thread may call it."""
        return to_square(scan.pixels, self.config.image_size, self.config.channels)

    @torch.inference_mode()
    def locate(self, batch: np.ndarray) -> np.ndarray:
        """The posterior mean of theta, float32 (B, P), of `prepare`d images (B, C, S, S)."""
        self._need_position()
        image = torch.from_numpy(np.require(batch, requirements="W")).to(
            self.device, memory_format=torch.channels_last
        )
        return self.model.locate(image).mean.cpu().numpy()

    def mask(self, theta: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The mask bool (h, w) of theta (P,), evaluated at that size; nothing is resized."""
        return rasterise(self._level(theta), size)

    def contour(self, theta: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
        """The exact outline of theta (P,) in an image of `size` (h, w): closed polygons (n, 2) xy in pixels.

        The frame is 0..w by 0..h, pixel centres at +0.5; outer rings have a positive shoelace area.
        """
        level = self._level(theta)
        polygons = contours(level) or contours(level, cells=512)
        return [(p + 1) / 2 * [size[1], size[0]] for p in polygons]

    def segment(self, image: np.ndarray | Path | str | Scan) -> Segmentation:
        """Find the object in a file, a Scan, or an upright array (H, W) or (H, W, 3) of 8 or 16 bits.

        Raises InputError for what is no image.
        """
        if isinstance(image, str | Path):
            image = read_scan(Path(image))
        scan = image if isinstance(image, Scan) else scan_of(image)
        theta = self.locate(self.prepare(scan)[None])[0]
        size = scan.pixels.shape[:2]
        return Segmentation(self.mask(theta, size), theta, partial(self.contour, theta, size))

    def _level(self, theta: np.ndarray) -> Level:
        return partial(self.model.level, torch.from_numpy(theta)[None])

    def _need_position(self) -> None:
        if self.model.warp is None:
            raise ModelError(f"{self.name}: a single-headed VAE finds no object")


def load_model(folder: Path) -> tuple[MultiHeadedVAE, str]:
    """The model of a folder and its name: no weights are drawn, those of the file are taken over."""
    content = read_config(folder)
    try:
        config = from_dict(ModelConfig, content["model"], where="model.")
        check_model(config)
    except UsageError as error:
        raise ModelError(f"{folder}: {error}") from error
    model = build(config, seed=None)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    state = load_state(folder, expected=shapes)
    ready = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    model.load_state_dict(ready, assign=True)
    return model, content["name"]
