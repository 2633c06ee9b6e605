"""How full a volume is, and what a directory takes of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK_BYTES = 512
"""The unit of st_blocks, whatever the file system's block is."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and inodes of a volume, or of a budget; ``inodes`` is 0 where there is no limit."""

    used: int
    size: int
    inodes_used: int = 0
    inodes: int = 0

    @property
    def share(self) -> float:
        """The used part, from 0 to 1, as df has it."""
        return self.used / self.size if self.size else 0.0

    @property
    def inodes_share(self) -> float:
        return self.inodes_used / self.inodes if self.inodes else 0.0


def usage(path: Path) -> Usage:
    """Return how full the volume of a path is, what root alone may use counting as used.

    Raises:
        OSError: the path is not there, or its volume does not answer.
    """
    found = os.statvfs(path)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    available = found.f_bavail * found.f_frsize
    inodes_used = found.f_files - found.f_ffree
    return Usage(used, used + available, inodes_used, inodes_used + found.f_favail)


@dataclass(frozen=True, slots=True)
class Size:
    """What a directory takes: bytes on disk, inodes, and when something in it changed last.

    ``changed`` is seconds since 1970, of the entries in it; only of an empty directory it is its
    own, as recording a use changes that, too.
    """

    bytes: int = 0
    inodes: int = 0
    changed: float = 0.0


def size_of(directory: Path) -> Size:
    """Measure a directory and all in it. Links are not followed; what cannot be read counts 0."""
    seen: set[int] = set()
    size, inodes, changed = 0, 0, 0.0
    try:
        own = os.lstat(directory)
    except OSError:
        return Size()
    below = _below(directory) if stat.S_ISDIR(own.st_mode) else ()
    for found in (own, *below):
        # A file with several names takes its room once.
        if found.st_nlink > 1 and found is not own:
            if found.st_ino in seen:
                continue
            seen.add(found.st_ino)
        size += found.st_blocks * _BLOCK_BYTES
        inodes += 1
        # A modification time may be an archive's; a change time is this machine's.
        changed = changed if found is own else max(changed, found.st_ctime)
    return Size(size, inodes, changed or own.st_ctime)


def _below(directory: Path) -> Iterator[os.stat_result]:
    waiting: list[str | Path] = [directory]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    yield entry.stat(follow_symlinks=False)
        except OSError:
            continue


def mount_points(mountinfo: Path = Path("/proc/self/mountinfo")) -> list[Path]:
    """Return where file systems are mounted; none where the kernel does not say."""
    try:
        lines = mountinfo.read_bytes().splitlines()
    except OSError:
        return []
    return [Path(os.fsdecode(_unescaped(line.split()[4]))) for line in lines]


def _unescaped(field: bytes) -> bytes:
    for escape, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n")):
        field = field.replace(escape, character)
    return field.replace(b"\\134", b"\\")
