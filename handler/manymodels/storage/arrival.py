"""How a model directory comes into a root: whole, in one step, and in use from the first moment.

It is filled in the root's area under its lock and renamed into place. Killed on the way, or out
of room, it leaves nothing in the root, and what is in the area is removed as a left-over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from manymodels.errors import DirectoryInUse
from manymodels.storage import area
from manymodels.storage.leases import Lease, exclude, leads_to
from manymodels.storage.removal import remove


class Arrival:
    """A directory that is being filled, at ``path``, until it is placed."""

    def __init__(self, path: Path, target: Path, lease: Lease) -> None:
        self.path = path
        self._target = target
        self._lease: Lease | None = lease

    def place(self) -> Lease:
        """Put the directory where it belongs; return a share in its lock, to be closed.

        Raises:
            OSError: there is something of that name in the root already.
            DirectoryInUse: somebody took the directory away at that very moment.
        """
        assert self._lease is not None, "placed already"
        # A rename would take the place of an empty directory, which may be somebody's.
        if os.path.lexists(self._target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._target))
        os.rename(self.path, self._target)
        lease = Lease(self._target, self._lease.descriptor)
        self._lease = None
        lease.note_use()
        # The one lock is given up before the other is had, so somebody may come between.
        fcntl.flock(lease.descriptor, fcntl.LOCK_SH)
        if not leads_to(self._target, lease.descriptor):
            lease.close()
            raise DirectoryInUse(f"{self._target} was removed as soon as it had arrived")
        return lease

    def abandon(self) -> None:
        """Remove what has not been placed. A second time does nothing."""
        if self._lease is not None:
            remove(self.path)
            self._lease.close()
            self._lease = None


@contextlib.contextmanager
def arriving(root: Path, name: str) -> Iterator[Arrival]:
    """Make a directory to be filled and placed in a root; it is gone if it is not placed.

    Args:
        root: where model directories are.
        name: the directory's name there.

    Raises:
        OSError: no directory can be made.
    """
    lease = _made(root, name)
    arrival = Arrival(lease.path, root / name, lease)
    try:
        yield arrival
    finally:
        arrival.abandon()


def _made(root: Path, name: str) -> Lease:
    """Make a directory in the root's area, locked."""
    while True:
        path = area.room(root, name)
        path.mkdir()
        try:
            return exclude(path)
        except (DirectoryInUse, FileNotFoundError):
            # Until it is locked it is a left-over to whoever looks for one, and is removed.
            continue
