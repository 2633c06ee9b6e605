"""Who uses a model directory: a lock on the directory itself, held by each that does.

The lock is flock(2) on a descriptor of the directory. So nothing is written into what the user
owns, a read-only directory can be locked, and a lock ends with the process that holds it, however
that ends. Those who use a directory share its lock; who fills or removes one has it alone.

By the time a lock is had, the path may lead to another directory: the old one was removed, or
fetched anew. A lock is only good if the path still leads to what was locked, so that is looked at
after.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from manymodels.errors import DirectoryGone, DirectoryInUse

LAST_USE_SECONDS = 1.0
"""How exactly the time of the last use is kept."""
_RETRY_SECONDS = 0.002
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Lease:
    """A lock on a directory, until it is closed or the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._noted = float("-inf")

    def note_use(self, now: float | None = None) -> None:
        """Record that the directory is in use now, at most once in LAST_USE_SECONDS.

        The record is the directory's modification time: nothing but making or removing an entry
        changes it otherwise, while reading a directory may change its access time. Where this
        user may not set it, the last use is not recorded.

        Args:
            now: seconds since 1970; the clock's if None.
        """
        now = time.time() if now is None else now
        # A clock that was set back counts as time gone by.
        if 0 <= now - self._noted < LAST_USE_SECONDS:
            return
        self._noted = now
        with contextlib.suppress(OSError):  # another's directory, or a read-only file system
            os.utime(self.descriptor, (now, now))

    def close(self) -> None:
        """Give the lock up. A second time does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def share(path: Path, seconds: float = 0.0) -> Lease:
    """Take a share in a directory's lock: while it is held nobody removes the directory.

    Args:
        path: the directory; no symbolic link.
        seconds: how long to wait for somebody who has it alone.

    Raises:
        DirectoryInUse: somebody still fills or removes it after that time.
        OSError: there is no such directory, it is a link, or it may not be read.
    """
    return _lock(path, fcntl.LOCK_SH, time.monotonic() + seconds)


def exclude(path: Path) -> Lease:
    """Take a directory's lock alone: it is unused, and stays so while the lock is held.

    Raises:
        DirectoryInUse: somebody uses, fills or removes it.
        OSError: there is no such directory, it is a link, or it may not be read.
    """
    return _lock(path, fcntl.LOCK_EX, time.monotonic())


def in_use(path: Path) -> bool:
    """Whether anybody uses, fills or removes a directory; OSError as `exclude` raises it."""
    try:
        exclude(path).close()
    except DirectoryInUse:
        return True
    return False


class Holding:
    """What a model process holds: its model's directory, and those between it and the root.

    The watchdog removes whole directories of the root, of which the model's may be a part
    (``/opt/ml/models/HASH/model``), so each on the way is locked.
    """

    def __init__(self, leases: list[Lease]) -> None:
        self._leases = leases

    def note_use(self, now: float | None = None) -> None:
        """Record the use of the directory that the watchdog would remove, as `Lease` does."""
        if self._leases:
            self._leases[0].note_use(now)

    def close(self) -> None:
        """Give all locks up. A second time does nothing."""
        for lease in self._leases:
            lease.close()


def hold(model_dir: Path, root: Path, seconds: float = 0.0) -> Holding:
    """Take a share in a model's directory and in each directory between it and ``root``.

    Links on the way are followed first: what is locked is where they lead. What this user may not
    read, or the file system cannot lock, is left out: the watchdog can not lock it either, and
    removes nothing that it cannot lock.

    Raises:
        DirectoryInUse: somebody still fills or removes one of them after ``seconds``.
        DirectoryGone: there is no such directory, or not any more.
    """
    until = time.monotonic() + seconds
    leases: list[Lease] = []
    try:
        for path in _way(model_dir.resolve(strict=True), root.resolve()):
            try:
                leases.append(_lock(path, fcntl.LOCK_SH, until))
            except (FileNotFoundError, NotADirectoryError):
                raise
            except OSError:
                continue
    except (FileNotFoundError, NotADirectoryError):
        Holding(leases).close()
        raise DirectoryGone(f"{model_dir} is not there any more") from None
    except BaseException:
        Holding(leases).close()
        raise
    return Holding(leases)


def _way(model_dir: Path, root: Path) -> Iterator[Path]:
    """Yield the directories below the root, outermost first, to the model's own."""
    if model_dir != root and model_dir.is_relative_to(root):
        yield from (p for p in reversed(model_dir.parents) if p != root and p.is_relative_to(root))
    yield model_dir


def _lock(path: Path, how: int, until: float) -> Lease:
    while True:
        descriptor = os.open(path, _OPEN)
        try:
            if _locked(descriptor, how) and leads_to(path, descriptor):
                lease, descriptor = Lease(path, descriptor), -1
                return lease
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if time.monotonic() >= until and path.exists():
            raise DirectoryInUse(f"{path} is in use, or is being filled or removed")
        time.sleep(_RETRY_SECONDS)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def leads_to(path: Path, descriptor: int) -> bool:
    """Whether a path still names the directory that was opened by it."""
    opened = os.fstat(descriptor)
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(named.st_mode) and os.path.samestat(opened, named)
