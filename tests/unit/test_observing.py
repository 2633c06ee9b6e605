"""Memory, directories and leases, as who asks a server sees them itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from manymodels.status import observing
from manymodels.status.observing import MemoryObserver, memory_of, observe
from manymodels.status.snapshot import Worker
from manymodels.storage import exclude, share
from tests.unit.snapshots import MIB, model, snapshot, tally


@pytest.fixture
def child() -> Iterator[int]:
    """A process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.communicate(b"\n", timeout=30)


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_memory_of_a_process_is_split_into_its_own_and_what_it_shares(child):
    found = memory_of(child)
    assert found is not None
    private, shared = found
    assert MIB < private < 100 * MIB
    assert 0 < shared < 100 * MIB


def test_private_memory_is_what_a_fork_has_written_to():
    block = bytearray(64 * MIB)
    for offset in range(0, len(block), 4096):
        block[offset] = 1
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            for offset in range(0, 16 * MIB, 4096):
                block[offset] = 2
            theirs.send(b"x")
            theirs.recv(1)
        finally:
            os._exit(0)
    try:
        assert ours.recv(1) == b"x"
        found = memory_of(pid)
    finally:
        ours.send(b"x")
        os.waitpid(pid, 0)
        ours.close()
        theirs.close()
    assert found is not None
    assert 16 * MIB <= found[0] < 40 * MIB
    assert found[1] >= 48 * MIB


def test_a_process_that_is_gone_has_no_memory(gone):
    assert memory_of(gone) is None
    observed = observe(snapshot(model("m", Worker(gone, "idle", tally()))))
    assert observed.models[0].private_bytes is None


def test_a_models_memory_is_that_of_all_its_processes(child, gone):
    workers = [Worker(pid, "idle", tally()) for pid in (child, os.getpid(), gone)]
    observed = observe(snapshot(model("m", *workers))).models[0]
    first, second, third = observed.workers
    assert None not in (first.private_bytes, second.private_bytes, second.shared_bytes)
    assert third.private_bytes is third.shared_bytes is None
    assert observed.private_bytes == first.private_bytes + second.private_bytes
    assert observed.shared_bytes == max(first.shared_bytes, second.shared_bytes)


@pytest.fixture
def looks(monkeypatch) -> list[int]:
    """The processes that were looked at; the shared memory of each is the number of looks."""
    looks: list[int] = []
    monkeypatch.setattr(observing, "memory_of", lambda pid: looks.append(pid) or (1, len(looks)))
    return looks


def shared_bytes(observer: MemoryObserver, now: float, *workers: Worker) -> list[int | None]:
    observed = observer.observe(snapshot(*(model(f"m{w.pid}", w) for w in workers)), now)
    return [one.shared_bytes for one in observed.models]


def test_a_process_that_answers_nothing_is_seldom_looked_at_again(looks):
    observer = MemoryObserver()
    first, second = Worker(1, "idle", tally(0.1)), Worker(2, "idle", tally())
    assert shared_bytes(observer, 0, first, second) == [1, 2]
    assert shared_bytes(observer, observing.IDLE_SECONDS - 1, first, second) == [1, 2]
    assert shared_bytes(observer, observing.IDLE_SECONDS, first, second) == [3, 4]
    assert looks == [1, 2, 1, 2]


def test_a_process_that_answers_is_looked_at_again_after_a_while(looks):
    observer = MemoryObserver()
    before, after = Worker(1, "idle", tally(0.1)), Worker(1, "idle", tally(0.1, 0.1))
    assert shared_bytes(observer, 0, before) == [1]
    assert shared_bytes(observer, observing.BUSY_SECONDS - 1, after) == [1]
    assert shared_bytes(observer, observing.BUSY_SECONDS, after) == [2]


def test_a_process_is_looked_at_once_it_has_loaded(looks):
    observer = MemoryObserver()
    assert shared_bytes(observer, 0, Worker(1, "loading", tally())) == [1]
    assert shared_bytes(observer, 1, Worker(1, "idle", tally())) == [2]


def test_a_process_that_is_gone_for_a_snapshot_is_a_new_one(looks):
    observer = MemoryObserver()
    for now in range(3):
        shared_bytes(observer, now, Worker(1, "idle", tally()))
        shared_bytes(observer, now)
    assert looks == [1, 1, 1]


def test_a_directory_is_weighed_without_following_links(tmp_path):
    directory, outside = tmp_path / "model", tmp_path / "outside"
    directory.mkdir()
    outside.mkdir()
    (outside / "large").write_bytes(os.urandom(4 * MIB))
    (directory / "model.joblib").write_bytes(os.urandom(MIB))
    (directory / "link").symlink_to(outside / "large")
    (directory / "links").symlink_to(outside)
    observed = observe(snapshot(model("m", path=str(directory)))).models[0]
    assert observed.directory_bytes is not None
    assert MIB <= observed.directory_bytes < 2 * MIB


def test_a_lease_is_seen_and_so_is_its_end(tmp_path):
    one = snapshot(model("m", path=str(tmp_path)), model("n", path=str(tmp_path)))
    assert [found.leased for found in observe(one).models] == [False, False]
    with share(tmp_path):
        assert [found.leased for found in observe(one).models] == [True, True]
    assert [found.leased for found in observe(one).models] == [False, False]
    exclude(tmp_path).close()


def test_a_lease_is_found_behind_a_link(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    one = snapshot(model("m", path=str(tmp_path / "link")))
    assert observe(one).models[0].leased is False
    with share(tmp_path / "model"):
        assert observe(one).models[0].leased is True


@pytest.mark.parametrize("path", ["/no/such/directory", "", "\x00", "/" + "x" * 5000])
def test_a_directory_that_cannot_be_looked_at_is_unknown(path):
    observed = observe(snapshot(model("m", path=path))).models[0]
    assert (observed.directory_bytes, observed.leased) == (None, None)
