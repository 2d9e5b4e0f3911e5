"""The options that every verb which makes pictures has."""

import inspect
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

from . import options


@dataclass(frozen=True)
class Shared:
    """The options that every such verb has, as the user gave them."""

    out: options.Out = None
    model: options.Model = options.DEFAULT_MODEL
    no_refine: options.NoRefine = False
    steps: options.Steps = 20
    solver: options.Solver = "dpm++2m-sde"
    strength: options.Strength = None
    min_dice: options.MinDice = None
    tries: options.Tries = 1
    save_latents: options.SaveLatents = False
    format: options.MadeFormat = None
    sheet: options.Sheet = None
    show: options.Show = False
    device: options.Device = "auto"
    dtype: options.Dtype = "auto"
    threads: options.Threads = None
    batch_size: options.BatchSize = 8
    workers: options.Workers = None
    seed: options.Seed = 0
    deterministic: options.Deterministic = False
    offline: options.Offline = False
    existing: options.Existing = "error"
    on_error: options.OnError = "continue"
    from_file: options.FromFile = None
    recursive: options.Recursive = False
    window: options.Window = "auto"
    shard: options.Shard = None
    as_json: options.Json = False
    dry_run: options.DryRun = False
    quiet: options.Quiet = False
    verbose: options.Verbose = False
    progress: options.Progress = "auto"


def generative(verb: Callable[..., None], *, without: Collection[str] = ()) -> Callable[..., None]:
    """Give a verb the options of `Shared`, which it gets as the one keyword `shared`.

    Those that say nothing to it it does `without`: they keep their defaults.
    """
    hints = typing.get_type_hints(Shared, include_extras=True)
    offered = [each for each in fields(Shared) if each.name not in without]
    signature = inspect.signature(verb)
    parameters = [each for each in signature.parameters.values() if each.name != "shared"]
    for each in offered:
        kind, hint = inspect.Parameter.KEYWORD_ONLY, hints[each.name]
        parameters.append(inspect.Parameter(each.name, kind, default=each.default, annotation=hint))

    @wraps(verb)
    def command(**values: Any) -> None:
        shared = Shared(**{each.name: values.pop(each.name) for each in offered})
        verb(**values, shared=shared)

    command.__annotations__ = {each.name: each.annotation for each in parameters}
    vars(command)["__signature__"] = signature.replace(parameters=parameters)
    return command
