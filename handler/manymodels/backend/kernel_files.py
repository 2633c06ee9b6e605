"""Files that the kernel makes up as they are read: /proc and cgroups.

A file is opened anew each time and read by one call, so its figures belong together.
"""

from __future__ import annotations

import os
import re

_BYTES = 1 << 16


def read(path: str) -> bytes:
    """Return what is in a file, up to 64 KiB; nothing if it cannot be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, _BYTES)
        finally:
            os.close(descriptor)
    except OSError:
        return b""


def number(path: str) -> int | None:
    """Return the one whole number that a file holds, None if it does not."""
    try:
        return int(read(path))
    except ValueError:
        return None


class Figures:
    """Takes some of the figures of files whose lines are a name and a whole number each."""

    def __init__(self, *names: str) -> None:
        labels = b"|".join(re.escape(name.encode()) for name in names)
        self._lines = re.compile(rb"^(%s)[ \t]+(\d+)\b" % labels, re.MULTILINE)

    def of(self, path: str) -> dict[str, int]:
        """Return what a file has of them, by name."""
        return {name.decode(): int(value) for name, value in self._lines.findall(read(path))}
