"""mhvae: find, edit and generate one object in 2-D medical images.

`Pipeline.load("fetal-head").segment(image)` is the whole of the Python interface to begin with. Nothing
heavy is imported before a name below is touched (PEP 562).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .inference.pipeline import Pipeline
    from .vae.latents import Latents

    __version__: str

__all__ = ["Latents", "Pipeline", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Pipeline":
        from .inference.pipeline import Pipeline

        return Pipeline
    if name == "Latents":
        from .vae.latents import Latents

        return Latents
    if name == "__version__":
        from .version import version

        return version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
