"""What each model process is doing, in memory shared with the zygote and with ``serve``.

A slot is what one model process writes and others read: its state, the ids of the requests in its
handler, and what it has counted. It outlives the process, so whoever buries it knows whom to
answer.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from enum import IntEnum

from manymodels.status.tally import TALLY_BYTES, Counters, Tally

COUNT = 16384
"""Model processes at once. Pages that were never touched take no memory."""
_IDS_BYTES = 4096
_IDS_START = COUNT
_TALLIES_START = _IDS_START + COUNT * _IDS_BYTES
"""Apart from the ids, so that the tallies of eight processes share a page."""
_TABLE_BYTES = _TALLIES_START + COUNT * TALLY_BYTES


class State(IntEnum):
    """Where a model process is in its loop."""

    FREE = 0
    LOADING = 1
    IDLE = 2
    READING = 3
    """Some of a message has been taken from the connection."""
    PREDICTING = 4
    """A whole batch has been taken and nothing of its reply been sent."""
    REPLYING = 5


BUSY = frozenset((State.READING, State.PREDICTING, State.REPLYING))


class Slot:
    """One model process's state byte, a page for request ids, newline-separated, and a tally."""

    __slots__ = ("_counters", "_ids", "_states", "index")

    def __init__(self, view: memoryview, index: int) -> None:
        ids, tally = _IDS_START + index * _IDS_BYTES, _TALLIES_START + index * TALLY_BYTES
        self._states = view[index : index + 1]
        self._ids = view[ids : ids + _IDS_BYTES]
        self._counters = Counters(view[tally : tally + TALLY_BYTES])
        self.index = index

    @property
    def state(self) -> State:
        return State(self._states[0])

    @state.setter
    def state(self, state: int) -> None:
        self._states[0] = state

    def take(self, request_ids: Iterable[str]) -> None:
        """Note the batch that goes to the handler. Ids that do not fit are not noted at all."""
        ids = "\n".join(request_ids).encode()
        size = len(ids) if len(ids) <= _IDS_BYTES - 2 else 0
        self._ids[:2] = size.to_bytes(2, "little")
        self._ids[2 : 2 + size] = ids[:size]
        self._states[0] = State.PREDICTING

    @property
    def request_ids(self) -> list[str]:
        """The ids of the batch in the handler; none if they did not fit."""
        size = int.from_bytes(self._ids[:2], "little")
        return bytes(self._ids[2 : 2 + size]).decode().split("\n") if size else []

    def count(self, statuses: Sequence[int], seconds: float, now: float) -> None:
        """Count a batch that was answered; `Counters.count` says what these are."""
        self._counters.count(statuses, seconds, now)

    def tally(self) -> Tally:
        """What the process has counted since the slot was taken. To be read before its release."""
        return self._counters.read()

    def clear_tally(self) -> None:
        """Have the process that gets the slot count from zero."""
        self._counters.clear()


class SlotTable:
    """All slots. Made in memory, or mapped from another process's descriptor."""

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            descriptor = os.memfd_create("manymodels-slots")
            os.ftruncate(descriptor, _TABLE_BYTES)
        self.descriptor = descriptor
        self._view = memoryview(mmap.mmap(descriptor, _TABLE_BYTES))
        self._free = list(range(COUNT - 1, -1, -1))

    def __getitem__(self, index: int) -> Slot:
        return Slot(self._view, index)

    def acquire(self) -> Slot:
        """Take a free slot, in state LOADING and with nothing counted. Only the host does.

        Raises:
            OSError: all are taken.
        """
        if not self._free:
            raise OSError(f"{COUNT} model processes are running; no more are possible")
        slot = self[self._free.pop()]
        slot.clear_tally()
        slot.state = State.LOADING
        return slot

    def release(self, slot: Slot) -> None:
        """Give a slot back. Only the host does."""
        slot.state = State.FREE
        self._free.append(slot.index)

    def busy(self) -> int:
        """Count the model processes that have a request, from any process."""
        return sum(state in BUSY for state in self._view[:COUNT].tobytes())
