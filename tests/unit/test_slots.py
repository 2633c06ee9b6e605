"""Slots: what a model process writes, every other process reads."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.backend.slots import BUSY, COUNT, Slot, SlotTable, State

steady = hypothesis_settings(deadline=None, derandomize=True)
"""The same examples in each run, however busy the machine is."""


def in_child(action: Callable[[], None]) -> int:
    """Run an action in a forked child; return its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


@pytest.fixture(scope="module")
def table() -> SlotTable:
    return SlotTable()


@pytest.fixture
def slot(table):
    slot = table.acquire()
    yield slot
    table.release(slot)


def test_a_new_slot_is_loading_and_has_no_requests(slot):
    assert slot.state is State.LOADING
    assert slot.request_ids == []


@pytest.mark.parametrize("state", list(State))
def test_the_state_that_a_child_sets_is_seen_by_its_parent(slot, state):
    def set_state() -> None:
        slot.state = state

    assert in_child(set_state) == 0
    assert slot.state is state


def test_the_requests_that_a_child_takes_are_seen_after_its_death(slot):
    def take_and_die() -> None:
        slot.take(["a-1", "b-2", "é"])
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(in_child(take_and_die)) == signal.SIGKILL
    assert slot.state is State.PREDICTING
    assert slot.request_ids == ["a-1", "b-2", "é"]


def test_a_second_mapping_of_the_descriptor_shows_the_same(table, slot):
    other = SlotTable(os.dup(table.descriptor))
    seen = other[slot.index]
    slot.take(["one", "two"])
    assert (seen.state, seen.request_ids) == (State.PREDICTING, ["one", "two"])
    seen.state = State.REPLYING
    assert slot.state is State.REPLYING
    os.close(other.descriptor)


def test_a_child_that_maps_the_descriptor_writes_where_its_parent_reads(table, slot):
    assert in_child(lambda: SlotTable(table.descriptor)[slot.index].take(["x"])) == 0
    assert slot.request_ids == ["x"]


def test_slots_are_apart_from_each_other(table):
    slots = [table.acquire() for _ in range(3)]
    for slot in slots:
        slot.take([f"request-{slot.index}" * 100])
    assert [slot.request_ids for slot in slots] == [
        [f"request-{slot.index}" * 100] for slot in slots
    ]
    for slot in slots:
        table.release(slot)


@steady
@given(st.lists(st.uuids().map(str), min_size=1, max_size=110))
def test_all_ids_of_a_batch_are_noted_or_none(table, ids):
    slot = table[0]
    slot.take(ids)
    assert slot.request_ids == (ids if len("\n".join(ids)) <= 4094 else [])
    assert slot.state is State.PREDICTING


@pytest.mark.parametrize(("size", "noted"), [(4094, True), (4095, False), (100_000, False)])
def test_ids_that_do_not_fit_are_not_noted_at_all_but_the_state_is(slot, size, noted):
    slot.take(["before"])
    slot.take(["x" * size])
    assert slot.request_ids == (["x" * size] if noted else [])
    assert slot.state is State.PREDICTING


def test_ids_that_do_not_fit_leave_the_next_slot_alone(table):
    first, second = table.acquire(), table.acquire()
    lower, upper = sorted((first, second), key=lambda slot: slot.index)
    upper.take(["mine"])
    lower.take(["x" * 4094])
    assert upper.request_ids == ["mine"]
    for slot in (first, second):
        table.release(slot)


def test_a_slot_is_one_owners_until_it_is_released():
    table = SlotTable()
    slots = [table.acquire() for _ in range(COUNT)]
    assert len({slot.index for slot in slots}) == COUNT
    with pytest.raises(OSError, match=f"{COUNT} model processes are running"):
        table.acquire()
    table.release(slots[7])
    assert slots[7].state is State.FREE
    assert table.acquire().index == slots[7].index
    os.close(table.descriptor)


def test_the_last_slot_is_as_large_as_any():
    table = SlotTable()
    last: Slot = table[COUNT - 1]
    last.take(["x" * 4094])
    assert last.request_ids == ["x" * 4094]
    os.close(table.descriptor)


def test_busy_counts_the_processes_that_have_a_request():
    table = SlotTable()
    slots = [table.acquire() for _ in State]
    for slot, state in zip(slots, State, strict=True):
        slot.state = state
    assert table.busy() == len(BUSY) == 3
    other = SlotTable(os.dup(table.descriptor))
    assert other.busy() == 3
    for slot in slots:
        table.release(slot)
    assert (table.busy(), other.busy()) == (0, 0)
    os.close(table.descriptor)
    os.close(other.descriptor)


def test_an_untouched_table_takes_hardly_any_memory():
    table = SlotTable()
    table.acquire().take(["x"])
    assert os.fstat(table.descriptor).st_blocks * 512 <= 64 * 1024
    os.close(table.descriptor)
