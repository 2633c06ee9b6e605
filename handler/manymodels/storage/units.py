"""The model directories of a root: what is there, and which of it may be removed.

A unit is a directory right below the root, as SageMaker makes one a model. What is hidden, a link,
or where a file system is mounted is none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

NOT_MODELS = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True)
class Unit:
    """One model directory, and when it was used last, in seconds since 1970."""

    path: Path
    last_use: float
    inode: int


def units(root: Path) -> list[Unit]:
    """Return the units of a root, the least recently used first.

    Raises:
        OSError: the root cannot be read.
    """
    return sorted(_units(root), key=lambda unit: (unit.last_use, unit.path.name))


def _units(root: Path) -> Iterator[Unit]:
    device = os.stat(root).st_dev
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in NOT_MODELS:
                continue
            try:
                if not entry.is_dir(follow_symlinks=False):
                    continue
                found = entry.stat(follow_symlinks=False)
            except OSError:  # gone meanwhile
                continue
            if found.st_dev == device:
                yield Unit(root / entry.name, found.st_mtime, found.st_ino)


def set_back(found: list[Unit], now: float) -> list[Unit]:
    """Bring what was used in the future to the present, keeping its order.

    The clock was set back: what was used before that would count as in use for as long as it was
    set back by, and what is used from now on would go before it.
    """
    ahead = [unit for unit in found if unit.last_use > now]
    behind = [unit for unit in found if unit.last_use <= now]
    moved = []
    for rank, unit in enumerate(sorted(ahead, key=lambda unit: unit.last_use, reverse=True)):
        last_use = now - rank * 0.001
        with contextlib.suppress(OSError):
            os.utime(unit.path, (last_use, last_use), follow_symlinks=False)
        moved.append(Unit(unit.path, last_use, unit.inode))
    return sorted(behind + moved, key=lambda unit: (unit.last_use, unit.path.name))
