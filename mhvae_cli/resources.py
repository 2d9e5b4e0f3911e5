"""What of a machine a process may use, and how many threads compute in it. Needs no torch."""

import os
import sys
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
MOST_WORKERS = 8
"""Threads, at most, that read and encode files by default: more of them only hold more in memory."""


def cores() -> int:
    """The cores that this process may use: those of its affinity, and its control groups' quota at most.

    At least 1. A quota of 2.5 cores counts as 2: a third thread would hold up the others half of the time.
    """
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return max(1, affine if quota is None else min(affine, int(quota)))


def cpu_quota() -> float | None:
    """How many cores' time the control groups (Linux, v1 or v2) leave this process; None: no limit."""
    quotas = []
    for folder in _groups("cpu"):
        limit = _words(folder / "cpu.max")  # v2: "200000 100000" or "max 100000"
        limit = limit or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        if len(limit) == 2 and limit[0].isdigit() and limit[1].isdigit() and int(limit[1]):
            quotas.append(int(limit[0]) / int(limit[1]))
    return min(quotas, default=None)


def memory() -> int | None:
    """Bytes of memory that this process may use, the control groups' limit at most; None: unknown."""
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
    """How many threads a network computes with: OMP_NUM_THREADS (what --threads sets), else `cores`."""
    return _asked() or cores()


def use_threads(count: int | None) -> None:
    """Have networks computed with `count` threads, in every thread of this process.

    None: as many as the user's own settings say; without any, torch's own number (that of the affinity), but
    no more than the control groups' quota, of which torch knows nothing.
    """
    quota = cpu_quota()
    if count is None and not any(map(os.environ.get, ("OMP_NUM_THREADS", "MKL_NUM_THREADS"))):
        count = cores() if quota is not None else None
    if count is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(count)  # read when torch is imported, for threads yet to come too
    os.environ.pop("MKL_NUM_THREADS", None)  # torch would heed it more
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def worker_count(asked: int | None) -> int:
    """How many threads read and encode files: `asked`, or as many as compute, at most 8."""
    return min(threads(), MOST_WORKERS) if asked is None else asked


def is_rank_zero() -> bool:
    """Whether this process is the one that speaks and writes, of those that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def _asked() -> int | None:
    """OMP_NUM_THREADS, whose first number is that of the outermost level; None if it says nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) else None


def _groups(controller: str) -> list[Path]:
    """The folders of the control groups that limit this process, innermost first.

    A container sees its own group at the top, whatever path /proc says it has: every level is looked at.
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
