"""The storage watchdog: removes unused model directories before their volume is full.

It only ever removes what it can lock alone, so never a directory that a model process or a
download holds; whole directories, the least recently used first; by renaming each out of the root
in one step and deleting it then. Killed between any two steps it leaves the root as it was or
without the directory, and what is left of that goes first when it starts again.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from manymodels.errors import DirectoryInUse
from manymodels.settings import StorageSettings
from manymodels.storage import area, words
from manymodels.storage.leases import exclude, share
from manymodels.storage.removal import remove
from manymodels.storage.units import Unit, set_back, units
from manymodels.storage.volume import Size, Usage, mount_points, size_of, usage
from manymodels.storage.weighing import Scales

INTERVAL_SECONDS = 0.1
BUDGET_INTERVAL_SECONDS = 1.0
"""What a root takes is looked up less often than how full a volume is, which costs nothing."""
REMINDER_SECONDS = 600.0
RETRY_SECONDS = 1.0
"""Between two tries, when all directories are in use."""
SWEEP_SECONDS = 10.0
"""Between two tries to delete what could not be deleted."""
_INODES_HIGH, _INODES_LOW = 0.95, 0.90
"""Where the marks are bytes, which say nothing of inodes."""
_LISTED = 5
logger = logging.getLogger("manymodels.storage")


@dataclass(frozen=True, slots=True)
class Eviction:
    """A directory that was removed, or would be.

    Attributes:
        name: the directory's, in the root.
        bytes: what it took of the volume.
        inodes: how many files and directories it was.
        idle_seconds: since its last use.
        reason: ``bytes`` or ``inodes``, whichever was above the high mark.
    """

    name: str
    bytes: int
    inodes: int
    idle_seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Watch:
    """What the watchdog knows: how full it is, what it has removed, what it cannot help."""

    usage: Usage | None = None
    evictions: int = 0
    evicted_bytes: int = 0
    left_overs: int = 0
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """How much is to be freed."""

    bytes: int
    inodes: int

    def __bool__(self) -> bool:
        return self.bytes > 0 or self.inodes > 0


def need(found: Usage, settings: StorageSettings, above_high: bool) -> Need:
    """Return how far a volume is above its high mark, or else its low one."""
    amount = settings.high if above_high else settings.low
    share = amount.share
    if share is None:
        share = _INODES_HIGH if above_high else _INODES_LOW
    return Need(
        max(0, found.used - amount.of(found.size)),
        max(0, found.inodes_used - int(found.inodes * share)),
    )


def _relieved_by_another(root: Path) -> bool:
    """Whether a watchdog has a root's lock, alone, rather than models, which share it."""
    try:
        share(root.resolve()).close()
    except (DirectoryInUse, OSError):
        return True
    return False


class Watchdog:
    """Watches one root. `step` looks once and acts; `run` does so until told to stop."""

    def __init__(self, settings: StorageSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._scales = Scales(settings.root, settings.settle_seconds)
        self._last_look = float("inf")
        self._next_sweep = self._next_relief = float("-inf")
        self._said: dict[str, float] = {}
        self._stop = threading.Event()
        self.watch = Watch()

    @property
    def interval(self) -> float:
        """Seconds between two looks."""
        return INTERVAL_SECONDS if self._settings.budget is None else BUDGET_INTERVAL_SECONDS

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop`` is set; what is being removed then is the last."""
        self._stop = stop
        while not stop.is_set():
            try:
                self.step()
            except Exception:
                logger.exception("the volume could not be looked after")
                stop.wait(REMINDER_SECONDS / 10)
            stop.wait(self.interval)

    def step(self) -> list[Eviction]:
        """Look once, and evict what must go; return it (in mode ``report``, what would go)."""
        settings = self._settings
        if settings.mode == "off":
            return []
        try:
            found = self._look()
        except FileNotFoundError:
            self.watch = replace(self.watch, usage=None, warning=None)
            return []
        except OSError as error:
            self._warn(f"{settings.root} cannot be looked at: {error.strerror}")
            return []
        first, self._last_look = self._last_look, self._clock()
        if settings.mode == "evict":
            # At the start, and when the clock has been set back.
            if self._last_look < first - 1.0:
                set_back(units(settings.root), self._last_look)
            if first == float("inf") and self._sweep():
                found = self._look()
        if not need(found, settings, above_high=True):
            self.watch = replace(self.watch, warning=None)
            self._said.pop("", None)
            return []
        if time.monotonic() < self._next_relief:
            return []
        return self._relieve(found)

    def _look(self) -> Usage:
        settings = self._settings
        found = usage(settings.root)
        if settings.budget is not None:
            found = Usage(self._scales.total(self._clock()), settings.budget)
        self.watch = replace(self.watch, usage=found)
        return found

    # -- above the high mark ---------------------------------------------------------------

    def _relieve(self, found: Usage) -> list[Eviction]:
        root, evict = self._settings.root, self._settings.mode == "evict"
        try:
            if evict and os.statvfs(root).f_flag & os.ST_RDONLY:
                self._next_relief = time.monotonic() + RETRY_SECONDS
                self._warn(f"{self._fullness(found)}; it is read-only, so nothing is removed")
                return []
            # A model that is served from the root itself has all of it.
            with exclude(root.resolve()):
                if evict:
                    self._sweep()
                    # Another watchdog may have been here between the look and the lock.
                    found = self._look()
                    if not need(found, self._settings, above_high=True):
                        return []
                evictions = list(self._evictions(found, evict))
        except DirectoryInUse:
            if not _relieved_by_another(root):
                self._warn(
                    f"{self._fullness(found)}; the root itself is in use, so nothing is removed"
                )
            return []
        except OSError as error:
            self._warn(f"{self._fullness(found)}; {root} cannot be read: {error.strerror}")
            return []
        if evict and evictions:
            found = self._look()
        if not evict:
            self._report(found, evictions)
        elif not evictions and not self._stop.is_set():
            self._next_relief = time.monotonic() + RETRY_SECONDS
            self._warn(
                f"{self._fullness(found)}, and no model directory can be removed: "
                "all are in use, still arriving, or may not be removed"
            )
        return evictions

    def _evictions(self, found: Usage, evict: bool) -> Iterator[Eviction]:
        """Remove the least recently used units until the low mark is reached."""
        goal = need(found, self._settings, above_high=False)
        now = self._clock()
        reason = "bytes" if need(found, self._settings, above_high=True).bytes else "inodes"
        root = self._settings.root.resolve()
        mounts = [mount for mount in mount_points() if mount.is_relative_to(root)]
        for unit in units(self._settings.root):
            if not goal or self._stop.is_set():
                return
            if any(mount.is_relative_to(root / unit.path.name) for mount in mounts):
                continue
            eviction = self._evict(unit, now, reason, evict)
            if eviction is not None:
                goal = Need(goal.bytes - eviction.bytes, goal.inodes - eviction.inodes)
                yield eviction

    def _evict(self, unit: Unit, now: float, reason: str, evict: bool) -> Eviction | None:
        """Remove one unit, if nobody has it."""
        try:
            lease = exclude(unit.path)
        except (DirectoryInUse, OSError):
            return None
        with lease:
            size = size_of(unit.path)
            if 0 <= now - size.changed < self._settings.settle_seconds:
                return None
            idle = max(0.0, now - unit.last_use)
            eviction = Eviction(unit.path.name, size.bytes, size.inodes, idle, reason)
            if not evict:
                return eviction
            return eviction if self._remove(unit, eviction, size) else None

    def _remove(self, unit: Unit, eviction: Eviction, size: Size) -> bool:
        root = self._settings.root
        try:
            discarded = area.discard(unit.path, root)
        except OSError as error:
            self._warn(
                f"{unit.path} cannot be removed: {error.strerror}", key=f"moving {error.errno}"
            )
            return False
        watch = self.watch
        self.watch = replace(
            watch,
            evictions=watch.evictions + 1,
            evicted_bytes=watch.evicted_bytes + size.bytes,
        )
        logger.info(
            "evicted %s: %s, unused for %s; %s",
            words.printable(eviction.name),
            words.size(size.bytes),
            words.duration(eviction.idle_seconds),
            words.printable(self._fullness(watch.usage)),
        )
        self._still_there(discarded.name, remove(discarded))
        return True

    # -- what a crash left -----------------------------------------------------------------

    def _sweep(self) -> bool:
        """Remove what is in our area and nobody works on; whether there was anything."""
        removed = False
        if time.monotonic() < self._next_sweep:
            return removed
        for left in area.left_over(self._settings.root):
            if self._stop.is_set():
                break
            try:
                lease = area.claim(left)
            except DirectoryInUse:
                continue
            try:
                size = size_of(left)
                failures = remove(left)
            finally:
                if lease is not None:
                    lease.close()
            self._still_there(left.name, failures)
            if failures:
                self._next_sweep = time.monotonic() + SWEEP_SECONDS
                continue
            removed = True
            self.watch = replace(self.watch, left_overs=self.watch.left_overs + 1)
            name = words.printable(left.name)
            logger.info("removed what was left over of %s: %s", name, words.size(size.bytes))
        return removed

    # -- what is said ------------------------------------------------------------------------

    def _fullness(self, found: Usage | None) -> str:
        root, settings = self._settings.root, self._settings
        if found is None:
            return f"{root} is not there"
        whole = "the volume of " if settings.budget is None else "the budget of "
        text = f"{whole}{root} is {words.share(found.share)} full (high mark {settings.high})"
        if need(found, settings, above_high=True).inodes:
            text += f", its inodes {words.share(found.inodes_share)}"
        return text

    def _report(self, found: Usage, evictions: Iterable[Eviction]) -> None:
        names = [eviction.name for eviction in evictions]
        listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        self._warn(
            f"{self._fullness(found)}; would remove {words.directories(len(names))}: {listed}"
        )

    def _still_there(self, name: str, failures: list[OSError]) -> None:
        if not failures:
            return
        first = failures[0]
        why = first.strerror or errno.errorcode.get(first.errno or 0, "?")
        self._warn(
            f"{name} is out of the root, but not all of it could be deleted "
            f"({why}, {len(failures)} times); it is tried again",
            key="deleting",
        )

    def _warn(self, message: str, key: str = "") -> None:
        """Say something once, and again only after a while."""
        message = words.printable(message)
        self.watch = replace(self.watch, warning=message)
        now = time.monotonic()
        if now - self._said.get(key, float("-inf")) >= REMINDER_SECONDS:
            self._said[key] = now
            logger.warning("%s", message)
