"""Removes a directory tree: of any depth, with whatever permissions, and never outside of it.

Every step works on one directory by its descriptor. What is below it is moved up beside it before
its turn comes, so no path is ever longer than a name, nothing recurses, and a link that appears
where a directory was a moment ago is removed, not followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from manymodels.storage.area import nameless

_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)


def remove(path: Path) -> list[OSError]:
    """Remove a file, a link or a directory with all in it.

    What cannot be removed stays, perhaps in pieces, beside ``path``, under names that begin with
    a dot.

    Returns:
        Why something is still there; nothing if all is gone.
    """
    failures: list[OSError] = []
    parent = os.open(path.parent, _OPEN)
    try:
        waiting, put_off = [path.name], 0
        while waiting:
            name = waiting.pop()
            try:
                found = _remove(parent, name, failures)
            except OSError as error:
                if error.errno in _FULL and put_off < len(waiting):
                    # No room even for a name: there will be, once others are gone.
                    waiting.insert(0, name)
                    put_off += 1
                else:
                    _note(error, failures)
                continue
            put_off = 0
            waiting += found
    finally:
        os.close(parent)
    return failures


def _remove(parent: int, name: str, failures: list[OSError]) -> list[str]:
    """Remove one entry of the parent; what it held is there instead, under the names returned."""
    try:
        directory = _opened(parent, name)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        os.unlink(name, dir_fd=parent)
        return []
    moved: list[str] = []
    try:
        with contextlib.suppress(OSError):
            os.fchmod(directory, 0o700)
        if _empty(parent, directory, moved, failures):
            os.rmdir(name, dir_fd=parent)
    except OSError as error:
        if not moved:
            raise
        if error.errno in _FULL:
            return [name, *moved]
        _note(error, failures)
    finally:
        os.close(directory)
    return moved


def _note(error: OSError, failures: list[OSError]) -> None:
    # What is gone already, somebody else who removes left-overs has removed.
    if not isinstance(error, FileNotFoundError):
        failures.append(error)


def _opened(parent: int, name: str) -> int:
    try:
        return os.open(name, _OPEN, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, _OPEN, dir_fd=parent)


def _empty(parent: int, directory: int, moved: list[str], failures: list[OSError]) -> bool:
    """Empty a directory as far as can be; whether nothing is known to be left."""
    known = len(failures)
    below: list[str] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                    continue
                try:
                    os.unlink(entry.name, dir_fd=directory)
                except OSError as error:
                    _note(error, failures)
    except OSError as error:
        _note(error, failures)
    for name in below:
        target = nameless()
        try:
            _move(name, directory, target, parent)
        except OSError as error:
            if error.errno in _FULL:
                raise
            _note(error, failures)
        else:
            moved.append(target)
    return len(failures) == known


def _move(name: str, directory: int, target: str, parent: int) -> None:
    try:
        os.rename(name, target, src_dir_fd=directory, dst_dir_fd=parent)
    except PermissionError:
        # A directory that changes its parent must be writable itself.
        os.chmod(name, 0o700, dir_fd=directory)
        os.rename(name, target, src_dir_fd=directory, dst_dir_fd=parent)
