"""What a server knows of itself at one moment, and its JSON form.

The host fills it in, but for what takes a look at /proc and at the disk: fields that say so are
None until `observing` has been there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from manymodels.errors import ManyModelsError
from manymodels.status.tally import Tally
from manymodels.status.typed_json import parse


class BadSnapshot(ManyModelsError):
    """Bytes that are not a snapshot of this version."""


@dataclass(frozen=True)
class Server:
    """The process that answers. ``port`` is None where there is no ``serve``; ``started`` is
    seconds since 1970."""

    pid: int
    version: str
    started: float
    port: int | None = None


@dataclass(frozen=True)
class Worker:
    """A model process.

    Attributes:
        state: where it is in its loop, a name of `State` in lower case.
        private_bytes: memory that is this process's alone; None before it was observed.
        shared_bytes: memory that it has together with others, most of it the zygote's; the same.
    """

    pid: int
    state: str
    tally: Tally
    private_bytes: int | None = None
    shared_bytes: int | None = None


@dataclass(frozen=True)
class Model:
    """A model that was launched and not yet unloaded.

    Attributes:
        state: ``loading``, ``loaded`` or ``failed``.
        tally: of all its processes, those too that were replaced.
        loaded_at: seconds since 1970.
        load_ms: from the launch to the loaded model.
        restarts: how many of its processes were replaced.
        directory_bytes: what its directory takes on disk; None before it was observed, or where
            it cannot be read.
        leased: whether its directory's lock is held; None likewise.
    """

    name: str
    path: str
    handler: str
    state: str
    tally: Tally = field(default_factory=Tally)
    loaded_at: float | None = None
    load_ms: float | None = None
    restarts: int = 0
    workers: tuple[Worker, ...] = ()
    directory_bytes: int | None = None
    leased: bool | None = None

    @property
    def private_bytes(self) -> int | None:
        """Of all its processes; None if there is none that could be looked at."""
        return _sum(worker.private_bytes for worker in self.workers)

    @property
    def shared_bytes(self) -> int | None:
        """What the process has that shares the most: the others share the same pages."""
        known = [w.shared_bytes for w in self.workers if w.shared_bytes is not None]
        return max(known, default=None)


@dataclass(frozen=True)
class Memory:
    """What the memory guard goes by, in bytes.

    Attributes:
        limit: what all processes of the server may take.
        floor: what a load must leave.
        reserved: what loads that are under way are expected to take yet.
        source: where the limit comes from, as ``cgroup v2``.
        refused_loads: loads that were answered 507 for lack of memory, before a process was made.
        pids: how many processes and threads there are; None where nobody counts them.
        pids_limit: how many there may be; None without a limit.
    """

    limit: int
    used: int
    floor: int
    reserved: int
    source: str
    refused_loads: int = 0
    pids: int | None = None
    pids_limit: int | None = None


@dataclass(frozen=True)
class Volume:
    """What the storage watchdog goes by. Parts are from 0 to 1, of the volume or of the budget.

    Attributes:
        root: where the platform puts models.
        mode: ``evict``, ``report`` or ``off``.
        high: the part above which directories are removed.
        low: the part that is then reached.
        inode_fraction: the part of inodes in use; None where there is no limit to them.
        warning: what the watchdog cannot help; None if all is well.
    """

    root: str
    mode: str
    high: float
    low: float
    used_fraction: float
    used_bytes: int
    size_bytes: int
    inode_fraction: float | None = None
    evictions: int = 0
    evicted_bytes: int = 0
    warning: str | None = None


@dataclass(frozen=True)
class Counters:
    """Since the server's start. ``failed_loads`` is by the status that answered them."""

    loads: int = 0
    failed_loads: dict[int, int] = field(default_factory=dict)
    unloads: int = 0
    replaced_processes: int = 0
    kernel_kills: int = 0


@dataclass(frozen=True)
class Snapshot:
    """All of it. ``volume`` is None where the model root cannot be looked at."""

    server: Server
    memory: Memory
    models: tuple[Model, ...] = ()
    volume: Volume | None = None
    counters: Counters = field(default_factory=Counters)

    def to_json(self, indent: int | None = None) -> str:
        """Return an object whose keys are the names here, in ASCII; what is unknown is null."""
        return json.dumps(self, default=_fields, indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Snapshot:
        """Read what `to_json` wrote.

        Raises:
            BadSnapshot: it is no JSON, or lacks a field, or has one of another type.
        """
        try:
            return parse(cls, json.loads(text))
        except (ValueError, OverflowError, RecursionError) as error:
            raise BadSnapshot(f"this is no snapshot of a server: {error}") from None


def _fields(value: Any) -> dict[str, Any]:
    fields = dict(vars(value))
    if isinstance(value, Tally):
        # For those who read the JSON: a reader of snapshots adds it up by itself.
        fields["requests"] = value.requests
    return fields


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
