"""The settings of a run as plain values; their command-line options are in `commands`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Existing = Literal["error", "skip", "overwrite"]
OnError = Literal["continue", "stop"]
Progress = Literal["auto", "on", "off"]
Solver = Literal["dpm++2m", "dpm++2m-sde", "unipc", "heun", "euler-maruyama"]
ImageFormat = Literal["png", "tiff"]
Detail = Literal["carry", "invent"]

DEFAULT_MODEL = "fetal-head"


@dataclass(frozen=True)
class RunSettings:
    """Settings of every verb that turns images into files."""

    out: str | None = None
    model: str = DEFAULT_MODEL
    device: str = "auto"
    dtype: Dtype = "auto"
    threads: int | None = None
    batch_size: int = 8
    workers: int | None = None
    seed: int = 0
    deterministic: bool = False
    offline: bool = False
    existing: Existing = "error"
    on_error: OnError = "continue"
    from_file: str | None = None
    from_file0: str | None = None
    recursive: bool = False
    window: str = "auto"
    shard: str | None = None
    as_json: bool = False
    dry_run: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: Progress = "auto"


@dataclass(frozen=True)
class GenerationSettings(RunSettings):
    """Additional settings of the verbs that generate images."""

    detail: Detail = "carry"
    no_refine: bool = False
    steps: int | None = None
    solver: Solver = "dpm++2m-sde"
    strength: float | None = None
    min_dice: float | None = None
    tries: int = 1
    save_latents: bool = False
    format: ImageFormat | None = None
    sheet: Path | None = None
    show: bool = False
