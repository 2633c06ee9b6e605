"""What the container may use and does use: its cgroup's memory, processors and tasks.

Where no cgroup limits them, the machine does. A cgroup may lie within others, each with a limit of
its own; all from this process's cgroup up to the top of what is mounted are looked at, as a limit
further up binds too.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from manymodels.backend.cgroup_paths import legacy, unified
from manymodels.backend.kernel_files import Figures, number

_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_UNLIMITED = 1 << 50
"""Version 1 says 'no limit' by a number near 2^63."""
MACHINE = "the machine"


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Memory in bytes: what is used and cannot be reclaimed, of what there is.

    ``source`` says whose figures these are: ``cgroup v2``, ``cgroup v1`` or ``the machine``.
    """

    used: int
    limit: int
    source: str

    @property
    def free(self) -> int:
        """Bytes that may still be taken; below 0 where a limit was lowered since."""
        return self.limit - self.used


@dataclass(frozen=True, slots=True)
class TaskUse:
    """How many processes and threads there are, of how many there may be."""

    current: int
    limit: int

    @property
    def free(self) -> int:
        return self.limit - self.current


@dataclass(frozen=True, slots=True)
class _Version:
    """The names that one version has for the same figures of a memory cgroup."""

    name: str
    limit: str
    usage: str
    events: str
    figures: Figures
    """Of memory.stat: the two below, and what of the cached pages is not simply dropped."""
    cache: str
    slab: str


_V2 = _Version(
    "cgroup v2",
    "memory.max",
    "memory.current",
    "memory.events",
    Figures("file", "slab_reclaimable", "shmem", "file_mapped", "file_dirty", "file_writeback"),
    cache="file",
    slab="slab_reclaimable",
)
_V1 = _Version(
    "cgroup v1",
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    "memory.oom_control",
    Figures("total_cache", "total_shmem", "total_mapped_file", "total_dirty", "total_writeback"),
    cache="total_cache",
    slab="",
)
_KILLS = Figures("oom_kill")
_MACHINE = Figures("MemTotal:", "MemAvailable:")


class _Level:
    """One memory cgroup's files."""

    def __init__(self, version: _Version, path: Path) -> None:
        self._version = version
        self._limit = str(path / version.limit)
        self._usage = str(path / version.usage)
        self._stat = str(path / "memory.stat")
        self._events = str(path / version.events)

    @property
    def exists(self) -> bool:
        return os.path.exists(self._limit)

    def limit(self) -> int | None:
        return _limit(self._limit)

    def use(self) -> MemoryUse | None:
        limit = self.limit()
        usage = None if limit is None else number(self._usage)
        if limit is None or usage is None:
            return None
        return MemoryUse(max(0, usage - self._reclaimable()), limit, self._version.name)

    def oom_kills(self) -> int | None:
        return _KILLS.of(self._events).get("oom_kill")

    def _reclaimable(self) -> int:
        """Cached pages of files that nobody maps and that need not be written first, and slab.

        What is mapped is the libraries' code and counts as used: without it all would crawl.
        """
        version = self._version
        found = version.figures.of(self._stat)
        slab, cache = found.pop(version.slab, 0), found.pop(version.cache, 0)
        return max(0, cache - sum(found.values())) + slab


class Memory:
    """Reads the memory of this process's cgroup and of those around it.

    Where they lie is looked up once; what they say is read anew each time, in about 50 us.
    """

    def __init__(self, root: Path = _CGROUP, proc: Path = _PROC) -> None:
        self._meminfo = str(proc / "meminfo")
        levels = [_Level(_V2, path) for path in unified(root, proc)]
        levels += [_Level(_V1, path) for path in legacy("memory", root, proc)]
        self._levels = [level for level in levels if level.exists]

    def use(self) -> MemoryUse:
        """Return the figures of whichever has the least free: a cgroup or the machine."""
        uses = [use for level in self._levels if (use := level.use()) is not None]
        return min((*uses, self._machine_use()), key=lambda use: use.free)

    def limit(self) -> int:
        """Return the least limit, in bytes."""
        limits = [limit for level in self._levels if (limit := level.limit()) is not None]
        return min((*limits, _machine_bytes()))

    def oom_kills(self) -> int | None:
        """Return how many processes of this cgroup the kernel has killed for lack of memory.

        None where that is not known.
        """
        kills = (level.oom_kills() for level in self._levels)
        return next((number for number in kills if number is not None), None)

    def _machine_use(self) -> MemoryUse:
        found = _MACHINE.of(self._meminfo)
        total = found.get("MemTotal:", 0) * 1024 or _machine_bytes()
        available = found.get("MemAvailable:")
        used = 0 if available is None else max(0, total - available * 1024)
        return MemoryUse(used, total, MACHINE)


class Tasks:
    """Reads the pids controller of this process's cgroup and of those around it."""

    def __init__(self, root: Path = _CGROUP, proc: Path = _PROC) -> None:
        paths = [*unified(root, proc), *legacy("pids", root, proc)]
        files = [(str(path / "pids.max"), str(path / "pids.current")) for path in paths]
        self._levels = [pair for pair in files if os.path.exists(pair[0])]

    def use(self) -> TaskUse | None:
        """Return the figures of the cgroup that has the least free; None if none has a limit."""
        uses = []
        for maximum, now in self._levels:
            limit, current = _limit(maximum), number(now)
            if limit is not None and current is not None:
                uses.append(TaskUse(current, limit))
        return min(uses, key=lambda use: use.free, default=None)


def memory_bytes(root: Path = _CGROUP, proc: Path = _PROC) -> int:
    """Return the memory this container may use, in bytes."""
    return Memory(root, proc).limit()


def processors(root: Path = _CGROUP, proc: Path = _PROC) -> int:
    """Return the processors this container may use, a share of one counting as one."""
    usable = len(os.sched_getaffinity(0))
    quotas = [_quota(path) for path in unified(root, proc)]
    quotas += [_legacy_quota(path) for path in legacy("cpu", root, proc)]
    least = min((quota for quota in quotas if quota is not None), default=float(usable))
    return max(1, min(usable, math.ceil(least)))


def _quota(path: Path) -> float | None:
    try:
        quota, period = (path / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _legacy_quota(path: Path) -> float | None:
    runtime = number(str(path / "cpu.cfs_quota_us"))
    window = number(str(path / "cpu.cfs_period_us"))
    return runtime / window if runtime is not None and runtime > 0 and window else None


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limit(path: str) -> int | None:
    """Return a limit; None for ``max``, for none, and for what makes no sense."""
    limit = number(path)
    return limit if limit is not None and 0 <= limit < _UNLIMITED else None
