"""The memory guard: which loads it admits, what it says of those it refuses, and what it learns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manymodels.backend.cgroup import MemoryUse, TaskUse
from manymodels.backend.demand import AROUND_BYTES, BASE_BYTES, PROCESS_BYTES, Demand
from manymodels.backend.guard import BUDGET, TASKS_PER_LOAD, Guard, Meter
from manymodels.backend.learning import ENOUGH, PER_FILE, Learning
from manymodels.errors import OutOfMemory
from manymodels.settings import MIB, Amount, GuardSettings


@dataclass
class Gauge:
    """A machine of which the tests say what is used."""

    used: int
    total: int
    expired: int = 0

    def limit(self) -> int:
        return self.total

    def use(self, now: float) -> MemoryUse:
        return MemoryUse(self.used, self.total, "a test")

    def expire(self) -> None:
        self.expired += 1


@dataclass
class Machine:
    """A gauge and what else a guard looks at."""

    gauge: Gauge
    tasks: TaskUse | None = None
    taken: dict[int, int] = field(default_factory=dict)

    def guard(self, settings: GuardSettings | None = None) -> Guard:
        return Guard(
            settings or GuardSettings(), self.gauge, lambda: self.tasks, lambda pid: self.taken[pid]
        )


def machine(used: int, total: int) -> Machine:
    return Machine(Gauge(used * MIB, total * MIB))


def a_model(expected: int = 0, name: str = "a", kind: str = "pickle", fixed: int = 0) -> Demand:
    return Demand(name.encode(), kind, fixed * MIB, expected * MIB)


# -- what is admitted ----------------------------------------------------------------------------


def test_a_first_model_is_loaded_in_a_container_of_512_mib():
    assert machine(250, 512).guard().admit(a_model(100), 0.0).bytes == BASE_BYTES + 100 * MIB


def test_a_model_in_the_place_of_one_that_was_unloaded_may_take_what_the_jvm_took_since():
    guard = machine(400, 512).guard()
    needed = BASE_BYTES - AROUND_BYTES
    assert guard.admit(a_model(), 0.0, kept=True).bytes == needed
    full = machine(512 - 36 - needed // MIB, 512)
    with pytest.raises(OutOfMemory, match="48 MiB must stay free"):
        full.guard().admit(a_model(), 0.0)
    assert full.guard().admit(a_model(), 0.0, kept=True).bytes == needed
    full.gauge.used += MIB
    with pytest.raises(OutOfMemory, match="36 MiB must stay free"):
        full.guard().admit(a_model(), 0.0, kept=True)


def test_models_that_had_no_request_yet_will_grow_by_their_first():
    needed = BASE_BYTES // MIB
    full = machine(512 - 48 - needed, 512)
    assert full.guard().admit(a_model(), 0.0, fresh=6).bytes == BASE_BYTES
    with pytest.raises(OutOfMemory, match="12 MiB are reserved for 0 loads"):
        full.guard().admit(a_model(), 0.0, fresh=12)


def test_the_floor_is_a_share_but_neither_too_little_nor_too_much():
    assert machine(0, 512).guard().floor == 48 * MIB
    assert machine(0, 10_000).guard().floor == 600 * MIB
    assert machine(0, 1_000_000).guard().floor == 1024 * MIB


def test_a_load_that_would_not_leave_the_floor_is_refused_with_the_figures():
    guard = machine(400, 512).guard()
    guard.admit(a_model(), 0.0)
    with pytest.raises(OutOfMemory) as refused:
        guard.admit(a_model(60), 0.0)
    assert refused.value.status == 507
    assert str(refused.value) == (
        "a load that needs 70 MiB does not fit: 400 MiB of 512 MiB are used (a test), 10 MiB are "
        "reserved for 1 load under way, and 48 MiB must stay free"
    )
    assert guard.reserved == BASE_BYTES


def test_a_load_that_leaves_the_floor_exactly_is_admitted_and_one_byte_more_is_not():
    some = machine(512 - 48 - 10 - 30, 512)
    with pytest.raises(OutOfMemory):
        some.guard().admit(replace(a_model(30), expected=30 * MIB + 1), 0.0)
    some.guard().admit(a_model(30), 0.0)


@pytest.mark.parametrize(
    ("total", "setting", "floor"),
    [
        (512, None, 48 * MIB),
        (4096, None, int(0.06 * 4096 * MIB)),
        (4096, Amount(share=0.5), 2048 * MIB),
        (4096, Amount(size=1), 1),
    ],
)
def test_the_floor_is_the_settings_or_a_share_of_the_limit(total, setting, floor):
    assert machine(0, total).guard(GuardSettings(floor=setting)).floor == floor


def test_with_the_guard_off_nothing_is_refused():
    some = machine(512, 512)
    some.tasks = TaskUse(100, 100)
    guard = some.guard(GuardSettings(active=False))
    with guard.admit(a_model(10_000), 0.0):
        assert guard.reserved > 10_000 * MIB
    assert guard.reserved == 0


def test_loads_under_way_are_reserved_until_they_are_over():
    some = machine(300, 512)
    guard = some.guard()
    first = guard.admit(a_model(100), 0.0)
    with pytest.raises(OutOfMemory):
        guard.admit(a_model(100), 0.0)
    before = some.gauge.expired
    first.release()
    first.release()
    assert guard.reserved == 0
    assert some.gauge.expired == before + 1, "the next figures must have what the load took"
    guard.admit(a_model(100), 0.0)


def test_what_a_load_under_way_has_taken_is_not_counted_twice():
    some = machine(300, 512)
    guard = some.guard()
    guard.admit(a_model(100), 0.0).pid = 7
    some.taken[7] = 90 * MIB
    some.gauge.used += 90 * MIB
    guard.admit(a_model(40), 0.0)
    with pytest.raises(OutOfMemory):
        guard.admit(a_model(40), 0.0)


def test_a_load_whose_process_is_gone_stays_reserved_until_it_is_released():
    def gone(pid: int) -> int:
        raise ProcessLookupError

    guard = Guard(GuardSettings(), machine(300, 512).gauge, lambda: None, gone)
    guard.admit(a_model(100), 0.0).pid = 7
    with pytest.raises(OutOfMemory):
        guard.admit(a_model(100), 0.0)


def test_a_guess_does_not_refuse_the_only_model_and_takes_what_is_left():
    some = machine(250, 512)
    guard = some.guard()
    with pytest.raises(OutOfMemory):
        guard.admit(a_model(1000), 0.0)
    assert guard.admit(a_model(1000), 0.0, alone=True).bytes == (512 - 250 - 48) * MIB


def test_what_is_known_refuses_the_only_model_too():
    guard = machine(250, 512).guard()
    guard.learn(a_model(), 1000 * MIB)
    with pytest.raises(OutOfMemory, match="needs 1002 MiB"):
        guard.admit(a_model(), 0.0, alone=True)


def test_where_not_even_the_base_fits_the_only_model_is_refused():
    with pytest.raises(OutOfMemory):
        machine(460, 512).guard().admit(a_model(), 0.0, alone=True)


# -- processes and threads -----------------------------------------------------------------------


def test_a_load_that_leaves_the_jvm_too_few_threads_is_refused():
    some = machine(250, 4096)
    some.tasks = TaskUse(1024 - 64 - 2 * TASKS_PER_LOAD, 1024)
    guard = some.guard()
    guard.admit(a_model(), 0.0)
    guard.admit(a_model(), 0.0)
    with pytest.raises(OutOfMemory) as refused:
        guard.admit(a_model(), 0.0)
    assert str(refused.value) == (
        "a load that needs 8 processes and threads does not fit: 944 of 1024 are there, 16 are "
        "reserved for 2 loads under way, and 64 must stay free"
    )


def test_a_small_limit_of_processes_leaves_room_for_a_model():
    some = machine(250, 4096)
    some.tasks = TaskUse(60, 100)
    some.guard().admit(a_model(), 0.0)


# -- a budget ------------------------------------------------------------------------------------


def test_a_budget_counts_this_servers_processes_only(tmp_path):
    meter = Meter(64 * MIB, os.getpid(), root=tmp_path)
    use = meter.use(0.0)
    assert meter.limit() == 64 * MIB
    assert (use.limit, use.source) == (64 * MIB, BUDGET)
    assert 0 < use.used < Meter(None, os.getpid(), root=tmp_path).use(0.0).used


def test_a_budget_above_the_limit_is_none(tmp_path):
    (tmp_path / "memory.max").write_text(f"{100 * MIB}\n")
    (tmp_path / "memory.current").write_text(f"{30 * MIB}\n")
    meter = Meter(200 * MIB, os.getpid(), root=tmp_path)
    assert meter.limit() == 100 * MIB
    assert meter.use(0.0) == MemoryUse(30 * MIB, 100 * MIB, "cgroup v2")


def test_the_guard_of_this_machine_admits_a_model():
    guard = Guard.standard(GuardSettings(floor=Amount(size=1)), os.getpid())
    assert guard.use(0.0).used > 0
    with guard.admit(a_model(), 0.0):
        assert guard.reserved == BASE_BYTES


# -- learning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [20 * MIB, 300 * MIB])
def test_what_a_model_took_beats_the_guess_in_both_directions(taken):
    learning = Learning()
    assert learning.estimate(a_model(100)).bytes == BASE_BYTES + 100 * MIB
    learning.note(a_model(100), taken)
    estimate = learning.estimate(a_model(100))
    assert (estimate.bytes, estimate.known) == (taken + AROUND_BYTES, True)


def test_only_a_model_that_was_loaded_before_is_expected_to_need_less_than_the_base():
    learning = Learning()
    for name in "abcdef":
        learning.note(a_model(100, name), 0)
    assert learning.estimate(a_model(100)).bytes == AROUND_BYTES + 2 * MIB
    assert learning.estimate(a_model(100, "new")).bytes == BASE_BYTES


def test_the_load_that_took_most_counts_until_others_have_followed():
    learning = Learning()
    learning.note(a_model(), 500 * MIB)
    for _ in range(PER_FILE - 1):
        learning.note(a_model(), 50 * MIB)
        assert learning.estimate(a_model()).bytes == 500 * MIB + AROUND_BYTES
    learning.note(a_model(), 50 * MIB)
    assert learning.estimate(a_model()).bytes == 50 * MIB + AROUND_BYTES


def test_models_of_a_kind_tell_of_one_not_seen_before():
    learning = Learning()
    for number in range(ENOUGH):
        learning.note(a_model(100, f"{number}"), PROCESS_BYTES + 25 * MIB)
    estimate = learning.estimate(a_model(400, "new"))
    assert (estimate.bytes, estimate.known) == (BASE_BYTES + 100 * MIB, False)
    assert learning.estimate(a_model(400, "new", "ONNX")).bytes == BASE_BYTES + 400 * MIB


def test_one_model_of_a_kind_is_believed_where_it_took_more_and_not_where_it_took_less():
    more, less = Learning(), Learning()
    more.note(a_model(100), PROCESS_BYTES + 300 * MIB)
    less.note(a_model(100), PROCESS_BYTES)
    assert more.estimate(a_model(100, "new")).bytes == BASE_BYTES + 300 * MIB
    assert less.estimate(a_model(100, "new")).bytes == BASE_BYTES + 100 * MIB


def test_one_model_loaded_again_and_again_is_one_model_of_its_kind():
    learning = Learning()
    for _ in range(3 * ENOUGH):
        learning.note(a_model(100), PROCESS_BYTES)
    assert learning.estimate(a_model(100, "new")).bytes == BASE_BYTES + 100 * MIB


def test_what_small_models_of_a_kind_take_is_added_to_what_size_makes():
    # A library of 150 MiB that the models' own code imports.
    learning = Learning()
    for number in range(ENOUGH):
        learning.note(a_model(0, f"small {number}"), PROCESS_BYTES + 150 * MIB)
        learning.note(a_model(100, f"large {number}"), PROCESS_BYTES + 350 * MIB)
    assert learning.estimate(a_model(0, "new")).bytes == BASE_BYTES + 150 * MIB
    assert learning.estimate(a_model(10, "new")).bytes == BASE_BYTES + 170 * MIB


def test_only_so_many_models_are_remembered_those_asked_for_last():
    learning = Learning(most_files=3)
    for name in "abc":
        learning.note(a_model(0, name), 100 * MIB)
    assert learning.estimate(a_model(0, "a")).known
    learning.note(a_model(0, "d"), 100 * MIB)
    assert len(learning) == 3
    assert [learning.estimate(a_model(0, name)).known for name in "abcd"] == [1, 0, 1, 1]


demands = st.builds(
    Demand,
    st.sampled_from([b"a", b"b", b"c", b"d", b"e", b"f"]),
    st.sampled_from(["pickle", "ONNX"]),
    st.sampled_from([0, 34 * MIB]),
    st.integers(0, 300 * MIB),
)
sizes = st.integers(0, 600 * MIB)
histories = st.lists(st.tuples(demands, sizes), max_size=30)


@given(histories, demands, sizes, sizes)
def test_a_higher_peak_of_a_model_never_lowers_its_own_estimate(history, demand, one, other):
    estimates = []
    for peak in sorted((one, other)):
        learning = Learning()
        for past, taken in history:
            learning.note(past, taken)
        learning.note(demand, peak)
        estimates.append(learning.estimate(demand).bytes)
    assert estimates == sorted(estimates)


@given(st.lists(st.tuples(st.integers(0, 40), sizes, sizes), max_size=50), st.booleans())
def test_higher_peaks_never_lower_what_is_expected_of_others_of_the_kind(loads, large):
    size = 100 if large else 1
    low, high = Learning(), Learning()
    for name, one, other in loads:
        low.note(a_model(size, f"{name}"), min(one, other))
        high.note(a_model(size, f"{name}"), max(one, other))
    new = a_model(size, "new")
    assert low.estimate(new).bytes <= high.estimate(new).bytes


@given(histories, demands, st.integers(1, 5))
def test_estimates_are_never_below_the_base_and_memory_of_models_is_bounded(history, demand, most):
    learning = Learning(most_files=most)
    for past, taken in history:
        learning.note(past, taken)
        assert len(learning) <= most
    estimate = learning.estimate(demand)
    assert estimate.bytes >= (AROUND_BYTES + 2 * MIB if estimate.known else BASE_BYTES)


# -- whatever happens ----------------------------------------------------------------------------


class AnyLoads(RuleBasedStateMachine):
    """Loads come, grow and end in any order, on a machine that keeps count of what is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = machine(250, 1024)
        self.guard = self.machine.guard()
        self.under_way: list = []

    @rule(demand=demands, alone=st.booleans())
    def load(self, demand: Demand, alone: bool) -> None:
        before, floor = self.guard.reserved, self.guard.floor
        alone = alone and not self.under_way
        free = self.machine.gauge.total - self.machine.gauge.used
        to_come = sum(each.bytes - self.machine.taken[each.pid] for each in self.under_way)
        try:
            reservation = self.guard.admit(demand, 0.0, alone=alone)
        except OutOfMemory:
            assert self.guard.reserved == before, "refusing costs no reservation"
            needed = self.guard.estimate(demand).bytes
            assert needed + to_come > free - floor, "it would have fitted"
            return
        assert reservation.bytes + to_come <= free - floor
        reservation.pid = len(self.machine.taken)
        self.machine.taken[reservation.pid] = 0
        self.under_way.append(reservation)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), share=st.floats(0, 1))
    def take(self, data: st.DataObject, share: float) -> None:
        reservation = data.draw(st.sampled_from(self.under_way))
        more = int(share * (reservation.bytes - self.machine.taken[reservation.pid]))
        self.machine.taken[reservation.pid] += more
        self.machine.gauge.used += more

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), loaded=st.booleans())
    def end(self, data: st.DataObject, loaded: bool) -> None:
        reservation = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(reservation)
        if not loaded:
            self.machine.gauge.used -= self.machine.taken[reservation.pid]
        reservation.release()

    @rule(demand=demands, peak=sizes)
    def learn(self, demand: Demand, peak: int) -> None:
        self.guard.learn(demand, peak)

    @invariant()
    def the_floor_is_left_whatever_loads_still_take(self) -> None:
        gauge = self.machine.gauge
        to_come = sum(each.bytes - self.machine.taken[each.pid] for each in self.under_way)
        assert gauge.total - gauge.used - to_come >= self.guard.floor

    def teardown(self) -> None:
        for reservation in self.under_way:
            reservation.release()
        assert self.guard.reserved == 0


TestAnyLoads = AnyLoads.TestCase
