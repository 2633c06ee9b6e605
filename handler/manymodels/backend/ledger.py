"""What the host knows of memory and of what has happened, and its snapshot of all of it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterable

from manymodels import __version__
from manymodels.backend import process_memory
from manymodels.backend.cgroup import Memory, Tasks
from manymodels.backend.demand import Demand
from manymodels.backend.guard import Guard, Reservation
from manymodels.backend.hosting import Model
from manymodels.backend.workers import Process, describe_exit
from manymodels.settings import Amount, BackendSettings
from manymodels.status import snapshot
from manymodels.status.snapshot import Counters, Server, Snapshot, Volume, Worker
from manymodels.storage import Watch


class Ledger:
    """Keeps count for a host, and asks the memory guard on its behalf."""

    def __init__(self, settings: BackendSettings, port: int | None, topmost: int) -> None:
        """Take the settings, the server's port if there is one, and the process above all."""
        self._settings = settings
        self._server = Server(os.getppid(), __version__, time.time(), port)
        self._guard = Guard.standard(settings.guard, topmost)
        self._memory = Memory()
        self._tasks = Tasks()
        self._kills = self._memory.oom_kills() or 0
        self._loaded: set[Model] = set()
        self._fresh: set[Model] = set()
        """Loaded, and not known to have answered anything yet."""
        self._most_loaded = 0
        self.refused = 0
        self._failed: Counter[int] = Counter()
        self._loads = self._unloads = self._replaced = self._kernel_kills = 0

    # -- memory ------------------------------------------------------------------------------

    def admit(self, model: Model, models: Collection[Model]) -> Reservation:
        """Reserve memory for a load of one of these models.

        Raises:
            OutOfMemory: there is not enough.
        """
        demand = Demand.of(model.launch.model_path)
        # What the JVM took for a model that is unloaded it has for the next.
        kept = len(models) <= self._most_loaded
        alone = len(models) == 1
        self._fresh = {each for each in self._fresh if not each.has_answered}
        reservation = self._guard.admit(
            demand, time.monotonic(), alone=alone, kept=kept, fresh=len(self._fresh)
        )
        model.demand = demand
        return reservation

    def note_loaded(self, model: Model, process: Process) -> None:
        """Learn from a load what the next one takes."""
        if process.reservation is not None and process.pid is not None:
            try:
                memory = process_memory.of(process.pid)
            except ProcessLookupError:
                pass
            else:
                assert model.demand is not None
                # What a load takes for a moment may be taken from the floor, up to half of it:
                # else a model would not fit where one of the same file has just been unloaded.
                moment = memory.peak - memory.private - self._guard.floor // 2
                self._guard.learn(model.demand, memory.private + max(0, moment))
            process.release()
        self._loads += not model.history.loaded_at
        self._loaded.add(model)
        self._fresh.add(model)
        self._most_loaded = max(self._most_loaded, len(self._loaded))
        model.history.note_loaded()

    def note_death(self, model: Model, process: Process, status: int) -> str:
        """Count an end that nobody asked for, and say how it was."""
        how = describe_exit(status)
        if model.loaded and process.connection.open and not process.refusing:
            self._replaced += 1
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            kills = self._memory.oom_kills() or 0
            if kills > self._kills:
                self._kernel_kills += 1
                how = "was killed by the kernel, as memory ran out"
                # The next try needs more than there was for this one.
                if process.reservation is not None and model.demand is not None:
                    self._guard.learn(model.demand, process.reservation.left)
            self._kills = kills
        return how

    def note_change(self) -> None:
        """A process has ended: memory is free that was not a moment ago."""
        self._guard.expire()

    # -- counting ----------------------------------------------------------------------------

    def note_failure(self, status: int) -> None:
        """A load has failed."""
        self._failed[status] += 1

    def note_end(self, model: Model) -> None:
        """A model is gone."""
        self._unloads += model.loaded
        self._loaded.discard(model)
        self._fresh.discard(model)

    # -- the snapshot ------------------------------------------------------------------------

    def snapshot(self, models: Iterable[Model], watch: Watch) -> Snapshot:
        """Return what is known, but for what a look at /proc and at the disk shows."""
        use = self._guard.use(time.monotonic())
        tasks = self._tasks.use()
        return Snapshot(
            self._server,
            snapshot.Memory(
                use.limit,
                use.used,
                self._guard.floor,
                self._guard.reserved,
                use.source,
                self.refused,
                tasks.current if tasks else None,
                tasks.limit if tasks else None,
            ),
            tuple(_model(model) for model in models),
            self._volume(watch),
            Counters(
                self._loads, dict(self._failed), self._unloads, self._replaced, self._kernel_kills
            ),
        )

    def _volume(self, watch: Watch) -> Volume | None:
        usage, settings = watch.usage, self._settings.storage
        if usage is None:
            return None
        size = usage.size or 1
        return Volume(
            str(settings.root),
            settings.mode,
            _share(settings.high, size),
            _share(settings.low, size),
            usage.share,
            usage.used,
            usage.size,
            usage.inodes_share if usage.inodes else None,
            watch.evictions,
            watch.evicted_bytes,
            watch.warning,
        )


def _share(mark: Amount, size: int) -> float:
    return mark.of(size) / size if mark.share is None else mark.share


def _model(model: Model) -> snapshot.Model:
    history, tally = model.history, model.history.past
    workers = []
    for process in model.processes:
        if process.pid is not None:
            count = process.slot.tally()
            tally += count
            workers.append(Worker(process.pid, process.slot.state.name.lower(), count))
    refusing = any(process.refusing or process.failed for process in model.processes)
    state = "loading" if not model.loaded else "failed" if refusing else "loaded"
    return snapshot.Model(
        model.name,
        model.launch.model_path,
        model.launch.handler,
        state,
        tally,
        history.loaded_at,
        history.load_ms,
        history.restarts,
        tuple(workers),
    )
