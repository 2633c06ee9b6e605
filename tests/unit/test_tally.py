"""What a model process counts in its slot, as others read it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from manymodels.backend.slots import COUNT, SlotTable, State
from manymodels.status.tally import BOUNDS, ERROR_KINDS, Tally

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


def test_a_new_slot_has_counted_nothing(slot):
    assert slot.tally() == Tally()
    assert (slot.tally().requests, slot.tally().last_use) == (0, None)


def test_what_a_child_counts_is_seen_after_its_death(slot):
    def count_and_die() -> None:
        slot.count([200], 0.0004, 1000.0)
        slot.count([200, 404, 500], 0.3, 1001.5)
        os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(in_child(count_and_die)) == signal.SIGKILL
    tally = slot.tally()
    assert (tally.requests, tally.failures) == (4, 2)
    assert tally.errors == {404: 1, 500: 1}
    assert tally.last_use == 1001.5
    assert tally.seconds == pytest.approx(0.0004 + 3 * 0.3)


def test_a_slot_that_is_taken_again_starts_at_zero():
    table = SlotTable()
    slot = table.acquire()
    slot.count([500] * 7, 1.0, 5.0)
    table.release(slot)
    again = table.acquire()
    assert again.index == slot.index
    assert again.tally() == Tally()
    os.close(table.descriptor)


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [(0.0, 0.0002), (0.0002, 0.0002), (0.00021, 0.0005), (0.1, 0.1), (59.9, 60.0), (60.0, 60.0)],
)
def test_a_request_is_counted_below_the_bound_that_it_does_not_exceed(slot, seconds, bound):
    slot.count([200], seconds, 1.0)
    assert slot.tally().buckets.index(1) == BOUNDS.index(bound)


def test_a_request_above_all_bounds_is_counted_too(slot):
    slot.count([200], 61.0, 1.0)
    assert slot.tally().buckets[-1] == slot.tally().requests == 1


def test_only_statuses_of_errors_are_errors(slot):
    slot.count([200, 204, 302, 399, 400, 599], 0.001, 1.0)
    assert slot.tally().errors == {400: 1, 599: 1}
    assert slot.tally().other_errors == 0


def test_more_kinds_of_errors_than_have_room_are_counted_together(slot):
    for status in range(400, 400 + ERROR_KINDS + 3):
        slot.count([status], 0.001, 1.0)
    slot.count([400, 410, 410 + ERROR_KINDS], 0.001, 1.0)
    tally = slot.tally()
    assert tally.errors == {400 + i: 2 if i in (0, 10) else 1 for i in range(ERROR_KINDS)}
    assert tally.other_errors == 4
    assert tally.failures == ERROR_KINDS + 6


@steady
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(200, 599), min_size=1, max_size=5),
            st.floats(0, 100),
            st.floats(1, 2e9),
        ),
        max_size=40,
    )
)
def test_counts_are_those_of_a_plain_counter(table, batches):
    slot = table[1]
    slot.clear_tally()
    for statuses, seconds, now in batches:
        slot.count(statuses, seconds, now)
    tally = slot.tally()
    wanted = Counter(s for statuses, _, _ in batches for s in statuses if s >= 400)
    kept = dict(list(wanted.items())[:ERROR_KINDS])  # in the order in which they came
    assert tally.errors == kept
    assert tally.other_errors == wanted.total() - sum(kept.values())
    assert tally.requests == sum(len(statuses) for statuses, _, _ in batches)
    assert tally.seconds == pytest.approx(sum(len(s) * seconds for s, seconds, _ in batches))
    assert tally.last_use == (batches[-1][2] if batches else None)
    for index, bound in enumerate(BOUNDS):
        below = sum(len(s) for s, seconds, _ in batches if seconds <= bound)
        assert sum(tally.buckets[: index + 1]) == below


def test_the_tallies_of_neighbours_are_apart():
    table = SlotTable()
    slots = [table.acquire() for _ in range(3)]
    before = [slot.request_ids for slot in slots]
    slots[1].count(list(range(400, 460)), 70.0, 9.0)
    assert [slot.tally().requests for slot in slots] == [0, 60, 0]
    assert slots[0].tally() == slots[2].tally() == Tally()
    assert [slot.request_ids for slot in slots] == before
    assert {slot.state for slot in slots} == {State.LOADING}
    last = table[COUNT - 1]
    last.count([599], 70.0, 9.0)
    assert last.tally().errors == {599: 1}
    os.close(table.descriptor)


def test_tallies_add_up():
    left = Tally((1,) + (0,) * len(BOUNDS), 0.1, {404: 1, 500: 2}, 3, 10.0)
    right = Tally((0,) * len(BOUNDS) + (4,), 300.0, {500: 1, 507: 5}, 1, 9.0)
    both = left + right
    assert both.buckets == (1, *(0,) * (len(BOUNDS) - 1), 4)
    assert both.errors == {404: 1, 500: 3, 507: 5}
    assert (both.requests, both.failures, both.other_errors) == (5, 13, 4)
    assert both.seconds == pytest.approx(300.1)
    assert both.last_use == 10.0
    assert left + Tally() == left == Tally() + left


def test_what_is_read_while_a_process_counts_is_a_batch_off_at_most():
    """One process counts batches of three, the last of which is an error; another reads."""
    table = SlotTable()
    slot, told = table.acquire(), table.acquire()

    def count_until_told() -> None:
        number = 0
        while told.state is not State.IDLE:
            slot.count([200, 200, 404 if number % 2 else 503], 0.25, 1000.0 + number)
            number += 1

    pid = os.fork()
    if pid == 0:
        try:
            count_until_told()
            os._exit(0)
        finally:
            os._exit(1)
    try:
        changes = 0
        while changes < 500:
            before, tally, after = slot.tally().requests, slot.tally(), slot.tally().requests
            changes += after > before
            assert before <= tally.requests <= after
            assert tally.requests % 3 == 0
            assert set(tally.errors) <= {404, 503}
            assert before // 3 - 1 <= tally.failures <= after // 3
            assert before * 0.25 - 0.75 <= tally.seconds <= after * 0.25
            assert tally.last_use is None or 1000.0 <= tally.last_use < 1000.0 + after // 3
    finally:
        told.state = State.IDLE
        status = os.waitpid(pid, 0)[1]
    assert status == 0
    final = slot.tally()
    assert final.requests == 3 * final.failures
    assert final.seconds == 0.25 * final.requests
    os.close(table.descriptor)


def test_counting_takes_a_page_for_several_processes():
    table = SlotTable()
    slots = [table.acquire() for _ in range(800)]
    for slot in slots:
        slot.count([200, 404], 0.01, 1.0)
    assert os.fstat(table.descriptor).st_blocks * 512 <= 110 * 4096
    os.close(table.descriptor)


def test_a_tally_without_all_buckets_is_none():
    with pytest.raises(ValueError, match="2 buckets in place of"):
        Tally((1, 2))
