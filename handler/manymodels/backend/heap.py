"""The holes in the zygote's heaps, used up before it forks.

What a process frees leaves free blocks scattered over its memory, and what a fork allocates goes
into them first: a hundred small objects in a hundred shared pages, each of which it must copy.
With the holes gone they come from fresh pages, side by side.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys

_ALIGNMENT = 16
_BYTES_OVERHEAD = sys.getsizeof(b"")
_C_SIZES = (*range(24, 1032, 16), *(1 << power for power in range(11, 17)))
_MOST_PER_SIZE = 20_000
_filling: list[object] = []


def fill_holes() -> None:
    """Allocate, and keep, as many blocks of each size as are free between used ones."""
    _fill_c_heap()
    for size, free in _free_blocks().items():
        _filling.extend(_of_size(size) for _ in range(free))


def _of_size(size: int) -> object:
    """Make a Python object that takes one block of that many bytes."""
    if size < _BYTES_OVERHEAD:
        return object() if size == _ALIGNMENT else float(len(_filling))
    return bytes(size - _BYTES_OVERHEAD)


def _free_blocks() -> dict[int, int]:
    """Return how many of Python's small blocks are free, by size; CPython only prints it."""
    reader, writer = os.pipe()
    stderr = os.dup(2)
    os.dup2(writer, 2)
    try:
        sys._debugmallocstats()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(writer)
    with os.fdopen(reader) as report:
        rows = re.findall(r"^ *\d+ +(\d+) +\d+ +\d+ +(\d+)$", report.read(), re.MULTILINE)
    return {int(size): int(free) for size, free in rows}


def _fill_c_heap() -> None:
    """Allocate each size until a block comes from the end of the heap."""
    malloc = ctypes.CDLL(None).malloc
    malloc.restype, malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    end = malloc(_C_SIZES[-1] * 2 - 64)
    for size in _C_SIZES:
        for _ in range(_MOST_PER_SIZE):
            if (malloc(size) or 0) > end:
                break
