"""mhvae: find, edit and generate one object in 2-D medical images.

An implementation of "Enhancing Medical Image Generation with Anatomical Precision: A Multi-Headed VAE-Based
Diffusion Model" (anonymous, under double-blind review). Equations, figures, sections and appendices named in
docstrings are that paper's.

Start with `Pipeline.load("fetal-head").segment(image)`; the others are what `Pipeline` takes and returns.
Importing this package imports nothing heavy: each name is loaded when it is first used (PEP 562).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .diffusion.density import Density
    from .images.scan import Scan
    from .inference.pipeline import Pipeline, Segmentation
    from .inference.qc import QCResult
    from .inference.synthesis import GeneratedImage
    from .vae.editing import LatentCode
    from .vae.latents import Latents

    __version__: str

__all__ = [
    "Density",
    "GeneratedImage",
    "LatentCode",
    "Latents",
    "Pipeline",
    "QCResult",
    "Scan",
    "Segmentation",
    "__version__",
]

_MODULES = {
    "Density": "diffusion.density",
    "GeneratedImage": "inference.synthesis",
    "LatentCode": "vae.editing",
    "Latents": "vae.latents",
    "Pipeline": "inference.pipeline",
    "QCResult": "inference.qc",
    "Scan": "images.scan",
    "Segmentation": "inference.pipeline",
}
"""The module that defines each exported class."""


def __getattr__(name: str) -> object:
    if name == "__version__":
        from .version import version

        return version()
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
