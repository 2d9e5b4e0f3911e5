"""`mhvae doctor`: the system configuration, and a self-test of the compute devices."""

import json
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError
from ..runs.console import write_line
from . import options

if TYPE_CHECKING:
    from ..inference.selftest import Outcome

EXAMPLES = (
    "mhvae doctor",
    "mhvae doctor --device cpu --json",
)

PACKAGES = (
    "torch",
    "numpy",
    "pillow",
    "safetensors",
    "huggingface-hub",
    "scipy",
    "typer",
    "rich",
    "pydicom",
    "highdicom",
)
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")
SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "PYTORCH_ENABLE_MPS_FALLBACK")


def doctor(
    device: options.Device = "auto",
    threads: options.Threads = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the system configuration and test the compute devices.

    On every device (or the one given by --device), a small model with fixed
    weights and the bundled models encode, warp and decode an image and run
    three diffusion steps, in float32 and in the type that --dtype auto would
    choose. The CPU is compared with stored reference values, every other
    device with the CPU. If a difference exceeds the tolerance, the device
    computes wrong images and the exit code is 5. Nothing is downloaded. Tokens
    and proxies are reported only as present or absent, and the home directory
    is shown as ~.
    """
    facts: dict[str, Any] = {
        "versions": _versions(),
        "machine": _machine(),
        "models": _models(),
        "hub": _hub(os.environ),
    }
    show = partial(_print_sections, silent=as_json)
    show(facts)
    facts["devices"] = _devices()
    show({"devices": facts["devices"], "self-test": []})
    from ..devices import resolve_device
    from ..inference.selftest import check

    names = [entry["device"] for entry in facts["devices"]]
    tests = []
    for test in check(names if device == "auto" else [str(resolve_device(device))]):
        tests.append(test)
        if not as_json:
            write_line(f"  {_line(test)}")
    wrong = list(dict.fromkeys(test.device for test in tests if not test.ok))
    if as_json:
        write_line(json.dumps(facts | {"tests": [_record(test) for test in tests], "ok": not wrong}))
    if wrong:
        raise DeviceError(f"{', '.join(wrong)}: computes wrong images or fails", hint=_hint(wrong))


def _versions() -> dict[str, str]:
    from ..version import installed_version, version

    found = {"mhvae": version(), "python": platform.python_version(), "platform": platform.platform()}
    return found | {name: installed_version(name) or "not installed" for name in PACKAGES}


def _machine() -> dict[str, object]:
    """Cores, threads and memory, and the environment variables that affect them."""
    from ..resources import cores, cpu_quota, memory, threads, worker_count

    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "cores": os.cpu_count(),
        "affinity": affinity,
        "quota": cpu_quota(),
        "usable": cores(),
        "threads": threads(),
        "workers": worker_count(None),
        "memory_gib": round(size / 2**30, 1) if (size := memory()) else None,
        **{name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def _models() -> dict[str, object]:
    from ..checkpoints.registry import MODELS, bundled, home, imported

    return {
        "folder": _tilde(MODELS),
        "bundled": bundled(),
        "home": _tilde(home()),
        "imported": imported(),
    }


def _hub(environment: Mapping[str, str]) -> dict[str, object]:
    """The Hub client's cache, and whether it may use the network, from its environment variables."""
    cache = environment.get("XDG_CACHE_HOME") or "~/.cache"
    home = Path(environment.get("HF_HOME") or f"{cache}/huggingface").expanduser()
    token = Path(environment.get("HF_TOKEN_PATH") or home / "token").expanduser()
    has_token = any(map(environment.get, ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))) or token.is_file()
    offline = (
        environment.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "MHVAE_OFFLINE")
    )
    return {
        "cache": _tilde(Path(environment.get("HF_HUB_CACHE") or home / "hub").expanduser()),
        "offline": any(value.upper() in ("1", "ON", "YES", "TRUE") for value in offline),
        "token": bool(has_token),
        "endpoint": "HF_ENDPOINT" in environment,
        "proxies": [name for name in PROXIES if name in environment or name.lower() in environment],
    }


def _devices() -> list[dict[str, Any]]:
    """The devices available to torch, with name for --device and memory. DeviceError without torch."""
    try:
        import torch
    except (ImportError, OSError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DeviceError(f"torch cannot be imported: {first}", hint="reinstall torch") from error

    from ..devices import resolve_device, resolve_dtype
    from ..resources import memory

    found: list[tuple[str, str, int | None]] = [("cpu", platform.processor() or platform.machine(), memory())]
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        found.append((f"cuda:{index}", card.name, card.total_memory))
    if torch.backends.mps.is_available():
        found.append(("mps", "Apple GPU", torch.mps.recommended_max_memory()))
    return [
        {
            "device": name,
            "name": model,
            "memory_gib": size and round(size / 2**30, 1),
            "dtype": str(resolve_dtype("auto", resolve_device(name))).removeprefix("torch."),
        }
        for name, model, size in found
    ]


def _line(test: "Outcome") -> str:
    """One line for a test: the stage with the largest error relative to its tolerance."""
    where = f"{test.device} {test.dtype}, {test.model}"
    if test.fault is not None:
        return f"{where}: FAILED: {test.fault}"
    stage = max(test.off, key=lambda name: test.off[name] / test.allowed[name])
    figures = f"{stage} off by {test.off[stage]:.1e}, tolerance {test.allowed[stage]:.0e}"
    return f"{where}: {'ok' if test.ok else 'WRONG'}: {figures}"


def _hint(wrong: list[str]) -> str:
    """What to do about devices that compute wrong results."""
    if "cpu" in wrong:
        return "try OMP_NUM_THREADS=1 mhvae doctor: if it passes, threading is at fault; else reinstall torch"
    return "use --device cpu until the test passes with another version of torch or of the driver"


def _record(test: "Outcome") -> dict[str, object]:
    """A test for --json; non-finite errors become null."""
    off = {name: value if math.isfinite(value) else None for name, value in test.off.items()}
    return asdict(test) | {"off": off, "ok": test.ok}


def _print_sections(facts: Mapping[str, Any], *, silent: bool) -> None:
    """Print one section per key, one line per fact."""
    for title, section in () if silent else facts.items():
        write_line(title)
        rows = section.items() if isinstance(section, dict) else ((row["device"], row) for row in section)
        for key, value in rows:
            write_line(f"  {key}: {_format(value)}")


def _format(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['name']}, {value['memory_gib'] or '?'} GiB, auto is {value['dtype']}"
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _tilde(path: Path) -> str:
    """A path with ~ for the home directory, whose name often identifies a person."""
    home = Path("~").expanduser()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) and home != Path("/") else str(path)
