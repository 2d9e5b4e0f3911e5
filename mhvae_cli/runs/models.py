"""Loading the models of a run."""

from typing import TYPE_CHECKING

from ..checkpoints.registry import resolve
from .console import print_note
from .settings import RunSettings

if TYPE_CHECKING:
    from ..inference.networks import Networks


def load_networks(settings: RunSettings, *others: str) -> "list[Networks]":
    """The networks of --model and of `others`. An unknown name fails before torch is imported.

    With --verbose each is described on stderr. ModelError or DeviceError as in `Networks.load`.
    """
    folders = [resolve(ref, offline=settings.offline) for ref in (settings.model, *others)]

    from ..inference.networks import Networks

    found = [
        Networks.load(
            folder, device=settings.device, dtype=settings.dtype, deterministic=settings.deterministic
        )
        for folder in folders
    ]
    for networks in found if settings.verbose else ():
        print_note(str(networks))
    return found
