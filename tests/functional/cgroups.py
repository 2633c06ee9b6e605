"""Control groups of our own, of either version, to run a server in."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.functional.harness import Server, eventually

_ROOT = Path("/sys/fs/cgroup")


@dataclass
class Cgroup:
    """One group. ``memory`` and ``pids`` are its directories, the same one in version 2."""

    memory: Path
    pids: Path
    version: int

    def limit_memory(self, size: int) -> None:
        """Set the limit in bytes, swap included."""
        name = "memory.max" if self.version == 2 else "memory.limit_in_bytes"
        (self.memory / name).write_text(str(size))
        swap = "memory.swap.max" if self.version == 2 else "memory.memsw.limit_in_bytes"
        with contextlib.suppress(OSError):
            (self.memory / swap).write_text("0" if self.version == 2 else str(size))

    def limit_pids(self, count: int) -> None:
        (self.pids / "pids.max").write_text(str(count))

    @property
    def task_count(self) -> int:
        return int((self.pids / "pids.current").read_text())

    @property
    def kernel_kills(self) -> int:
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        lines = (self.memory / name).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))

    @property
    def command_prefix(self) -> tuple[str, ...]:
        """What has a command run in the group."""
        joins = "; ".join(f"echo $$ > {path}/cgroup.procs" for path in {self.memory, self.pids})
        return ("/bin/sh", "-c", f'set -e; {joins}; exec "$@"', "sh")


@contextlib.contextmanager
def cgroup() -> Iterator[Cgroup]:
    """Make a group; skip the test where that is not possible."""
    name = f"manymodels-{uuid.uuid4().hex[:12]}"
    unified = (_ROOT / "cgroup.controllers").exists()
    parents = [_ROOT] if unified else [_ROOT / "memory", _ROOT / "pids"]
    made: list[Path] = []
    try:
        try:
            for parent in parents:
                if unified and not {"memory", "pids"} <= set(
                    (parent / "cgroup.subtree_control").read_text().split()
                ):
                    raise OSError("the controllers are not handed on")
                (parent / name).mkdir()
                made.append(parent / name)
        except OSError as error:
            pytest.skip(f"no control group can be made here: {error}")
        yield Cgroup(made[0], made[-1], 2 if unified else 1)
    finally:
        for path in made:
            eventually(lambda path=path: _removed(path), 30, "the group is empty")


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(path)
    return not path.exists()


@contextlib.contextmanager
def serving_in(group: Cgroup, **environment: str) -> Iterator[Server]:
    """Run a server in a group for the time of the block."""
    server = Server(environment)
    server.command = (*group.command_prefix, *server.command)
    try:
        yield server.start()
    finally:
        server.close()
