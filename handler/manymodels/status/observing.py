"""Completes snapshots by what /proc and the disk show: memory, directory sizes, leases."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from manymodels.backend import process_memory
from manymodels.status.snapshot import Model, Snapshot, Worker
from manymodels.storage import in_use, size_of

BUSY_SECONDS = 60.0
"""How long the memory of a process that answers is taken to be what it was."""
IDLE_SECONDS = 900.0
"""The same for one that answers nothing."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What a process had when it was looked at."""

    model: str
    loading: bool
    requests: int
    at: float
    memory: tuple[int, int] | None


def observe(snapshot: Snapshot) -> Snapshot:
    """Add the memory of each process, and the size and lease of each model's directory.

    What cannot be looked at, or is gone meanwhile, stays None.
    """
    return MemoryObserver().observe(_observe_directories(snapshot), now=0.0)


class MemoryObserver:
    """Adds the memory of each process to one snapshot after the other.

    To look at a process costs 2 ms, as the kernel walks over all its pages, so one is not looked at
    each time: after its load, and from then on seldom.
    """

    def __init__(self) -> None:
        self._looks: dict[int, _Look] = {}

    def observe(self, snapshot: Snapshot, now: float) -> Snapshot:
        """Add private and shared memory.

        Args:
            snapshot: of the same server each time.
            now: of a clock that is not set back, in seconds.
        """
        looks: dict[int, _Look] = {}
        models = []
        for model in snapshot.models:
            for worker in model.workers:
                looks[worker.pid] = self._look(model.name, worker, now)
            workers = tuple(_with_memory(w, looks[w.pid].memory) for w in model.workers)
            models.append(replace(model, workers=workers))
        self._looks = looks
        return replace(snapshot, models=tuple(models))

    def _look(self, model: str, worker: Worker, now: float) -> _Look:
        loading, requests = worker.state == "loading", worker.tally.requests
        last = self._looks.get(worker.pid)
        if last is not None and (last.model, last.loading) == (model, loading):
            good_for = IDLE_SECONDS if last.requests == requests else BUSY_SECONDS
            if now - last.at < good_for:
                return last
        return _Look(model, loading, requests, now, memory_of(worker.pid))


def memory_of(pid: int) -> tuple[int, int] | None:
    """Return a process's private and shared memory in bytes.

    None if it has ended, or is not this user's to look at.
    """
    try:
        found = process_memory.of(pid)
    except ProcessLookupError:
        return None
    return found.private, found.shared


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
    if not model.path.startswith("/"):
        return model
    try:
        # A model's path may lead over links; what is locked is where they lead.
        path = Path(model.path).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):  # gone; no path at all; a loop of links
        return model
    try:
        leased = in_use(path)
    except OSError:
        leased = None
    size = size_of(path)
    return replace(model, directory_bytes=size.bytes if size.inodes else None, leased=leased)
