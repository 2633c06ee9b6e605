"""What a model process counts: its answers, how long they took, their errors, the last use.

The counters are words of eight bytes in shared memory, each at a multiple of eight, written by one
process and read by others without a lock. A word is stored and loaded in one step by the processors
this runs on, so a reader sees each word as it was at some moment. Nothing that a reader puts
together depends on two words: the number of requests is the sum of the histogram, and an error's
status is in the word that counts it. So a read-out in the middle of a batch can lack that batch in
one word and have it in another, and is never anything else.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

BOUNDS = (
    *(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0),
)
"""The upper bounds of the histogram's buckets, in seconds; one more bucket has what is above."""
ERROR_KINDS = 16
"""Statuses of errors that a process counts each by itself, the first that come."""
TALLY_BYTES = 512
"""What the counters of one process may take."""

_BUCKETS = len(BOUNDS) + 1
_OTHERS = _BUCKETS + ERROR_KINDS
_WORDS = _OTHERS + 1
_SECONDS, _LAST_USE = _WORDS, _WORDS + 1
# A word of the errors' table is a count times this, plus the status.
_ONE = 1024


@dataclass(frozen=True)
class Tally:
    """What one process, or all processes of a model, have counted. Tallies add up.

    Attributes:
        buckets: requests by how long they took, as BOUNDS has it: each request in one bucket.
        seconds: the sum of that, from a request's being read to its reply's being ready.
        errors: answers by status, of those with a status of 400 to 599.
        other_errors: those whose status found no room in the process's table.
        last_use: seconds since 1970 of the last answer; None where there was none.
    """

    buckets: tuple[int, ...] = (0,) * _BUCKETS
    seconds: float = 0.0
    errors: dict[int, int] = field(default_factory=dict)
    other_errors: int = 0
    last_use: float | None = None

    def __post_init__(self) -> None:
        if len(self.buckets) != _BUCKETS:
            raise ValueError(f"{len(self.buckets)} buckets in place of {_BUCKETS}")

    @property
    def requests(self) -> int:
        """All requests that were answered, errors too."""
        return sum(self.buckets)

    @property
    def failures(self) -> int:
        """The requests that were answered by an error."""
        return sum(self.errors.values()) + self.other_errors

    def __add__(self, other: Tally) -> Tally:
        uses = [tally.last_use for tally in (self, other) if tally.last_use is not None]
        return Tally(
            tuple(a + b for a, b in zip(self.buckets, other.buckets, strict=True)),
            self.seconds + other.seconds,
            _sums(self.errors, other.errors),
            self.other_errors + other.other_errors,
            max(uses, default=None),
        )


class Counters:
    """The counters of one process, in memory that others read."""

    __slots__ = ("_times", "_view", "_words")

    def __init__(self, view: memoryview) -> None:
        """Take ``TALLY_BYTES`` of writable memory that begin at a multiple of eight."""
        self._view = view
        self._words = view.cast("Q")
        self._times = view.cast("d")

    def clear(self) -> None:
        """Start at zero."""
        self._view[:] = bytes(TALLY_BYTES)

    def count(self, statuses: Sequence[int], seconds: float, now: float) -> None:
        """Count a batch that was answered.

        Args:
            statuses: the HTTP status of each answer.
            seconds: how long each request of the batch took.
            now: seconds since 1970.
        """
        requests = len(statuses)
        times = self._times
        self._words[bisect_left(BOUNDS, seconds)] += requests
        times[_SECONDS] += seconds * requests
        times[_LAST_USE] = now
        # No generator: this is on the way of each request.
        for status in statuses:
            if status >= 400:
                self._count_error(status)

    def _count_error(self, status: int) -> None:
        words = self._words
        if status < 600:
            for index in range(_BUCKETS, _OTHERS):
                word = words[index]
                if word == 0:
                    words[index] = _ONE + status
                    return
                if word % _ONE == status:
                    words[index] = word + _ONE
                    return
        words[_OTHERS] += 1

    def read(self) -> Tally:
        """Return what has been counted, from whichever process."""
        # Element by element: a copy of the bytes might load a word in parts.
        words = self._words[:_WORDS].tolist()
        seconds, last_use = self._times[_SECONDS : _LAST_USE + 1].tolist()
        table = (word for word in words[_BUCKETS:_OTHERS] if word)
        return Tally(
            tuple(words[:_BUCKETS]),
            seconds,
            {word % _ONE: word // _ONE for word in table},
            words[_OTHERS],
            last_use or None,
        )


def _sums(left: dict[int, int], right: dict[int, int]) -> dict[int, int]:
    return {key: left.get(key, 0) + right.get(key, 0) for key in (*left, *right)}
