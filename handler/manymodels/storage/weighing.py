"""What a root holds, looked at again only where something may have changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from manymodels.storage.volume import Size, size_of

REMEMBERED_SECONDS = 300.0
"""How long a directory that does not change is taken to be what it was."""


@dataclass(frozen=True, slots=True)
class _Weighed:
    inode: int
    size: Size
    at: float


class Scales:
    """Adds up what is in a root. A directory is measured anew while it is still arriving."""

    def __init__(self, root: Path, settle_seconds: float) -> None:
        self._root = root
        self._settle = settle_seconds
        self._known: dict[str, _Weighed] = {}

    def total(self, now: float) -> int:
        """Return the bytes on disk of all that is in the root.

        Args:
            now: seconds since 1970.

        Raises:
            OSError: the root cannot be read.
        """
        known, total = {}, 0
        with os.scandir(self._root) as entries:
            for entry in entries:
                weighed = self._known.get(entry.name)
                if weighed is None or not self._holds(weighed, entry.inode(), now):
                    weighed = _Weighed(entry.inode(), size_of(Path(entry.path)), now)
                known[entry.name] = weighed
                total += weighed.size.bytes
        self._known = known
        return total

    def _holds(self, weighed: _Weighed, inode: int, now: float) -> bool:
        settled = weighed.at - weighed.size.changed > self._settle
        fresh = 0 <= now - weighed.at < REMEMBERED_SECONDS
        return weighed.inode == inode and settled and fresh
