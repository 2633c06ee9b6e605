"""What processes take of memory: one by itself, and all below one together.

Forks share pages, so how much a process has resident says little: what is its own does, and for
several together the proportional set size, where each page counts for a part with each that has it.
Only smaps_rollup knows either, and the kernel walks all page tables for it: 2 ms for a model
process, most of it for the zygote's pages that it shares. So `Tree` reads it again only where a
process has had page faults since.
"""

from __future__ import annotations

import heapq
import itertools
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from manymodels.backend.kernel_files import Figures, read

_PROC = Path("/proc")
_ROLLUP = Figures("Pss:", "Shared_Clean:", "Shared_Dirty:", "Private_Clean:", "Private_Dirty:")
_RESIDENT = Figures("VmHWM:", "VmRSS:")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What a process takes, in bytes; what is swapped out does not count.

    Attributes:
        private: what it alone has.
        shared: what others have too: a model process's from the zygote, and libraries.
        peak: the most that it had to itself at once since it was forked.
        proportional: what it has to itself, and its part of each shared page.
    """

    private: int
    shared: int
    peak: int
    proportional: int


def of(pid: int, proc: Path = _PROC) -> ProcessMemory:
    """Read what a process takes; 2 ms for a model process.

    The kernel keeps the peak of all that is resident. What a model process shares with the zygote
    stays resident, so what has gone since the peak was its own.

    Raises:
        ProcessLookupError: it has ended, or is not this user's to look at.
    """
    directory = f"{proc}/{pid}"
    found, resident = _ROLLUP.of(f"{directory}/smaps_rollup"), _RESIDENT.of(f"{directory}/status")
    if "Pss:" not in found:
        raise ProcessLookupError(f"process {pid} cannot be looked at")
    private = found["Private_Clean:"] + found["Private_Dirty:"]
    gone = max(0, resident.get("VmHWM:", 0) - resident.get("VmRSS:", 0))
    shared = found["Shared_Clean:"] + found["Shared_Dirty:"]
    return ProcessMemory(*(1024 * n for n in (private, shared, private + gone, found["Pss:"])))


@dataclass(frozen=True, slots=True)
class _Stat:
    """What one cheap file says of a process: who it is, and whether its memory has changed."""

    parent: int
    started: int
    faults: int
    resident: int


@dataclass(frozen=True, slots=True)
class _Reading:
    """What a process took, and what was so at that time."""

    stat: _Stat
    family: int
    private: int
    shared: int
    """Its part of what it shares."""


class Tree:
    """The memory of a process and all that descends from it: the proportional sizes' sum.

    A page that becomes a process's own is a page fault first, so a process without any keeps what
    it had. What it shares it shares with its family, siblings and parent, among which its part is
    divided anew as they come and go.
    """

    SECONDS = 0.2
    """For how long a sum is good."""
    FAULTS = 256
    """Page faults, of a page each, that are not worth a new reading: 1 MiB."""
    FAMILY = 1.5
    """How much a family may have grown or shrunk before a part of it is read again."""
    AT_ONCE = 8
    """Readings of known processes for one sum, those that have changed most first."""
    OLDEST = 2
    """And of those read longest ago: their part of a page grows as others let go of it."""

    def __init__(self, root: int, proc: Path = _PROC) -> None:
        self._root = root
        self._proc = proc
        self._readings: dict[int, _Reading] = {}
        self._sum = 0
        self._until = float("-inf")

    def proportional(self, now: float) -> int:
        """Return the sum in bytes; ``now`` is a monotonic clock's, in seconds.

        Processes that end meanwhile are left out.
        """
        if not self._until - self.SECONDS <= now < self._until:
            self._sum, self._until = self._measure(), now + self.SECONDS
        return self._sum

    def expire(self) -> None:
        """Have the next sum taken anew: something has changed that must be in it."""
        self._until = float("-inf")

    def _measure(self) -> int:
        stats = self._descendants()
        children = Counter(stat.parent for stat in stats.values())
        families = {
            pid: 1 + max(children[pid], children[stat.parent]) for pid, stat in stats.items()
        }
        self._readings = {
            pid: reading
            for pid, reading in self._readings.items()
            if pid in stats and stats[pid].started == reading.stat.started
        }
        known = {pid: self._change(pid, stats[pid], families[pid]) for pid in self._readings}
        changed = [pid for pid, change in known.items() if change > 1]
        again = heapq.nlargest(self.AT_ONCE, changed, key=known.__getitem__)
        oldest = itertools.islice(known, self.OLDEST)
        for pid in {*(stats.keys() - known.keys()), *again, *oldest}:
            self._read(pid, stats[pid], families[pid])
        return sum(self._part(pid, stats[pid], families[pid]) for pid in self._readings)

    def _change(self, pid: int, stat: _Stat, family: int) -> float:
        """How much has changed since a process was read; above 1 it is worth a new reading."""
        before = self._readings[pid]
        grown = abs(stat.resident - before.stat.resident) // _PAGE
        ratio = max(family / before.family, before.family / family)
        return max(
            (stat.faults - before.stat.faults) / self.FAULTS,
            grown / self.FAULTS,
            ratio / self.FAMILY,
        )

    def _read(self, pid: int, stat: _Stat, family: int) -> None:
        self._readings.pop(pid, None)  # the latest reading comes last
        try:
            memory = of(pid, self._proc)
        except ProcessLookupError:
            return
        shared = max(0, memory.proportional - memory.private)
        self._readings[pid] = _Reading(stat, family, memory.private, shared)

    def _part(self, pid: int, stat: _Stat, family: int) -> int:
        """What a process counts for; what it grew by without having been read is its own."""
        reading = self._readings[pid]
        grown = max(0, stat.resident - reading.stat.resident)
        return reading.private + grown + reading.shared * reading.family // family

    def _descendants(self) -> dict[int, _Stat]:
        """Return the processes of the tree, by a look at every process there is."""
        stats: dict[int, _Stat] = {}
        children: dict[int, list[int]] = {}
        for name in os.listdir(self._proc):
            if name.isdecimal() and (stat := _stat(f"{self._proc}/{name}/stat")) is not None:
                stats[int(name)] = stat
                children.setdefault(stat.parent, []).append(int(name))
        found: dict[int, _Stat] = {}
        waiting = [self._root]
        while waiting:
            pid = waiting.pop()
            if pid in stats:
                found[pid] = stats[pid]
            waiting += children.get(pid, ())
        return found


def _stat(path: str) -> _Stat | None:
    """Read a process's line; the name in it may hold anything, so what follows it counts."""
    fields = read(path).rpartition(b")")[2].split()
    if len(fields) < 22:
        return None
    parent, faults, started, pages = (int(fields[index]) for index in (1, 7, 19, 21))
    return _Stat(parent, started, faults, pages * _PAGE)
