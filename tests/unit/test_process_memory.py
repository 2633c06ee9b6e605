"""What processes take of memory, measured on real forks."""

from __future__ import annotations

import functools
import mmap
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from manymodels.backend import process_memory
from manymodels.backend.process_memory import Tree
from manymodels.settings import MIB

TOLERANCE = 3 * MIB
"""A fork writes to some of its parent's pages, more so after a long test run."""


def pages(mib: int) -> mmap.mmap:
    """Memory that is there page by page, outside of any heap."""
    block = mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    touch(block)
    return block


def touch(block: mmap.mmap) -> None:
    for start in range(0, len(block), mmap.PAGESIZE):
        block[start] = 1


def alone(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test in a fork, whose only descendants are those that the test makes."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                test(*args, **kwargs)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return run


@dataclass
class Child:
    """A fork that does one thing at its start, and a second one when it is told to."""

    pid: int
    orders: int
    done: int

    def go_on(self) -> None:
        os.write(self.orders, b"1")
        os.read(self.done, 1)

    def end(self) -> None:
        if self.pid:
            os.close(self.orders)
            os.waitpid(self.pid, 0)
            os.close(self.done)
            self.pid = 0


@pytest.fixture
def fork() -> Iterator[Callable[..., Child]]:
    children: list[Child] = []

    def start(first: Callable[[], object], then: Callable[[], object] = int) -> Child:
        orders, our_orders = os.pipe()
        our_done, done = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(our_orders)
                for child in children:
                    if child.pid:
                        os.close(child.orders)
                kept = [first()]
                os.write(done, b"1")
                os.read(orders, 1)
                kept.append(then())
                os.write(done, b"1")
                os.read(orders, 1)
            finally:
                os._exit(0)
        os.close(orders)
        os.close(done)
        os.read(our_done, 1)
        children.append(Child(pid, our_orders, our_done))
        return children[-1]

    yield start
    for child in children:
        child.end()


def test_what_a_fork_inherits_is_shared_and_what_it_makes_is_its_own(fork):
    inherited = pages(40)
    memory = process_memory.of(fork(lambda: pages(20)).pid)
    assert 20 * MIB <= memory.private <= 20 * MIB + TOLERANCE
    assert memory.shared >= 40 * MIB
    assert memory.private < memory.proportional < memory.private + memory.shared
    inherited.close()


def test_what_a_fork_writes_to_becomes_its_own(fork):
    inherited = pages(40)
    child = fork(int, lambda: touch(inherited))
    assert process_memory.of(child.pid).private <= TOLERANCE
    child.go_on()
    assert process_memory.of(child.pid).private >= 40 * MIB
    inherited.close()


def test_the_peak_is_of_what_was_its_own_and_outlives_it(fork):
    inherited = pages(40)
    child = fork(lambda: pages(60).close() or pages(10))
    memory = process_memory.of(child.pid)
    assert 10 * MIB <= memory.private <= 10 * MIB + TOLERANCE
    assert 60 * MIB <= memory.peak <= 60 * MIB + 2 * TOLERANCE
    inherited.close()


def test_a_process_that_has_ended_cannot_be_measured(fork):
    child = fork(int)
    pid = child.pid
    child.end()
    with pytest.raises(ProcessLookupError, match=str(pid)):
        process_memory.of(pid)


# -- several together ----------------------------------------------------------------------------


def exact(pids: list[int]) -> int:
    return sum(process_memory.of(pid).proportional for pid in pids)


@alone
def test_pages_that_several_share_count_once_in_their_sum(fork):
    inherited = pages(60)
    children = [fork(int) for _ in range(6)]
    pids = [os.getpid(), *(child.pid for child in children)]
    assert Tree(os.getpid()).proportional(0.0) == pytest.approx(exact(pids), abs=TOLERANCE)
    inherited.close()


def test_a_tree_is_a_process_and_all_that_descends_from_it(fork):
    def grandchild() -> None:
        os.close(ours)
        if os.fork() == 0:
            block = pages(30)
            os.write(ready, b"1")
            os.read(orders, 1)  # until its grandparent closes the other end
            os._exit(len(block) & 0)

    us, ready = os.pipe()
    orders, ours = os.pipe()
    child = fork(grandchild)
    os.read(us, 1)
    own = process_memory.of(child.pid).proportional
    assert Tree(child.pid).proportional(0.0) >= own + 30 * MIB
    for descriptor in (ours, orders, us, ready):
        os.close(descriptor)


@alone
def test_a_sum_is_good_for_a_moment_and_then_taken_anew(fork):
    child = fork(int, lambda: pages(50))
    tree = Tree(os.getpid())
    first = tree.proportional(100.0)
    child.go_on()
    assert tree.proportional(100.0 + 0.9 * Tree.SECONDS) == first
    assert tree.proportional(100.0 + Tree.SECONDS) >= first + 45 * MIB


@alone
def test_a_sum_that_was_told_to_expire_is_taken_anew(fork):
    child = fork(int, lambda: pages(50))
    tree = Tree(os.getpid())
    first = tree.proportional(100.0)
    child.go_on()
    tree.expire()
    assert tree.proportional(100.0) >= first + 45 * MIB


@alone
def test_a_clock_that_was_set_back_does_not_keep_an_old_sum(fork):
    child = fork(int, lambda: pages(50))
    tree = Tree(os.getpid())
    first = tree.proportional(100.0)
    child.go_on()
    assert tree.proportional(5.0) >= first + 45 * MIB


@alone
def test_what_was_shared_and_is_written_to_counts_although_nothing_more_is_resident(fork):
    inherited = pages(40)
    child = fork(int, lambda: touch(inherited))
    tree = Tree(os.getpid())
    before = tree.proportional(0.0)
    child.go_on()
    assert tree.proportional(10.0) == pytest.approx(before + 40 * MIB, abs=TOLERANCE)
    inherited.close()


@alone
def test_processes_that_end_leave_the_sum_as_it_was_without_them(fork):
    inherited = pages(60)
    tree = Tree(os.getpid())
    alone = tree.proportional(0.0)
    children = [fork(lambda: pages(5)) for _ in range(5)]
    pids = [os.getpid(), *(child.pid for child in children)]
    assert tree.proportional(10.0) == pytest.approx(exact(pids), abs=TOLERANCE)
    for child in children:
        child.end()
    assert tree.proportional(20.0) == pytest.approx(alone, abs=TOLERANCE)
    inherited.close()


@alone
def test_processes_that_have_not_changed_are_not_read_again(fork, monkeypatch):
    children = [fork(int) for _ in range(8)]
    tree = Tree(os.getpid())
    tree.proportional(0.0)
    read: list[int] = []
    of = process_memory.of
    monkeypatch.setattr(process_memory, "of", lambda pid, proc: read.append(pid) or of(pid, proc))
    tree.proportional(10.0)
    assert len({child.pid for child in children} & set(read)) <= Tree.OLDEST


@alone
def test_every_process_is_read_again_in_time(fork, monkeypatch):
    children = [fork(int) for _ in range(4)]
    tree = Tree(os.getpid())
    tree.proportional(0.0)
    read: set[int] = set()
    of = process_memory.of
    monkeypatch.setattr(process_memory, "of", lambda pid, proc: read.add(pid) or of(pid, proc))
    for now in range(10, 10 + len(children) + 1):
        tree.proportional(float(now))
    assert {child.pid for child in children} <= read


@alone
def test_a_process_that_ends_while_it_is_read_is_left_out(monkeypatch, fork):
    child = fork(lambda: pages(50))
    of = process_memory.of

    def ends(pid: int, proc: object) -> process_memory.ProcessMemory:
        if pid == child.pid:
            raise ProcessLookupError
        return of(pid, proc)

    with_it = exact([os.getpid(), child.pid])
    monkeypatch.setattr(process_memory, "of", ends)
    assert Tree(os.getpid()).proportional(0.0) < with_it - 40 * MIB


def test_a_tree_whose_root_is_gone_takes_nothing(fork):
    child = fork(int)
    pid = child.pid
    child.end()
    assert Tree(pid).proportional(0.0) == 0
