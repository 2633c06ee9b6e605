"""Where a process's cgroups lie: its own directory in a hierarchy, and those above it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from manymodels.backend.kernel_files import read


def unified(root: Path, proc: Path) -> list[Path]:
    """The directories of version 2, this process's first, the topmost last.

    Beside hierarchies of version 1 it is mounted below them, often without these controllers.
    """
    path = _own_path(proc, "")
    return [*_upwards(root, path), *_upwards(root / "unified", path)]


def legacy(controller: str, root: Path, proc: Path) -> list[Path]:
    """The directories of a controller of version 1, in the same order."""
    return list(_upwards(root / controller, _own_path(proc, controller)))


def _own_path(proc: Path, controller: str) -> str:
    """Return where this process is in a hierarchy: a line is ``id:controllers:path``."""
    for line in read(str(proc / "self" / "cgroup")).decode(errors="surrogateescape").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return path
    return "/"


def _upwards(top: Path, path: str) -> Iterator[Path]:
    """Yield a cgroup's directory and those above it.

    A container may see its own cgroup as the top while its path is told from the machine's top, so
    what the path begins with may not be there. A path out of the namespace's top has ``..``.
    """
    parts = [part for part in PurePosixPath(path).parts if part != "/"]
    own = top
    if ".." not in parts:
        ends = (top.joinpath(*parts[start:]) for start in range(len(parts)))
        own = next((end for end in ends if end.is_dir()), top)
    while own != top:
        yield own
        own = own.parent
    yield top
