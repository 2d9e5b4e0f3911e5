"""The cores, memory and time that a process may use, and its number of threads. Needs no torch."""

import os
import sys
from pathlib import Path

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MAX_WORKERS = 8
"""The default limit of threads that read and encode files: more of them only use more memory."""


def cores() -> int:
    """The number of cores that this process may use, by its affinity and its control groups' quota.

    At least 1. A quota of 2.5 cores counts as 2: a third thread would stall the others half of the time.
    """
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(1, affine if quota is None else min(affine, int(quota)))


def cpu_quota() -> float | None:
    """The CPU quota of this process in cores, by its control groups (Linux, v1 or v2); None: no limit."""
    quotas = []
    for folder in _groups("cpu"):
        limit = _words(folder / "cpu.max")  # v2: "200000 100000" or "max 100000"
        limit = limit or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(limit) == 2 and limit[0].isdigit() and limit[1].isdigit() and int(limit[1]):
            quotas.append(int(limit[0]) / int(limit[1]))
    return min(quotas, default=None)


def memory() -> int | None:
    """Bytes of memory that this process may use, within its control groups' limits; None: unknown."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
    limits = [
        int(words[0])
        for folder in _groups("memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if len(words := _words(folder / name)) == 1 and words[0].isdigit()
    ]
    return min([physical, *limits])


def threads() -> int:
    """The number of threads a network computes with: OMP_NUM_THREADS (set by --threads), else `cores`."""
    return _omp_num_threads() or cores()


def use_threads(count: int | None) -> None:
    """Compute networks with `count` threads, in every thread of this process.

    None: follow the user's environment variables; without any, torch's own default (that of the affinity),
    but no more than the control groups' quota, which torch ignores.
    """
    quota = cpu_quota()
    if count is None and not any(map(os.environ.get, ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))):
        count = cores() if quota is not None else None
    if count is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(count)  # torch reads it at import, for threads started later too
    os.environ.pop("MKL_NUM_THREADS", None)  # it would take precedence in torch
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def worker_count(requested: int | None) -> int:
    """The number of threads that read and encode files: `requested`, or `threads`, at most 8."""
    return min(threads(), MAX_WORKERS) if requested is None else requested


def parse_duration(text: str) -> float | None:
    """`90`, `90s`, `30m` or `2h` in seconds; None for anything else, and for more than a year."""
    try:
        value = float(text[:-1]) * SECONDS[text[-1]] if text[-1:] in SECONDS else float(text)
    except ValueError:
        return None
    return value if 0 < value < 366 * 24 * 3600 else None


def is_rank_zero() -> bool:
    """Whether this process, of those that torchrun started, is the one that prints and writes files."""
    return os.environ.get("RANK", "0") == "0"


def _omp_num_threads() -> int | None:
    """OMP_NUM_THREADS, whose first number is for the outermost level; None if it is unset or invalid."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def _groups(controller: str) -> list[Path]:
    """The folders of the control groups that limit this process, innermost first.

    A container sees its own group at the top, whatever path /proc reports: every level is checked.
    """
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        mounts = [CGROUPS / names, CGROUPS / controller] if names else [CGROUPS, CGROUPS / "unified"]
        inner = Path(path.lstrip("/"))
        folders += [mount / part for mount in mounts for part in (inner, *inner.parents)]
    return list(dict.fromkeys(folders))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
