"""Completes snapshots by what /proc and the disk show: memory, directory sizes, leases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from manymodels.backend.snapshot import Model, Snapshot, Worker
from manymodels.errors import ManyModelsError
from manymodels.storage import in_use, size_of

REMEMBERED_SECONDS = 300.0
"""How long the memory of a process that answers nothing is taken to be what it was."""
_SUMS = {
    b"Private_Clean:": 0,
    b"Private_Dirty:": 0,
    b"Private_Hugetlb:": 0,
    b"Shared_Clean:": 1,
    b"Shared_Dirty:": 1,
    b"Shared_Hugetlb:": 1,
}


def observe(snapshot: Snapshot) -> Snapshot:
    """Add the memory of each process, and the size and lease of each model's directory.

    What cannot be looked at, or is gone meanwhile, stays None.
    """
    return MemoryObserver().observe(_observe_directories(snapshot), now=0.0)


class MemoryObserver:
    """Adds the memory of each process to one snapshot after the other.

    To look at a process costs the kernel a walk over all its pages, a third of a millisecond and
    more, so one that has answered nothing since is not looked at again for a while.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, float, tuple[int, int] | None]] = {}

    def observe(self, snapshot: Snapshot, now: float) -> Snapshot:
        """Add private and shared memory.

        Args:
            snapshot: of the same server each time.
            now: of any clock that is not set back, in seconds.
        """
        known = {}
        models = []
        for model in snapshot.models:
            workers = []
            for worker in model.workers:
                key = worker.state == "loading", worker.tally.requests, model.name
                found = self._known.get(worker.pid)
                if found is None or found[0] != key or now - found[1] > REMEMBERED_SECONDS:
                    found = key, now, memory_of(worker.pid)
                known[worker.pid] = found
                workers.append(_with_memory(worker, found[2]))
            models.append(replace(model, workers=tuple(workers)))
        self._known = known
        return replace(snapshot, models=tuple(models))


def memory_of(pid: int) -> tuple[int, int] | None:
    """Return a process's private and shared memory in bytes.

    Private is what its end would free. None if it has ended, or is another user's.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except OSError:
        return None
    sums = [0, 0]
    for name, kib, *_ in (line.split() for line in lines[1:]):
        if name in _SUMS:
            sums[_SUMS[name]] += int(kib) * 1024
    return sums[0], sums[1]


def _with_memory(worker: Worker, memory: tuple[int, int] | None) -> Worker:
    if memory is None:
        return worker
    return replace(worker, private_bytes=memory[0], shared_bytes=memory[1])


def _observe_directories(snapshot: Snapshot) -> Snapshot:
    # Several models may be loaded from one directory.
    seen: dict[str, Model] = {}
    models = []
    for model in snapshot.models:
        looked_at = seen.get(model.path) or _observe_directory(model)
        seen[model.path] = looked_at
        found = looked_at.directory_bytes, looked_at.leased
        models.append(replace(model, directory_bytes=found[0], leased=found[1]))
    return replace(snapshot, models=tuple(models))


def _observe_directory(model: Model) -> Model:
    path = Path(model.path)
    try:
        # A model's path may lead over links, its lock is on what they lead to.
        path = path.resolve(strict=True)
        leased = in_use(path)
    except (OSError, ValueError, RuntimeError, ManyModelsError):
        leased = None
    size = size_of(path)
    return replace(model, directory_bytes=size.bytes if size.inodes else None, leased=leased)
