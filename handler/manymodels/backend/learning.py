"""What models have taken of memory, and what that tells of loads to come."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from manymodels.backend.demand import AROUND_BYTES, PROCESS_BYTES, Demand
from manymodels.settings import MIB

K = TypeVar("K")
V = TypeVar("V")
MOST_FILES = 4096
MOST_KINDS = 64
PER_KIND = 32
"""Models of a kind, the last ones loaded, that tell of others."""
PER_FILE = 4
"""Loads of a model, the last ones, of which the one that took most counts."""
ENOUGH = 3
"""So many models of a kind are believed where they say less than the guess."""
LEAST_BYTES = 2 * MIB
"""No process that has loaded anything has less to itself."""
QUANTILE = 0.9
"""What is expected of a model not loaded before is what so many of its kind stay below."""
_SMALL = 2 * MIB
"""Models whose files are expected to take less than this tell what their kind takes in any case."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes that a load needs; ``known`` if a model of the same files was loaded before."""

    bytes: int
    known: bool


@dataclass(frozen=True, slots=True)
class _Observation:
    """What a model was expected to take and took, beyond what any model process takes."""

    expected: int
    took: int


class _Kind:
    """The last models of a kind: the small ones, and those whose size makes a difference."""

    def __init__(self) -> None:
        self._small: OrderedDict[bytes, _Observation] = OrderedDict()
        self._large: OrderedDict[bytes, _Observation] = OrderedDict()

    def note(self, demand: Demand, took: int) -> None:
        book = self._small if demand.expected < _SMALL else self._large
        _put(book, demand.key, _Observation(demand.expected, took), PER_KIND)

    def bytes_for(self, demand: Demand) -> float:
        """Return what a model takes beyond the base: something in any case, and by its size."""
        fixed = _learned((each.took for each in self._small.values()), demand.fixed)
        ratios = (max(0.0, each.took - fixed) / each.expected for each in self._large.values())
        return fixed + _learned(ratios, 1.0) * demand.expected


class Learning:
    """Remembers what loads took: by the model's files, and by their kind for those not seen.

    For the same files an observation that is higher never makes the estimate lower, nor does it
    for others of the kind as long as all are small, or all large. No estimate is below the base,
    but for a model that has been loaded before.
    """

    def __init__(self, most_files: int = MOST_FILES) -> None:
        self._most_files = most_files
        self._files: OrderedDict[bytes, deque[int]] = OrderedDict()
        self._kinds: OrderedDict[str, _Kind] = OrderedDict()

    def __len__(self) -> int:
        """How many models are remembered."""
        return len(self._files)

    def note(self, demand: Demand, taken: int) -> None:
        """Remember the private bytes that a model process had at its peak while it loaded."""
        loads = self._files.get(demand.key, deque(maxlen=PER_FILE))
        loads.append(taken)
        _put(self._files, demand.key, loads, self._most_files)
        kind = self._kinds.get(demand.kind) or _Kind()
        kind.note(demand, max(0, max(loads) - PROCESS_BYTES))
        _put(self._kinds, demand.kind, kind, MOST_KINDS)

    def estimate(self, demand: Demand) -> Estimate:
        """Return what a load needs: as this model took, else as its kind, else by the guess."""
        loads = self._files.get(demand.key)
        if loads is not None:
            self._files.move_to_end(demand.key)
            return Estimate(max(LEAST_BYTES, *loads) + AROUND_BYTES, known=True)
        kind = self._kinds.get(demand.kind)
        if kind is None:
            return Estimate(demand.guess, known=False)
        needed = PROCESS_BYTES + AROUND_BYTES + kind.bytes_for(demand)
        return Estimate(math.ceil(needed), known=False)


def _learned(values: Iterable[float], guess: float) -> float:
    """Return the quantile of enough values; of fewer the most, but no less than the guess."""
    ordered = sorted(values)
    if len(ordered) < ENOUGH:
        return max(guess, *ordered, 0.0)
    return ordered[math.ceil(QUANTILE * len(ordered)) - 1]


def _put(book: OrderedDict[K, V], key: K, value: V, most: int) -> None:
    """Keep a value as the latest, and forget the oldest where there are too many."""
    book[key] = value
    book.move_to_end(key)
    while len(book) > most:
        book.popitem(last=False)
