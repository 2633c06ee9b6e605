"""The memory guard: a load that would not leave the floor is refused before anything is forked.

It decides; who loads tells it what loads are under way and what they took. A load that is under way
counts with what it is expected to need, until it is loaded and counts with what it took.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol

from manymodels.backend import process_memory
from manymodels.backend.cgroup import Memory, MemoryUse, Tasks, TaskUse
from manymodels.backend.demand import AROUND_BYTES, BASE_BYTES, Demand
from manymodels.backend.learning import Estimate, Learning
from manymodels.errors import OutOfMemory
from manymodels.settings import MIB, Amount, GuardSettings

FLOOR_BYTES, FLOOR_SHARE, MOST_FLOOR_BYTES = 48 * MIB, 0.06, 1024 * MIB
"""What must stay free by default, a share but no less and no more than so much: for requests, and
for loads that take more than was expected."""
BUDGET = "MANYMODELS_MEMORY_LIMIT"
GROWTH_BYTES = 2 * MIB
"""What a model's process takes more when it answers for the first time: 1.3 to 1.6 MiB."""
TASKS_PER_LOAD = 8
"""Processes and threads of a model: 5 to 8, those of the JVM among them."""
MOST_SPARE_TASKS, LEAST_SPARE_TASKS = 64, 16
"""What must stay free of them: a JVM that cannot start a thread hangs for a minute."""
_CGROUP = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


class Gauge(Protocol):
    """What the guard reads off: the memory's figures, by a monotonic clock's time in seconds."""

    def limit(self) -> int: ...

    def use(self, now: float) -> MemoryUse: ...

    def expire(self) -> None:
        """What a load took must be in the next figures."""


class Meter:
    """The memory's figures as the kernel has them, and those of a budget if there is one.

    Reading them takes 50 us; with a budget, that of the server's processes together, 15 us more a
    process and 2 ms a process that has changed, once in 0.2 s and after a load.

    Args:
        budget: bytes for the process ``pid`` and all its descendants; None for no budget.
        pid: the topmost process of the server.
    """

    def __init__(
        self, budget: int | None, pid: int, root: Path = _CGROUP, proc: Path = _PROC
    ) -> None:
        self._memory = Memory(root, proc)
        self._budget = budget
        self._tree = process_memory.Tree(pid, proc)

    def limit(self) -> int:
        """Return the bytes that there are at most: the container's, the machine's, the budget's."""
        whole = self._memory.limit()
        return whole if self._budget is None else min(whole, self._budget)

    def use(self, now: float) -> MemoryUse:
        """Return the figures of which the least is left."""
        whole = self._memory.use()
        if self._budget is None or self._budget >= self._memory.limit():
            return whole
        own = MemoryUse(self._tree.proportional(now), self._budget, BUDGET)
        return min(own, whole, key=lambda use: use.free)

    def expire(self) -> None:
        self._tree.expire()


class Reservation:
    """Memory for a load that is under way, until it is released.

    Set ``pid`` once there is a process: what that has already taken need not be reserved any more.
    """

    def __init__(self, guard: Guard, size: int, left: int) -> None:
        self.bytes = size
        self.left = left
        """What there was for it, the floor and other reservations apart; 0 if nobody looked."""
        self.pid: int | None = None
        self._guard = guard

    def release(self) -> None:
        """The load is over, one way or the other. A second time does nothing."""
        self._guard.forget(self)

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class Guard:
    """Admits loads as long as memory, and processes, are left.

    Args:
        settings: whether it refuses anything, and the floor.
        gauge: the memory's figures.
        tasks: those of processes and threads; None where they have no limit.
        private: the bytes that a process alone has; ProcessLookupError if it is gone.
    """

    def __init__(
        self,
        settings: GuardSettings,
        gauge: Gauge,
        tasks: Callable[[], TaskUse | None],
        private: Callable[[int], int] | None = None,
    ) -> None:
        self._settings = settings
        self._gauge = gauge
        self._tasks = tasks
        self._private = private or _private
        self._learning = Learning()
        self._reservations: set[Reservation] = set()

    @classmethod
    def standard(cls, settings: GuardSettings, pid: int) -> Guard:
        """Make the guard of a server, whose processes are ``pid`` and its descendants."""
        return cls(settings, Meter(settings.limit, pid), Tasks().use)

    @property
    def reserved(self) -> int:
        """Bytes that loads under way are expected to need."""
        return sum(each.bytes for each in self._reservations)

    @property
    def floor(self) -> int:
        """Bytes that must stay free."""
        limit = self._gauge.limit()
        default = min(max(FLOOR_BYTES, int(FLOOR_SHARE * limit)), MOST_FLOOR_BYTES)
        return (self._settings.floor or Amount(size=default)).of(limit)

    def use(self, now: float) -> MemoryUse:
        """Return what is used of memory, of how much, and whose figures these are."""
        return self._gauge.use(now)

    def estimate(self, demand: Demand) -> Estimate:
        """Return what a load needs, by what has been learned."""
        return self._learning.estimate(demand)

    def learn(self, demand: Demand, peak: int) -> None:
        """Remember what a load took: the private bytes of its process at their peak."""
        self._learning.note(demand, peak)

    def admit(
        self,
        demand: Demand,
        now: float,
        *,
        alone: bool = False,
        kept: bool = False,
        fresh: int = 0,
    ) -> Reservation:
        """Reserve what a load needs.

        Args:
            demand: what is known of the load.
            now: a monotonic clock's time in seconds.
            alone: whether no other model is loaded, or being loaded. Then a guess refuses nothing,
                as there is nothing to unload: what is left must do, if it is what any model needs.
            kept: whether as many models have been loaded before. What the JVM and others took for
                those they still have, and what they took since may come from the floor, up to a
                quarter of it: what is unloaded makes room for its like.
            fresh: loaded models that have had no request yet, and grow by their first.

        Raises:
            OutOfMemory: it would not leave the floor, or too few processes. One line with the
                figures; nothing is reserved.
        """
        estimate = self._learning.estimate(demand)
        needed = estimate.bytes - (AROUND_BYTES if kept else 0)
        left = 0
        if self._settings.active:
            self._check_tasks()
            floor = self.floor - (self.floor // 4 if kept else 0)
            left = self._left(needed, floor, now) - self._growth(fresh)
            if alone and not estimate.known:
                needed = max(BASE_BYTES, min(needed, left))
            if needed > left:
                raise OutOfMemory(self._figures(needed, floor, now, self._growth(fresh)))
        reservation = Reservation(self, needed, left)
        self._reservations.add(reservation)
        return reservation

    def expire(self) -> None:
        """Have the memory looked at anew: a process has ended."""
        self._gauge.expire()

    def forget(self, reservation: Reservation) -> None:
        """Release a reservation."""
        if reservation in self._reservations:
            self._reservations.remove(reservation)
            self._gauge.expire()

    def _left(self, needed: int, floor: int, now: float) -> int:
        """Return the bytes that there are for a load."""
        free = self._gauge.use(now).free - floor
        if free - self.reserved < needed <= free and self._reservations:
            # What they have taken by now is no longer to come; then it must be among what is used.
            outstanding = self._outstanding()
            self._gauge.expire()
            return self._gauge.use(now).free - floor - outstanding
        return free - self.reserved

    def _growth(self, fresh: int) -> int:
        """What models will take at their first request, beyond a quarter of the floor."""
        return max(0, fresh * GROWTH_BYTES - self.floor // 4)

    def _figures(self, needed: int, floor: int, now: float, growth: int) -> str:
        use, reserved = self._gauge.use(now), self._outstanding() + growth
        return (
            f"a load that needs {_mib(needed)} does not fit: {_mib(use.used)} of "
            f"{_mib(use.limit)} are used ({use.source}), {_mib(reserved)} are reserved for "
            f"{_loads(len(self._reservations))} under way, and {_mib(floor)} must stay free"
        )

    def _outstanding(self) -> int:
        """What loads under way are still expected to take; 2 ms a load, so only if it matters."""
        return sum(max(0, each.bytes - self._taken(each)) for each in self._reservations)

    def _taken(self, reservation: Reservation) -> int:
        if reservation.pid is None:
            return 0
        try:
            return self._private(reservation.pid)
        except ProcessLookupError:
            return 0

    def _check_tasks(self) -> None:
        use = self._tasks()
        if use is None:
            return
        spare = max(LEAST_SPARE_TASKS, min(MOST_SPARE_TASKS, use.limit // 16))
        reserved = TASKS_PER_LOAD * len(self._reservations)
        if use.free - reserved - TASKS_PER_LOAD < spare:
            raise OutOfMemory(
                f"a load that needs {TASKS_PER_LOAD} processes and threads does not fit: "
                f"{use.current} of {use.limit} are there, {reserved} are reserved for "
                f"{_loads(len(self._reservations))} under way, and {spare} must stay free"
            )


def _private(pid: int) -> int:
    return process_memory.of(pid).private


def _mib(size: int) -> str:
    return f"{size / MIB:.0f} MiB"


def _loads(count: int) -> str:
    return f"{count} load" if count == 1 else f"{count} loads"
