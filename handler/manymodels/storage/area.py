"""The one directory of ours in a root: what is being filled or removed, until it is.

Everything in it is either locked by somebody who works on it, or a left-over of somebody who was
killed. It is told from a user's directory of the same name by a file that says what it is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from manymodels.storage.leases import Lease, exclude

NAME = ".manymodels"
SIGN = "README"
_SAYS = b"""manymodels keeps here what it is about to remove, and what is still arriving.
Whatever is in this directory and not in use may be removed at any time.
"""
_NAMES = (NAME, *(f"{NAME}-{number}" for number in range(1, 10)))
"""A name that a user has taken is passed over."""


def find(root: Path) -> Path | None:
    """Return the root's area, None if there is none yet."""
    return next((root / name for name in _NAMES if _is_ours(root / name)), None)


def make(root: Path) -> Path:
    """Return the root's area, made if need be.

    Raises:
        OSError: it cannot be made: a full or read-only volume, or no permission.
    """
    found = find(root)
    if found is not None:
        return found
    for name in _NAMES:
        path = root / name
        with contextlib.suppress(FileExistsError):
            path.mkdir(0o700)
        # An empty one may be of somebody who was killed before he could sign it.
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            (path / SIGN).write_bytes(_SAYS)
            return path
    raise FileExistsError(f"{root / NAME} and its like are taken")


def _is_ours(path: Path) -> bool:
    try:
        return not path.is_symlink() and (path / SIGN).read_bytes() == _SAYS
    except OSError:
        return False


def discard(directory: Path, root: Path) -> Path:
    """Take a directory out of the root, in one step; return where it is now.

    Whoever calls this has its lock alone, and goes on to remove it.

    Raises:
        OSError: it cannot be renamed.
    """
    unique = secrets.token_hex(8)
    try:
        target = make(root) / f"{directory.name[:100]}.{unique}"
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # The volume has no room for a directory of ours; a rename needs none.
        target = root / f"{NAME}.{unique}"
    os.rename(directory, target)
    return target


def left_over(root: Path) -> list[Path]:
    """Return all that is in the root's area; what nobody works on is left over from a crash."""
    path = find(root)
    if path is None:
        return []
    try:
        return sorted(entry for entry in path.iterdir() if entry.name != SIGN)
    except OSError:
        return []


def claim(left: Path) -> Lease | None:
    """Take a left-over for oneself; None where it is no directory, and so has no lock.

    Raises:
        DirectoryInUse: somebody works on it.
    """
    try:
        return exclude(left)
    except OSError:
        return None
