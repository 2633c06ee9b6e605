"""What the container may use: the cgroup's memory and processors, else the machine's."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 50
"""Version 1 says 'no limit' by a number near 2^63."""


def memory_bytes(root: Path = _CGROUP) -> int:
    """Return the memory this container may use, in bytes."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _number(root / name)
        if limit is not None and 0 <= limit < _UNLIMITED:
            return min(limit, machine)
    return machine


def processors(root: Path = _CGROUP) -> int:
    """Return the processors this container may use, a share of one counting as one."""
    usable = len(os.sched_getaffinity(0))
    quota = _quota(root)
    return usable if quota is None else max(1, min(usable, math.ceil(quota)))


def _quota(root: Path) -> float | None:
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        pass
    runtime = _number(root / "cpu" / "cpu.cfs_quota_us")
    window = _number(root / "cpu" / "cpu.cfs_period_us")
    return runtime / window if runtime is not None and runtime > 0 and window else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
