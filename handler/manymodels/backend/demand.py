"""What a load will need of memory, as far as the model's directory tells before it is loaded."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from manymodels.backend.artifact_kinds import HEAD_BYTES, Kind, by_head, by_name
from manymodels.settings import MIB

PROCESS_BYTES = 8 * MIB
"""What any model process takes: a small model 4 to 5 MiB loaded, 6 after its first requests."""
AROUND_BYTES = 2 * MIB
"""What a model takes elsewhere: 1 to 1.5 MiB in the JVM, and page tables and a placeholder."""
BASE_BYTES = PROCESS_BYTES + AROUND_BYTES
MOST_ENTRIES = 512
MOST_DEPTH = 3
"""How far a directory is looked at: it happens in an event loop. What is beyond has no weight."""
_SMALL = 64 * 1024
"""Below this a file's kind makes no difference."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What is known of a load before it.

    Attributes:
        key: names what has been learned of this model: the names and sizes of its files. The same
            after the platform has deleted it and fetched it again, which inode and time are not,
            and the same for models that are alike to the byte in size, which take as much.
        kind: what is learned of one model of it tells of others.
        fixed: bytes that any model of the kind takes beyond the base, at a first guess.
        expected: bytes that its files take beyond these, at a first guess.
    """

    key: bytes
    kind: str
    fixed: int = 0
    expected: int = 0

    @property
    def guess(self) -> int:
        """The bytes that the load needs if nothing has been learned."""
        return BASE_BYTES + self.fixed + self.expected

    @classmethod
    def of(cls, directory: str | os.PathLike[str]) -> Demand:
        """Look at a model's directory: 0.1 ms for a file, 1 ms if compressed, 6 ms if by xz.

        What cannot be read has no weight; nothing is raised.
        At most MOST_ENTRIES entries are looked at, MOST_DEPTH levels deep, and of a file its first
        64 KiB at most. Links to directories are not followed.
        """
        files, code, fixed = [], False, 0
        expected: dict[str, float] = {}
        for file in _files(os.fspath(directory)):
            files.append(f"{file.name}\0{file.size}")
            code = code or file.name.endswith(".py")
            kind, ratio = file.kind()
            fixed = max(fixed, kind.fixed)
            weight = kind.factor * ratio * file.size
            expected[kind.name] = expected.get(kind.name, 0.0) + weight
        name = max(expected, key=expected.__getitem__, default="nothing")
        if not files:
            files.append(os.fspath(directory))
        key = hashlib.blake2b("\n".join(sorted(files)).encode(errors="surrogateescape"))
        # What code brings along is its own: libraries that it imports, say.
        name += " with code" if code else ""
        return cls(key.digest()[:16], name, fixed, int(sum(expected.values())))


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    name: str
    """Relative to the model's directory."""
    size: int

    def kind(self) -> tuple[Kind, float]:
        """Return the kind of file, and how much larger it is when it is uncompressed."""
        named = by_name(os.path.basename(self.name), os.sep not in self.name)
        if self.size < _SMALL:
            return named, 1.0
        try:
            with open(self.path, "rb", buffering=0) as file:
                return by_head(named, file.read(HEAD_BYTES))
        except OSError:
            return named, 1.0


def _files(directory: str) -> Iterator[_File]:
    """Yield the regular files of a directory, those of a level before those below it."""
    left, waiting = MOST_ENTRIES, [("", 1)]
    for prefix, depth in waiting:
        for entry in _entries(os.path.join(directory, prefix), left):
            left -= 1
            name = os.path.join(prefix, entry.name)
            with contextlib.suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    if depth < MOST_DEPTH:
                        waiting.append((name, depth + 1))
                elif entry.is_file():
                    yield _File(entry.path, name, entry.stat().st_size)


def _entries(directory: str, most: int) -> list[os.DirEntry[str]]:
    """Return the entries of a directory; of more than are looked at, which ones is chance."""
    entries: list[os.DirEntry[str]] = []
    try:
        with os.scandir(directory) as scan:
            while len(entries) < most:
                entries.append(next(scan))
    except (StopIteration, OSError, ValueError):  # ValueError: a NUL in the path
        pass
    return entries
