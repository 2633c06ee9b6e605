"""The one directory of ours in a root: what is being filled or removed, until it is.

Everything in it is either locked by somebody who works on it, or a left-over of somebody who was
killed. It is told from a user's directory of the same name by a file that says what it is. A
volume that has no room for it has what is being removed in the root itself, under a hidden name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from manymodels.storage.leases import Lease, exclude

NAME = ".manymodels"
SIGN = "README"
_SAYS = b"""manymodels keeps here what it is about to remove, and what is still arriving.
Whatever is in this directory and not in use may be removed at any time.
"""
_NAMES = (NAME, *(f"{NAME}-{number}" for number in range(1, 10)))
"""A name that a user has taken is passed over."""
_NAMELESS = re.compile(re.escape(NAME) + r"\.[0-9a-f]{16}")
_FULL = (errno.ENOSPC, errno.EDQUOT)


def find(root: Path) -> Path | None:
    """Return the root's area, None if there is none yet."""
    return next(_ours(root), None)


def _ours(root: Path) -> Iterator[Path]:
    return (root / name for name in _NAMES if _signature(root / name) == _SAYS)


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
        if _unsigned(path):
            (path / SIGN).write_bytes(_SAYS)
            return path
    raise FileExistsError(f"{root / NAME} and its like are taken")


def _unsigned(path: Path) -> bool:
    """Whether it may be of somebody who was killed, or out of room, before he could sign it."""
    if path.is_symlink() or not path.is_dir():
        return False
    names = os.listdir(path)
    signature = _signature(path)
    begun = names == [SIGN] and signature is not None and _SAYS.startswith(signature)
    return not names or begun


def _signature(path: Path) -> bytes | None:
    """Return what a directory says of itself, None if nothing that could be ours."""
    sign = path / SIGN
    try:
        if path.is_symlink() or not stat.S_ISREG(sign.lstat().st_mode):
            return None
        with sign.open("rb") as file:
            return file.read(len(_SAYS) + 1)
    except OSError:
        return None


def nameless() -> str:
    """Return a name that nobody has, for what is being removed where it has no better one."""
    return f"{NAME}.{secrets.token_hex(8)}"


def room(root: Path, name: str) -> Path:
    """Return a path in the root's area that nobody has, like a name.

    Raises:
        OSError: the area cannot be made.
    """
    # Names are limited in bytes, and need not be text.
    beginning = os.fsdecode(os.fsencode(name)[:100])
    return make(root) / f"{beginning}.{secrets.token_hex(8)}"


def discard(directory: Path, root: Path) -> Path:
    """Take a directory out of the root, in one step; return where it is now.

    Whoever calls this has its lock alone, and goes on to remove it.

    Raises:
        OSError: it cannot be renamed.
    """
    try:
        target = room(root, directory.name)
        os.rename(directory, target)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        # The volume has no room for a directory of ours; a rename needs none.
        target = root / nameless()
        os.rename(directory, target)
    return target


def left_over(root: Path) -> list[Path]:
    """Return all that is arriving or being removed; what nobody works on is left over."""
    found: list[Path] = []
    for path in _ours(root):
        with contextlib.suppress(OSError):
            found += sorted(entry for entry in path.iterdir() if entry.name != SIGN)
    with contextlib.suppress(OSError):
        found += sorted(entry for entry in root.iterdir() if _is_nameless(entry))
    return found


def _is_nameless(path: Path) -> bool:
    matches = _NAMELESS.fullmatch(path.name) is not None
    return matches and path.is_dir() and not path.is_symlink()


def claim(left: Path) -> Lease | None:
    """Take a left-over for oneself; None where it is no directory, and so has no lock.

    Raises:
        DirectoryInUse: somebody works on it.
    """
    try:
        return exclude(left)
    except OSError:
        return None
