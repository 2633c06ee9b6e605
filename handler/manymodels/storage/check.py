"""Finds what does not fit together: the root's directories, the locks on them, the processes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from manymodels.errors import DirectoryInUse
from manymodels.storage import area
from manymodels.storage.leases import exclude
from manymodels.storage.units import units


@dataclass(frozen=True, slots=True)
class InUse:
    """A model that is said to be loaded: its name, its directory, and its processes' ids."""

    name: str
    path: Path
    pids: tuple[int, ...] = ()


def check(root: Path, models: Iterable[InUse] = ()) -> list[str]:
    """Look for what should not be, while no load, unload or eviction is under way.

    Args:
        root: where model directories are.
        models: those that are loaded from it; every lease in the root must be of one of them.

    Returns:
        A line for each thing that is wrong: a left-over, a model without its directory or its
        lease, a lease without a model, a process that has ended. Nothing if all is well.
    """
    models = list(models)
    return [*_left_over(root), *_wrong_models(models), *_stray_leases(root, models)]


def _left_over(root: Path) -> Iterator[str]:
    for left in area.left_over(root):
        try:
            lease = area.claim(left)
        except DirectoryInUse:
            continue
        if lease is not None:
            lease.close()
        yield f"{left} is left over, and nobody works on it"


def _wrong_models(models: Iterable[InUse]) -> Iterator[str]:
    for model in models:
        for pid in model.pids:
            if not Path(f"/proc/{pid}").exists():
                yield f"model {model.name}: its process {pid} has ended"
        try:
            unlocked = _unlocked(model.path)
        except OSError as error:
            yield f"model {model.name}: {model.path}: {error.strerror}"
            continue
        if unlocked:
            yield f"model {model.name}: no process has a lease on {model.path}"


def _stray_leases(root: Path, models: Iterable[InUse]) -> Iterator[str]:
    used = [model.path.resolve() for model in models]
    for unit in units(root) if root.is_dir() else ():
        real = unit.path.resolve()
        if not _unlocked(unit.path) and not any(path.is_relative_to(real) for path in used):
            who = ", ".join(map(str, holders(unit.path))) or "an unknown process"
            yield f"{unit.path} is held by {who}, but no model there is loaded"


def _unlocked(path: Path) -> bool:
    try:
        exclude(path).close()
    except DirectoryInUse:
        return False
    return True


def holders(path: Path, locks: Path = Path("/proc/locks")) -> list[int]:
    """Return the ids of the processes that took a lock on a directory, as the kernel lists them."""
    found = os.stat(path)
    identity = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    pids = set()
    for line in locks.read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and identity in fields:
            pids.add(int(fields[fields.index(identity) - 1]))
    return sorted(pids)
